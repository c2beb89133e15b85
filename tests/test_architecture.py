"""The rules of the layout, read from the source: imports, what is loaded when, twin adapters.

Nothing here imports a framework, or needs one: the source is parsed, and imports are tried in a
fresh interpreter.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

#: Each package or root module of mponet imports only those left of it, lazy imports included.
#: "mponet" is the package root: it hands out the public names and provides the notebook renderer,
#: so it comes after everything it names.
ORDER = [
    *("_version", "errors", "files", "group", "display"),
    *("operators", "contraction", "layers", "models", "recipe", "backend"),
    *("training", "compress", "export", "draw", "crosscheck", "bench", "report", "cli"),
    *("mponet", "__main__"),
]
#: Modules next to packages in ``mponet/``, ``__init__`` and ``__main__`` included.
MAX_ROOT_MODULES = 8

FRAMEWORKS = {"torch", "jax", "jaxlib", "flax", "optax", "tensorflow", "keras"}
#: What each adapter may import of them.
OWN = {
    "mponet_numpy": set(),
    "mponet_torch": {"torch", "mponet_triton"},
    "mponet_triton": {"torch"},
    "mponet_jax": {"jax", "flax", "optax"},
    "mponet_tensorflow": {"tensorflow", "keras"},
}
TWINS = ("mponet_torch", "mponet_jax", "mponet_tensorflow")
MAX_LINES = 400

#: The same thing under the name that its framework would give it.
SYNONYMS = {
    "MPODense": "MPOLinear",
    "NetworkDense": "NetworkLinear",
    "MPOEinsumDense": "MPOEinsum",
    "MPOConv1D": "MPOConv1d",
    "MPOConv2D": "MPOConv2d",
    "MPOEmbed": "MPOEmbedding",
    "__call__": "forward",
    "call": "forward",
}
#: Methods that a framework asks of its layers, and the others do not know.
HOOKS = {
    "mponet_torch": {"extra_repr"},
    "mponet_jax": set(),
    "mponet_tensorflow": {
        *("build", "call", "compute_mask", "compute_output_shape", "compute_output_spec"),
        *("get_config", "from_config"),
    },
}
#: Parameters that say where and in what numbers, each framework in words of its own.
PLACEMENT = {"device", "dtype", "param_dtype", "**kwargs"}
#: (adapter, file, names that are its own or look otherwise, why), all else is the same in every
#: twin.
DIFFERENCES = (
    ("mponet_jax", "ops/arrays.py", "PRECISION accumulator", "XLA is told the precision of every product and sum"),
    ("mponet_jax", "ops/arrays.py", "supported", "JAX turns float64 into float32 without a word"),
    (
        "mponet_jax",
        "ops/contraction.py",
        "Primals Tensors differentiable",
        "JAX differentiates the forward pass itself, its states computed again",
    ),
    (
        "mponet_torch",
        "nn/calls.py",
        "check_layer flattened unflattened shaped autocast leaf nested",
        "torch has autocast, nested tensors and symbolic tracing",
    ),
    (
        "mponet_tensorflow",
        "nn/calls.py",
        "linear check_inputs real dense_real as_rows as_leading",
        "Keras casts inputs, says whether it trains, and sizes may be unknown while tracing",
    ),
    ("mponet_jax", "nn/linear.py", "MPOLinear.__init__", "the arguments of nnx.Linear"),
    ("mponet_jax", "nn/parameters.py", "put", "arrays cannot be written to, and keep the device they were put on"),
    ("mponet_jax", "nn/network.py", "NetworkLinear.__init__", "the arguments of nnx.Linear"),
    (
        "mponet_jax",
        "nn/blocks.py",
        "Sequential ReLU MaxPool AvgPool",
        "nnx has functions for these, or no named layers",
    ),
    ("mponet_jax", "nn/blocks.py", "BatchNorm.__init__", "no nnx layer is extended: its variance cancels"),
    ("mponet_jax", "nn/blocks.py", "Dropout.__init__ Dropout.kept", "an nnx random stream is made with the layer"),
    (
        "mponet_torch",
        "ops/arrays.py",
        "InPlace IN_PLACE ops_for",
        "arrays that nobody differentiates can be written to",
    ),
    ("mponet_torch", "ops/arrays.py", "is_mapped", "vmap and grad wrap plain arrays, which must not be written to"),
    ("mponet_torch", "ops/arrays.py", "is_functionalized", "torch.func.functionalize takes no autograd function"),
    ("mponet_torch", "nn/calls.py", "known_size", "three tracers, each with a sign of its own"),
    ("mponet_torch", "ops/contraction.py", "apply", "an eager layer in eval mode keeps its weights"),
    (
        "mponet_torch",
        "ops/contraction.py",
        "sweep backward weights_of records_as_much forward_saving",
        "its GPUs have kernels, and autograd records one product as well; XLA fuses on its own",
    ),
    (
        "mponet_torch",
        "freezing.py",
        "freeze",
        "a head is a module of its own, so the model tells which embeddings are heads",
    ),
    (
        "mponet_torch",
        "nn/frozen.py",
        "FrozenWeights.__init__ FrozenWeights.linear",
        "its dense layers keep (out, in), as a table is; a call of Python takes as long as a small product",
    ),
    ("mponet_tensorflow", "nn/frozen.py", "FrozenWeights.__init__", "a layer of Keras is trained or not, as a whole"),
    ("mponet_jax", "nn/frozen.py", "Kept freeze_layer unfreeze_layer", "the type of a variable says if it is trained"),
    ("mponet_torch", "nn/parameters.py", "ParameterAccess.frozen ParameterAccess.frozen_weights", "training is seen"),
    (
        "mponet_tensorflow",
        "nn/parameters.py",
        "ParameterAccess.load_own_variables ParameterAccess.trainable",
        "what training of a Keras layer begins with",
    ),
    ("mponet_jax", "ops/contraction.py", "over_batch", "meshes with explicit axes"),
    ("mponet_torch", "ops/planning.py", "PlanCache", "layers of one process may lie on several devices"),
    ("mponet_torch", "nn/parameters.py", "dtype_name", "its dtypes have no names"),
    (
        "mponet_torch",
        "nn/parameters.py",
        "ParameterAccess.assign ParameterAccess.weight ParameterAccess.cache ParameterAccess.train",
        "parameters may be parametrised, code for torch reads weights, a layer in eval mode keeps some",
    ),
    ("mponet_torch", "nn/parameters.py", "ParameterAccess.plans", "hashing a shape takes as long as a small layer"),
    ("mponet_torch", "nn/parameters.py", "ParameterAccess.reset_parameters", "modules of torch have it"),
    (
        "mponet_torch",
        "nn/parameters.py",
        "ParameterAccess.bias ParameterAccess.seed ParameterAccess.tensors",
        "attributes of its layers; asking a module for a parameter takes as long as a small product",
    ),
    (
        "mponet_jax",
        "nn/parameters.py",
        "ParameterAccess.dtype ParameterAccess.param_dtype ParameterAccess.use_bias",
        "attributes of its layers",
    ),
    (
        "mponet_tensorflow",
        "nn/parameters.py",
        "ParameterAccess.name ParameterAccess.units ParameterAccess.use_bias ParameterAccess.seed "
        "ParameterAccess.activation ParameterAccess.tensors",
        "attributes of its layers; there are no weights before the layer is built",
    ),
    ("mponet_jax", "lower.py", "full_precision", "JAX is told the precision of each product"),
    ("mponet_torch", "nn/blocks.py", "BatchNorm.synchronized", "XLA sees the whole batch, and Keras has the attribute"),
    ("mponet_torch", "ops/group.py", "data_parallel fully_sharded share_of summed", "DDP and FSDP2 wrap modules"),
    ("mponet_jax", "ops/group.py", "DATA WHOLE mesh share placed kept batched", "XLA spreads the work over a mesh"),
    (
        "mponet_tensorflow",
        "ops/group.py",
        "LOST averaged strategy",
        "a strategy runs the step; its errors have classes",
    ),
    ("mponet_torch", "nn/blocks.py", "PaddedConv2d", "torch pads both sides alike"),
    ("mponet_torch", "nn/blocks.py", "BatchNorm.__init__", "the arguments of torch's own"),
    ("mponet_tensorflow", "nn/blocks.py", "Concat FlattenNHWC ReshapeNHWC Residual", "Keras has layers for these"),
    ("mponet_tensorflow", "nn/blocks.py", "BatchNorm.forward Dropout.forward", "Keras hands training to call()"),
    ("mponet_jax", "bench/__init__.py", "Passes.compiled", "XLA accounts for the memory of what it compiled"),
    ("mponet_torch", "bench/peers.py", "TENSORLY tensorly tednet", "packages for torch"),
    ("mponet_tensorflow", "bench/peers.py", "dense_mpo", "a package for TensorFlow"),
    ("mponet_jax", "train.py", "Leaves", "a compiled step takes and gives the parameters as a tuple"),
    ("mponet_tensorflow", "nn/parameters.py", "ParameterAccess.options", "the arguments of Keras"),
    ("mponet_torch", "nn/parameters.py", "ParameterAccess.kernel", "torch says weight, and keeps it (out, in)"),
    ("mponet_torch", "adapter.py", "Framework.read_state_dict", "PyTorch has a file format of its own"),
    ("mponet_torch", "__init__.py", "MPOEinsum", "torch has no layer that is an einsum"),
    ("mponet_jax", "nn/convolution.py", "window_of", "nnx has paddings that are names of fillings"),
    ("mponet_jax", "ops/arrays.py", "Ops.accumulate_gradient Ops.finalize Ops.spare", "JAX sums the gradients itself"),
    ("mponet_tensorflow", "nn/network.py", "NetworkLinear.__init__", "the arguments of keras.layers.Dense"),
    ("mponet_tensorflow", "nn/linear.py", "MPOLinear.__init__", "the arguments of keras.layers.Dense"),
    ("mponet_tensorflow", "nn/linear.py", "MPOLinear.sizes", "known only when the layer is built"),
    ("mponet_tensorflow", "ops/contraction.py", "apply", "Keras says whether a layer trains; torch keeps weights"),
    ("mponet_tensorflow", "nn/linear.py", "MPOLinear.forward", "Keras says whether a layer trains"),
    ("mponet_tensorflow", "nn/network.py", "NetworkLinear.forward", "Keras says whether a layer trains"),
    ("mponet_tensorflow", "lower.py", "images", "NHWC is its native order"),
    ("mponet_jax", "__init__.py", "MPOConv MPOConv1d MPOConv2d", "nnx has one class for any number of spatial axes"),
    ("mponet_jax", "nn/convolution.py", "MPOConv MPOConv1d MPOConv2d", "nnx has one class, as above"),
    (
        "mponet_jax",
        "nn/embedding.py",
        "MPOEmbedding.__init__ MPOEmbedding.features MPOEmbedding.embedding MPOEmbedding.attend",
        "the names of nnx.Embed",
    ),
    (
        "mponet_torch",
        "__init__.py",
        "TiedHead",
        "a module of torch has one forward; nnx has attend, Keras reverse=True",
    ),
    ("mponet_torch", "nn/embedding.py", "TiedHead", "a module of torch has one forward"),
    (
        "mponet_torch",
        "nn/embedding.py",
        "MPOEmbedding.__init__ MPOEmbedding.embedding_dim MPOEmbedding.kernel MPOEmbedding.padding_row "
        "MPOEmbedding.reset_parameters",
        "the names of torch.nn.Embedding, and its row that is not trained",
    ),
    (
        "mponet_tensorflow",
        "nn/embedding.py",
        "MPOEmbedding.__init__ MPOEmbedding.num_embeddings MPOEmbedding.embeddings MPOEmbedding.forward",
        "the names of keras.layers.Embedding, and reverse=True as its ReversibleEmbedding has",
    ),
)
#: Files that a twin has alone, and why.
OWN_FILES = {
    ("mponet_torch", "ops/kept.py"): "an eager layer in eval mode keeps its weights",
    ("mponet_torch", "nn/dense.py"): "torch has many layers that are a matrix, and hooks on them",
    ("mponet_torch", "nn/weight.py"): "code for torch reads and writes the weight of other layers",
    **{
        (package, f"compression/{name}.py"): "each framework walks, watches and replaces modules in ways of its own"
        for package in TWINS
        for name in (
            *("__init__", "distillation", "healing", "merging", "modules", "network", "saving", "streaming", "timing"),
            "upstream",
        )
    },
    ("mponet_tensorflow", "compression/duplicate.py"): "Keras copies models by their configs only",
    ("mponet_tensorflow", "compression/graph.py"): "Keras has no names of layers, and models that are graphs",
    ("mponet_jax", "compression/describing.py"): "nnx has functions that users replace, and stacked layers",
    ("mponet_jax", "nn/einsum.py"): "torch has no layer that is an einsum",
    ("mponet_tensorflow", "nn/einsum.py"): "torch has no layer that is an einsum",
    ("mponet_torch", "ops/state_dict.py"): "PyTorch has a file format of its own",
    ("mponet_torch", "compression/huggingface.py"): "its models are PyTorch's",
    ("mponet_torch", "compression/pretrained.py"): "models of Hugging Face are modules of PyTorch",
    ("mponet_torch", "compression/quantizer.py"): "its models are PyTorch's",
    ("mponet_torch", "registration.py"): "models of Hugging Face are modules of PyTorch",
    ("mponet_tensorflow", "nn/options.py"): "the arguments of keras.layers.Dense that concern weights",
}


# ---------------------------------------------------------------- reading


def root_of(package):
    """The folder of a package, found without an import, so that an installed wheel is read."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec is not None else None


def modules(package):
    """Dotted name to path of every module of a package; a package itself is its ``__init__``."""
    root = root_of(package)
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [package, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def docstrings(tree):
    """The string nodes that are documentation: they may name modules without importing them."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                yield statement.value


def is_module_name(value):
    """Whether a constant is a dotted name below ``mponet``.

    The entry-point group and a file are none.
    """
    return isinstance(value, str) and bool(re.fullmatch(r"mponet(?!\.(backends|json)$)(\.[a-z_0-9]+)+\.?", value))


def imports(name, path):
    """Every dotted name that a module imports; ``from a import b`` gives ``a.b``.

    A string that is the dotted name of a module counts, too: `import_module` calls, tables of
    modules that are loaded later, and processes started with ``-m``.  Of an f-string the beginning
    counts (``f"mponet.cli.{name}"``).
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = set(docstrings(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in documentation and is_module_name(node.value):
            yield node.value.rstrip(".")
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def targets(name, path, known):
    """The modules of ``known`` that a module imports: the longest known prefix of each name."""
    for imported in imports(name, path):
        parts = imported.split(".")
        beginnings = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
        target = next((beginning for beginning in beginnings if beginning in known), None)
        if target is not None and target != name:
            yield target


def unit(module):
    """``mponet.training.data.files`` belongs to the unit ``data``; ``mponet`` to itself."""
    return module.split(".")[1] if "." in module else module


def assigned(path):
    """Names that an ``__init__`` binds to anything but its own modules."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in statement.names)
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Assign):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))


CORE = modules("mponet")
ADAPTERS = {package: modules(package) for package in OWN if root_of(package) is not None}


# ---------------------------------------------------------------- imports of the core


def test_every_module_has_a_place_in_the_order():
    assert {unit(name) for name in CORE} <= set(ORDER)


def test_the_root_holds_few_modules():
    assert len(list(root_of("mponet").glob("*.py"))) <= MAX_ROOT_MODULES


@pytest.mark.parametrize("package", ["mponet", *ADAPTERS])
def test_no_module_is_hidden_by_a_name_of_its_package(package):
    """A submodule must not share its name with an exported function."""
    known = modules(package)
    hidden = [
        f"{parent}.{target}"
        for parent, path in known.items()
        if path.name == "__init__.py"
        for target in assigned(path)
        if f"{parent}.{target}" in known
    ]
    assert not hidden


def test_dynamic_imports_are_seen():
    path = CORE["mponet"]
    assert "mponet.draw" in set(imports("mponet", path))
    assert "mponet.cli" in set(imports("mponet.cli.group", CORE["mponet.cli.group"]))


@pytest.mark.parametrize("name", CORE)
def test_imports_point_one_way(name):
    mine = ORDER.index(unit(name))
    wrong = {t for t in targets(name, CORE[name], CORE) if unit(t) != unit(name) and ORDER.index(unit(t)) > mine}
    assert not wrong, f"{name} imports {sorted(wrong)}; expected only units left of {unit(name)!r} in ORDER"


@pytest.mark.parametrize("package", ["mponet", *ADAPTERS])
def test_there_are_no_import_cycles(package):
    known = modules(package)
    graph = {name: set(targets(name, path, known)) for name, path in known.items()}
    for name in known:
        # a package that exports names of its modules makes no cycle for a module that imports a
        # sibling
        graph[name] -= {parent for parent in known if name.startswith(f"{parent}.")}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"{' imports '.join(reversed(error.args[1]))}")


@pytest.mark.parametrize("name", CORE)
def test_the_core_imports_no_framework_and_no_adapter(name):
    tops = {imported.partition(".")[0] for imported in imports(name, CORE[name])}
    assert not tops & (FRAMEWORKS | set(OWN))


def test_tensornetwork_stays_inside_nodes():
    users = {name for name, path in CORE.items() for imported in imports(name, path) if "tensornetwork" in imported}
    assert users == {"mponet.operators.nodes"}


# ---------------------------------------------------------------- imports of the adapters


@pytest.mark.parametrize("package", ADAPTERS)
def test_an_adapter_imports_its_own_framework_only(package):
    for name, path in ADAPTERS[package].items():
        tops = {imported.partition(".")[0] for imported in imports(name, path)}
        assert not tops & ((FRAMEWORKS | set(OWN)) - OWN[package] - {package}), name


# ---------------------------------------------------------------- what is loaded


def loaded_by(statement):
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{statement}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return {name.partition(".")[0] for name in run.stdout.split()}


def test_import_mponet_loads_no_framework():
    loaded = loaded_by("import mponet")
    assert "numpy" in loaded  # or nothing was seen at all
    assert not loaded & (FRAMEWORKS | set(OWN) | {"tensornetwork", "scipy", "opt_einsum", "click", "rich", "sklearn"})


def test_the_numpy_adapter_loads_no_framework():
    loaded = loaded_by("import mponet_numpy, mponet_numpy.ops.arrays")
    assert "mponet_numpy" in loaded
    assert not loaded & FRAMEWORKS


# ---------------------------------------------------------------- size


@pytest.mark.parametrize("package", ["mponet", *ADAPTERS])
def test_files_are_short_enough_to_read(package):
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(package).items()}
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


# ---------------------------------------------------------------- twins


def signature(function):
    """Kind and parameters in order, with defaults, without `PLACEMENT` and annotations."""
    decorators = {ast.unparse(decorator) for decorator in function.decorator_list}
    given = function.args
    plain = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    named = [argument.arg for argument in given.kwonlyargs]
    padded = [None] * (len(plain) - len(given.defaults)) + given.defaults
    shown = {
        name: f"{name}={ast.unparse(default)}" if default else name
        for name, default in zip(plain + named, padded + given.kw_defaults, strict=True)
        if name not in PLACEMENT
    }
    parts = [shown[name] for name in plain if name in shown]
    parts += [f"*{given.vararg.arg}"] if given.vararg else []
    parts += [f"{shown[name]} (by name)" for name in named if name in shown]
    parts += [f"**{given.kwarg.arg}"] if given.kwarg and f"**{given.kwarg.arg}" not in PLACEMENT else []
    return " ".join([*sorted(decorators & {"property", "classmethod", "staticmethod"}), f"({', '.join(parts)})"])


def public(name):
    return not name.startswith("_") or name in ("__init__", "__call__")


def members(statement):
    """(name, look) of what a statement at the top of a file or class defines for others."""
    if isinstance(statement, ast.FunctionDef):
        yield statement.name, signature(statement)
    elif isinstance(statement, ast.ClassDef):
        yield statement.name, "class"
        if public(statement.name):
            for inner in statement.body:
                for name, look in members(inner):
                    if public(name):
                        yield f"{statement.name}.{name}", look
    elif isinstance(statement, ast.Assign):
        yield from ((target.id, "value") for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id, "value"
    elif isinstance(statement, ast.ImportFrom):
        # "import X as X" hands X out
        yield from ((alias.name, "handed out") for alias in statement.names if alias.asname == alias.name)


def interface(package, path):
    """Public name to look of a file, synonyms made equal and hooks left out."""
    found = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        for name, look in members(statement):
            *owner, last = name.split(".")
            hook = owner and path.parent.name == "nn" and last in HOOKS[package] - set(SYNONYMS)
            if public(owner[0] if owner else last) and not hook:
                found[".".join(SYNONYMS.get(part, part) for part in name.split("."))] = look
    return found


def written():
    """The twins that are more than a placeholder: file name to path."""
    files = {
        p: {path.relative_to(root_of(p)).as_posix(): path for path in ADAPTERS[p].values()}
        for p in TWINS
        if p in ADAPTERS
    }
    return {package: paths for package, paths in files.items() if set(paths) != {"__init__.py"}}


def excused(package, file, name):
    """Whether a name, or the class that it belongs to, is on record as different."""
    return any(
        (package, file) == entry[:2] and (name in entry[2].split() or name.partition(".")[0] in entry[2].split())
        for entry in DIFFERENCES
    )


def looks_of_twins():
    """(file, name) to the look in each twin, "absent" included."""
    twins = written()
    looks = defaultdict(lambda: dict.fromkeys(twins, "absent"))
    for package, paths in twins.items():
        for file, path in paths.items():
            if (package, file) in OWN_FILES:
                continue
            for name, look in interface(package, path).items():
                looks[file, name][package] = look
    return looks


def test_twins_have_the_same_files():
    twins = written()
    assert all(file in twins[package] for package, file in OWN_FILES if package in twins)
    names = {
        package: sorted(file for file in paths if (package, file) not in OWN_FILES) for package, paths in twins.items()
    }
    assert len({tuple(files) for files in names.values()}) <= 1, names


def test_twins_have_the_same_names_and_signatures():
    wrong = []
    for (file, name), looks in sorted(looks_of_twins().items()):
        unexcused = {package: look for package, look in looks.items() if not excused(package, file, name)}
        if len(set(unexcused.values())) > 1:
            wrong.append(f"{file} {name}: {unexcused}")
    assert not wrong, "\n".join(["twins differ, and DIFFERENCES does not say why:", *wrong])


@pytest.mark.parametrize(("package", "file", "names", "why"), DIFFERENCES, ids=lambda value: value[:40])
def test_a_difference_on_record_is_still_one(package, file, names, why):
    """An unneeded entry must go: it would hide the next difference."""
    looks = looks_of_twins()
    if len(written()) < len(TWINS):
        pytest.skip("not all twins are installed and written")
    assert why
    for name in names.split():
        assert len(set(looks[file, name].values())) > 1, f"{name} of {file} is the same everywhere: {looks[file, name]}"

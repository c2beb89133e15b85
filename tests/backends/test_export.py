"""Networks as files: each format of each framework, run after it was written."""

import json
import shutil
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mponet.backend import package_of
from mponet.errors import BackendError, CheckpointError, ExportError, InputError, MPONetError
from mponet.export import FORMATS, format_for
from mponet.export.native import to_canonical, to_native
from mponet.models import build
from mponet.models.init import start
from mponet.recipe import preset
from mponet.training import checkpoint

KINDS = ("linear", "network", "convolution 1-D", "convolution 2-D", "embedding", "tied head")
#: Largest deviation relative to the largest output, float32.
BOUND = 1e-5
DOCS = Path(__file__).parents[2] / "docs"


def exports(backend_name):
    return import_module(f"contract.{backend_name}_exports")


def checked(to, backend_name):
    """Skip what is not installed; fail if a framework says that it writes what it does not."""
    if backend_name not in FORMATS[to].needs:
        pytest.skip(FORMATS[to].absent[backend_name])
    if to == "aotinductor" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler is installed")
    try:
        return format_for(to, backend_name)
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("merge", [False, True], ids=["operators", "merged"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", FORMATS)
def test_an_exported_layer_gives_what_the_layer_gives(to, kind, merge, backend_name, tmp_path):
    suffix = checked(to, backend_name).suffix
    if to == "aotinductor" and merge:
        pytest.skip("a dense layer is a matter of PyTorch, and compiling takes ten seconds")
    module = exports(backend_name)
    model, inputs = module.models()[kind]
    written = module.export(model, tmp_path / f"m{suffix}", inputs, to=to, merge=merge, tolerance=BOUND)
    assert written.path.exists() and written.deviation <= BOUND and written.nbytes > 0
    assert list(tmp_path.iterdir()) == [written.path]


def test_every_format_is_written_or_has_a_reason(backend_name):
    assert set(exports(backend_name).EXPORTERS) == {to for to in FORMATS if backend_name in FORMATS[to].needs}
    for to, kind in FORMATS.items():
        assert (backend_name in kind.needs) != (backend_name in kind.absent), to
    with pytest.raises(InputError, match="the format is 'pickle'"):
        format_for("pickle", backend_name)


def own_format(backend_name):
    return {"torch": "torch-export", "jax": "jax-export", "tensorflow": "saved-model"}[backend_name]


def test_a_merged_file_holds_the_dense_weights_and_the_model_keeps_its_operators(backend_name, tmp_path):
    module, to = exports(backend_name), own_format(backend_name)
    model, inputs = large(backend_name)
    sizes = {
        merge: module.export(model, tmp_path / f"{merge}{FORMATS[to].suffix}", inputs, to=to, merge=merge).nbytes
        for merge in (False, True, False)
        if not (tmp_path / f"{merge}{FORMATS[to].suffix}").exists()
    }
    assert sizes[True] > 4 * 512 * 512 > 2 * sizes[False]


def large(backend_name):
    """A layer of 512 x 512, bond 4."""
    inputs = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)
    if backend_name == "torch":
        from mponet_torch import MPOLinear

        return MPOLinear((16, 32), (16, 32), 4, seed=1), inputs
    if backend_name == "jax":
        from flax import nnx

        from mponet_jax import MPOLinear

        return MPOLinear((16, 32), (16, 32), 4, rngs=nnx.Rngs(1)), inputs
    import keras

    from mponet_tensorflow import MPODense

    return keras.Sequential([keras.Input((512,)), MPODense((16, 32), 4, input_dims=(16, 32), seed=1)]), inputs


def test_a_file_that_deviates_is_not_kept(backend_name, tmp_path):
    module, to = exports(backend_name), own_format(backend_name)
    model, inputs = module.models()["convolution 2-D"]
    with pytest.raises(ExportError, match="deviate by"):
        module.export(model, tmp_path / f"m{FORMATS[to].suffix}", inputs, to=to, tolerance=-1.0)
    assert not list(tmp_path.iterdir())


def test_what_stands_there_is_not_overwritten(backend_name, tmp_path):
    module, to = exports(backend_name), own_format(backend_name)
    model, inputs = module.models()["linear"]
    path = tmp_path / f"m{FORMATS[to].suffix}"
    path.write_text("mine")
    with pytest.raises(CheckpointError, match="expected a new name"):
        module.export(model, path, inputs, to=to)
    assert path.read_text() == "mine"
    with pytest.raises(InputError, match="rename it"):
        module.export(model, tmp_path / "m.other", inputs, to=to)
    with pytest.raises(MPONetError):
        module.export(model, tmp_path / "absent" / path.name, inputs, to=to)


def test_what_cannot_be_traced_is_one_error(backend_name, tmp_path):
    module, to = exports(backend_name), own_format(backend_name)
    model, inputs = untraceable(backend_name)
    with pytest.raises(ExportError, match="cannot export this network"):
        module.export(model, tmp_path / f"m{FORMATS[to].suffix}", inputs, to=to)
    assert not list(tmp_path.iterdir())


def untraceable(backend_name):
    """A network whose computation depends on its inputs in Python."""
    inputs = np.ones((3, 4), np.float32)
    if backend_name == "torch":
        import torch

        class Odd(torch.nn.Module):
            def forward(self, rows):
                return rows * len(str(rows.sum().item()))

        return Odd(), inputs
    if backend_name == "jax":
        from flax import nnx

        class Strange(nnx.Module):
            def __call__(self, rows):
                return rows * float(rows.sum())

        return Strange(), inputs
    import keras

    class Peculiar(keras.Model):
        def call(self, rows):
            return rows * float(rows.numpy().sum())

    return Peculiar(), inputs


# ---------------------------------------------------------------- the command


def command(*arguments, cwd):
    code = f"import sys; sys.path[:0] = {sys.path!r}; from mponet.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "export", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
    )


def test_a_checkpoint_is_exported_by_the_command(backend_name, tmp_path):
    model = build("lenet5", "mpo", 2)
    recipe = preset("lenet5", "short", 2)
    folder = tmp_path / "mpo"
    folder.mkdir()
    values = {name: value.astype(np.float32) for name, value in start(model, 0).items()}
    checkpoint.save(folder / checkpoint.NAME, checkpoint.Checkpoint(model, values, {}, recipe, "digits", 0, 0))
    to = own_format(backend_name)
    out = tmp_path / f"lenet{FORMATS[to].suffix}"
    done = command("mpo", "--to", to, "-o", out.name, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert out.exists() and found["deviation"] <= BOUND and found["backend"] == backend_name
    again = command("mpo", "--to", to, "-o", out.name, cwd=tmp_path)
    assert again.returncode == 2 and "expected a new name" in again.stderr


#: A module that makes a dense network of two layers and an example of its inputs, by framework.
NETWORKS = {
    "torch": """
import torch
def make():
    torch.manual_seed(0)
    layers = torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 64)
    return torch.nn.Sequential(*layers), torch.ones(2, 64)
""",
    "jax": """
import jax
from flax import nnx
def make():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(64, 96, rngs=rngs), nnx.relu, nnx.Linear(96, 64, rngs=rngs))
    return model, jax.numpy.ones((2, 64))
""",
    "tensorflow": """
import keras, tensorflow as tf
def make():
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((64,)), dense(96, activation="relu"), dense(64)]), tf.ones((2, 64))
""",
}


def outputs(backend_name, model, rows):
    """Outputs of a model of a framework, as numpy."""
    if backend_name == "torch":
        import torch

        return model(torch.from_numpy(rows)).detach().numpy()
    return np.asarray(model(rows))


def run_by_its_framework(to, path, rows):
    """Outputs of an exported file, without mponet."""
    if to in ("torch-export", "aotinductor"):
        import torch

        program = torch.export.load(path).module() if to == "torch-export" else torch._inductor.aoti_load_package(path)
        made = program(torch.from_numpy(rows))
        return (made[0] if isinstance(made, tuple | list) else made).detach().numpy()
    if to.startswith("onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        return session.run(None, {session.get_inputs()[0].name: rows})[0]
    if to == "jax-export":
        import jax

        made = jax.export.deserialize(bytearray(path.read_bytes())).call(rows)
        return np.asarray(made[0] if isinstance(made, tuple | list) else made)
    import keras
    import tensorflow as tf

    if to == "keras":
        return keras.models.load_model(path)(rows).numpy()
    if to == "saved-model":
        loaded = tf.saved_model.load(path)  # its variables live as long as it does
        made = loaded.serve(rows)
        return (made[0] if isinstance(made, tuple | list) else made).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow names its own successor
        interpreter = tf.lite.Interpreter(model_path=str(path))
    runner = interpreter.get_signature_runner()
    name = next(iter(runner.get_input_details()))
    return next(iter(runner(**{name: rows}).values()))


@pytest.mark.parametrize("to", FORMATS)
def test_a_compressed_network_is_exported_with_the_function_that_makes_it(to, backend_name, tmp_path):
    from mponet.compress import CompressConfig

    suffix = checked(to, backend_name).suffix
    (tmp_path / "network.py").write_text(NETWORKS[backend_name])
    namespace = {}
    exec(NETWORKS[backend_name], namespace)
    adapter = import_module(package_of(backend_name))
    small, report = adapter.compress(namespace["make"]()[0], CompressConfig(keep=0.5))
    assert len(report.plan.replaced) == 2
    adapter.save_compressed(small, report.plan, tmp_path / "small")
    out = f"m{suffix}"
    done = command("small", "--to", to, "-o", out, "--model", "network:make", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    expected = outputs(backend_name, small, rows)
    np.testing.assert_allclose(run_by_its_framework(to, tmp_path / out, rows), expected, atol=1e-5)


def test_a_compressed_network_without_the_function_that_makes_it_is_refused(backend_name, tmp_path):
    from mponet.compress import CompressConfig

    (tmp_path / "network.py").write_text(NETWORKS[backend_name])
    namespace = {}
    exec(NETWORKS[backend_name], namespace)
    adapter = import_module(package_of(backend_name))
    small, report = adapter.compress(namespace["make"]()[0], CompressConfig(keep=0.5))
    adapter.save_compressed(small, report.plan, tmp_path / "small")
    to = own_format(backend_name)
    for model, message in (
        (None, "expected --model"),
        ("network:absent", "expected MODULE:FUNCTION"),
        ("nowhere:f", "expected MODULE:FUNCTION"),
    ):
        given = [
            "small",
            "--to",
            to,
            "-o",
            f"other{FORMATS[to].suffix}",
            *([] if model is None else ["--model", model]),
        ]
        refused = command(*given, cwd=tmp_path)
        assert refused.returncode == 2 and message in refused.stderr.replace("\n", " ")


# ---------------------------------------------------------------- names and layouts of a framework


def saved(path, model):
    """A checkpoint with random numbers in all places."""
    rng = np.random.default_rng(0)
    values = {name: (rng.random(value.shape) + 0.5).astype(np.float32) for name, value in start(model, 0).items()}
    recipe = preset(model.name, "short", model.bond)
    checkpoint.save(path, checkpoint.Checkpoint(model, values, {}, recipe, "digits", 3, 0))
    return values


@pytest.mark.parametrize("name", ["lenet5", "resnet8-k1"])
def test_a_checkpoint_becomes_a_state_dict_and_the_same_checkpoint_again(name, backend_name, backend, tmp_path):
    model = build(name, "mpo", 2)
    values = saved(tmp_path / "c.safetensors", model)
    names = to_native(tmp_path / "c.safetensors", tmp_path / "n.safetensors", backend_name)
    state = load_file(tmp_path / "n.safetensors")
    assert set(state) == set(names)
    exporting = import_module(f"{package_of(backend_name)}.exporting")
    native = backend.build(model, start(model, 1))
    exporting.load_native_state(native, state)  # what the framework itself would load
    for key, value in backend.parameters(native).items():
        np.testing.assert_array_equal(value, values[key])
    to_canonical(tmp_path / "n.safetensors", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


def test_a_damaged_state_dict_is_refused_and_nothing_is_written(backend_name, tmp_path):
    saved(tmp_path / "c.safetensors", build("lenet5", "mpo", 2))
    to_native(tmp_path / "c.safetensors", tmp_path / "n.safetensors", backend_name)
    with safe_open(tmp_path / "n.safetensors", framework="numpy") as stream:
        metadata = stream.metadata()
    state = load_file(tmp_path / "n.safetensors")
    first = max(state, key=lambda key: state[key].size)
    for changed in (
        state | {"odd": np.ones(3, np.float32)},
        state | {first: state[first][:1]},
        state | {first: state[first] * np.nan},
    ):
        save_file(changed, tmp_path / "odd.safetensors", metadata)
        with pytest.raises(CheckpointError):
            to_canonical(tmp_path / "odd.safetensors", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
    for out in ("n.safetensors", "c.safetensors"):
        with pytest.raises(CheckpointError, match="expected a new file"):
            to_native(tmp_path / "c.safetensors", tmp_path / out, backend_name)


def test_the_page_of_exports_shows_what_is_tested():
    spec = spec_from_file_location("export_page", DOCS / "export.py")
    page = module_from_spec(spec)
    spec.loader.exec_module(page)
    assert "\n".join(page.page()) + "\n" == (DOCS / "export.md").read_text(encoding="utf-8"), (
        "run: python docs/export.py > docs/export.md"
    )
    for measured in page.measured()["deviations"].values():
        assert all(set(row) == set(KINDS) and max(row.values()) <= BOUND for row in measured.values())

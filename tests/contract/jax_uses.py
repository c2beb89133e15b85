"""The uses of a layer in JAX and flax.nnx."""

import copy
import pickle
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import export

import graphs
from contract.uses import Kind, check_budget, keeping, saving
from mponet.errors import InputError, ShapeError
from mponet_jax import MPOConv, MPOEmbed, MPOLinear, NetworkLinear, freeze, unfreeze

ABSENT = {
    "traced": "JAX has one tracer; `jax.make_jaxpr` is part of compiling",
    "hooks": "nnx modules have no hooks",
    "parametrised": "nnx has no parametrisation of parameters",
}
#: Kind to use to the reason why the kind does not have it.
ABSENT_KINDS = {
    "MPOEmbed.attend": {
        "kept": "it is a method of an embedding, whose row this is",
        "sources": "it is a method of an embedding, whose row this is",
    },
}


class Head(nnx.Module):
    """An output head: an embedding that is called by `MPOEmbed.attend`."""

    def __init__(self, embedding):
        self.embed = embedding

    def __call__(self, x):
        return self.embed.attend(x)

    @property
    def kernel(self):
        return self.embed.kernel.T


def kinds():
    """The kinds of layers that the contract is for."""

    def maker(layer, *arguments, **fixed):
        def make(seed=1, **others):
            return layer(*arguments, **{"param_dtype": jnp.float64, "rngs": nnx.Rngs(seed), **fixed, **others})

        return make

    def normal(*size):
        return jnp.asarray(np.random.default_rng(size[0]).normal(size=size))

    def rows(layer, batch=5):
        return normal(batch, layer.in_features)

    def tokens(layer, batch=5):
        return jnp.asarray(np.random.default_rng(batch).integers(0, layer.num_embeddings, (batch, 3)))

    def linear(layer):
        bias = getattr(layer, "bias", None)
        return lambda x: x @ layer.kernel + (0.0 if bias is None else bias[...])

    def convolution(**options):
        def reference(layer):
            rank = len(layer.shape.kernel_size)
            axes = ("NWC", "WIO", "NWC") if rank == 1 else ("NHWC", "HWIO", "NHWC")
            convolve = jax.lax.conv_general_dilated
            return lambda x: convolve(x, layer.kernel, dimension_numbers=axes, **options) + layer.bias[...]

        return reference

    def head(**options):
        return Head(maker(MPOEmbed, 13, 6, 3)(**options))

    ring, halves = graphs.WIRINGS["ring"], {"window_strides": (2,), "padding": ((1, 1),)}
    wide = {"window_strides": (1, 1), "padding": "SAME", "rhs_dilation": (2, 2)}
    return (
        Kind("MPOLinear", maker(MPOLinear, (4, 4), (4, 3), 5), rows, linear),
        Kind("MPOLinear, padded", maker(MPOLinear, 31, 29, 3), rows, linear),
        Kind("NetworkLinear", maker(NetworkLinear, ring), rows, linear),
        Kind(
            "MPOConv, one axis",
            maker(MPOConv, 4, 6, 3, 3, 2, padding=1),
            lambda _, batch=5: normal(batch, 5, 4),
            convolution(**halves),
        ),
        Kind(
            "MPOConv, two axes",
            maker(MPOConv, 4, 6, (3, 3), 3, kernel_dilation=2),
            lambda _, batch=5: normal(batch, 5, 4, 4),
            convolution(**wide),
        ),
        Kind("MPOEmbed", maker(MPOEmbed, 13, 6, 3), tokens, lambda layer: lambda x: layer.kernel[x]),
        Kind("MPOEmbed.attend", head, lambda _, batch=5: normal(batch, 6), linear),
    )


def close(found, expected, tolerance=1e-12):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.shape == theirs.shape
        bound = tolerance * max(1.0, float(jnp.abs(theirs).max()))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound)


def total(layer, x):
    return jnp.sin(layer(x)).sum()


def _through_weight(kind):
    """The reference as a function of a layer and inputs."""
    return lambda layer, x: jnp.sin(kind.reference(layer)(x)).sum()


def run_together(serve):
    """Call it in six threads with three sizes of batch."""
    workers = [threading.Thread(target=serve, args=(batch,)) for batch in (1, 53, 200) * 2]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def first(layer):
    """A parameter of the operator."""
    return getattr(layer, "embed", layer).tensors[0]


def arguments(x):
    """Places of what `total` is differentiated by: tokens have no derivative."""
    return (0, 1) if jnp.issubdtype(x.dtype, jnp.floating) else (0,)


def outputs(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    close(layer(x), kind.reference(layer)(x))
    close(jax.grad(total, arguments(x))(layer, x), jax.grad(_through_weight(kind), arguments(x))(layer, x))
    if hasattr(layer, "to_dense"):
        close(layer(x), layer.to_dense()(x))


def training(kind):
    layer = kind.make()
    x = kind.inputs(layer, 32)
    targets = jnp.roll(layer(x), 1, 0)
    optimizer = nnx.Optimizer(layer, optax.adam(2e-2), wrt=nnx.Param)

    @nnx.jit
    def step(layer, optimizer):
        loss, slopes = nnx.value_and_grad(lambda layer: ((layer(x) - targets) ** 2).mean())(layer)
        optimizer.update(layer, slopes)
        return loss

    losses = [float(step(layer, optimizer)) for _ in range(40)]
    assert losses[-1] < 0.9 * losses[0]


def inference(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    layer.eval()
    close(layer(x), kind.reference(layer)(x))
    first(layer)[...] = 2.0 * first(layer)[...]
    close(layer(x), kind.reference(layer)(x))


def served(kind):
    layer = kind.make()
    names = nnx.to_flat_state(nnx.state(layer, nnx.Param)).paths
    for sweeps in (True, False):
        with keeping(sweeps):
            model, report = freeze(nnx.Sequential(layer), heads=isinstance(layer, Head))
        assert len(report.layers) == 1 and report.nbytes > 0
        if isinstance(layer, MPOLinear | Head):
            assert all(("matrix" in entry.kept) != sweeps for entry in report.layers.values())
        jitted = nnx.jit(lambda model, x: model(x))
        for batch in (1, 300, 1):
            x = kind.inputs(layer, batch)
            close(jitted(model, x), kind.reference(layer)(x))
        close(model(x), kind.reference(layer)(x))
        close(jax.jit(model)(x), kind.reference(layer)(x))
        x = kind.inputs(layer)
        close(jax.vmap(model)(x), kind.reference(layer)(x))
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), nnx.merge(*nnx.split(model))):
            close(other(x), kind.reference(layer)(x))
        if arguments(x) == (0, 1):
            for transform in (jax.grad, jax.jacfwd):
                close(*(transform(lambda x, call=call: jnp.sin(call(x)).sum())(x) for call in (model, layer)))
        rows = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), *x.shape[1:]), x.dtype)
        program = export.export(jax.jit(model))(rows)
        for batch in (3, 600):
            close(program.call(kind.inputs(layer, batch)), kind.reference(layer)(kind.inputs(layer, batch)))
        problems = []

        def serve(batch, model=model, problems=problems):
            with jax.enable_x64(True):
                x = kind.inputs(layer, batch)
                try:
                    for _ in range(4):
                        close(model(x), kind.reference(layer)(x))
                except Exception as problem:  # every one counts, whatever it is
                    problems.append(problem)

        run_together(serve)
        assert not problems
        assert not jax.tree.leaves(nnx.state(model, nnx.Param))  # what optimisers train
        owner = getattr(model.layers[0], "embed", model.layers[0])
        with pytest.raises(InputError, match="frozen"):
            owner.assign(owner.tensors)
        assert nnx.to_flat_state(nnx.state(unfreeze(model).layers[0], nnx.Param)).paths == names
        first(model.layers[0])[...] = 2.0 * first(model.layers[0])[...]
        close(model(x), kind.reference(model.layers[0])(x))
    two = nnx.Sequential(layer, layer)
    assert len(freeze(two)[1].layers) == 1


def frozen(kind):
    layer = kind.make()
    only = nnx.All(nnx.Param, nnx.PathContains("core1" if hasattr(layer, "embed") else layer.parameter_names[0]))
    slopes = nnx.grad(total, argnums=nnx.DiffState(0, only))(layer, kind.inputs(layer))
    (found,) = nnx.to_flat_state(slopes).leaves
    assert found[...].shape == first(layer).shape


def second_derivative(kind):
    layer = kind.make()
    x = kind.inputs(layer)

    def penalty(function):
        return jax.grad(lambda layer: sum((g**2).sum() for g in jax.tree.leaves(jax.grad(function)(layer, x))))(layer)

    close(penalty(total), penalty(_through_weight(kind)), 1e-10)


def forward_mode(kind):
    layer = kind.make()
    x = kind.inputs(layer, 2)
    graph, values = nnx.split(layer)

    def call(values):
        return nnx.merge(graph, values)(x)

    def reference(values):
        return kind.reference(nnx.merge(graph, values))(x)

    tangents = jax.tree.map(lambda value: 2 * value + 1, values)
    close(jax.jvp(call, (values,), (tangents,)), jax.jvp(reference, (values,), (tangents,)))
    close(jax.jacfwd(call)(values), jax.jacrev(reference)(values))
    gradient, other = (jax.grad(lambda values, f=f: jnp.sin(f(values)).sum()) for f in (call, reference))
    close(jax.jvp(gradient, (values,), (tangents,)), jax.jvp(other, (values,), (tangents,)), 1e-10)
    if jnp.issubdtype(x.dtype, jnp.floating):
        close(jax.jvp(layer, (x,), (2 * x,)), jax.jvp(kind.reference(layer), (x,), (2 * x,)))
        close(
            jax.hessian(lambda x: total(layer, x))(x), jax.hessian(lambda x: _through_weight(kind)(layer, x))(x), 1e-10
        )


def batched_gradients(kind):
    layer = kind.make()
    x = kind.inputs(layer, 2)
    y, back = jax.vjp(lambda layer: layer(x), layer)
    _, reference = jax.vjp(lambda layer: kind.reference(layer)(x), layer)
    directions = jnp.stack([y, 2 * y, jnp.ones_like(y)])
    close(jax.vmap(back)(directions), jax.vmap(reference)(directions))
    close(jax.jacrev(lambda layer: layer(x))(layer), jax.jacrev(lambda layer: kind.reference(layer)(x))(layer))


def mapped(kind):
    layer = kind.make()
    x = jnp.stack([kind.inputs(layer), kind.inputs(layer)[::-1]])
    close(jax.vmap(layer)(x), jnp.stack([layer(part) for part in x]))
    each = jax.vmap(jax.grad(lambda layer, row: total(layer, row[None])), in_axes=(None, 0))(layer, x[0])
    close(jax.tree.map(lambda parts: parts.sum(0), each), jax.grad(total)(layer, x[0]))


def transformed(kind):
    layer = kind.make()
    x = kind.inputs(layer, 2)
    graph, values = nnx.split(layer)
    for mode in ("train", "eval"):
        getattr(layer, mode)()

        def call(values, x, layer=layer):
            return nnx.merge(nnx.graphdef(layer), values)(x)

        def reference(values, x):
            return kind.reference(nnx.merge(graph, values))(x)

        ours, theirs = (_transforms(function, values, x) for function in (call, reference))
        for name in ours if mode == "eval" else ("jvp", "hessian"):
            close(jax.jit(ours[name])(), jax.jit(theirs[name])(), 1e-10)


def _transforms(call, values, x):
    """Calls of transforms by name: by parameters, and by inputs unless they are tokens."""

    def total(values, x):
        return jnp.sin(call(values, x)).sum()

    tangents = jax.tree.map(jnp.cos, values)
    y = call(values, x)
    transforms = {
        "jvp": lambda: jax.jvp(lambda values: call(values, x), (values,), (tangents,)),
        "linearized": lambda: jax.linearize(lambda values: call(values, x), values)[1](tangents),
        "jacfwd": lambda: jax.jacfwd(call)(values, x),
        "jacrev": lambda: jax.jacrev(call)(values, x),
        "hessian": lambda: jax.hessian(total)(values, x),
        "gradients of samples": lambda: jax.vmap(
            jax.grad(lambda values, row: total(values, row[None])), in_axes=(None, 0)
        )(values, x),
        "layers mapped": lambda: jax.vmap(call, (0, None))(jax.tree.map(lambda v: jnp.stack([v, 2 * v]), values), x),
        "products of Hessians mapped": lambda: jax.vmap(
            lambda scale: jax.jvp(jax.grad(lambda values: total(values, x)), (values,), (scaled(tangents, scale),))[1]
        )(jnp.arange(1.0, 3.0)),
    }
    if jnp.issubdtype(x.dtype, jnp.floating):
        transforms["transposed"] = lambda: jax.linear_transpose(lambda x: call(values, x) - call(values, 0 * x), x)(y)
        transforms["hessian of inputs"] = lambda: jax.hessian(total, 1)(values, x)
    return transforms


def scaled(tree, factor):
    return jax.tree.map(lambda leaf: leaf * factor, tree)


def memory(kind):
    found = []
    for states in (True, False):
        with saving(states):
            layer = kind.make()
            found.append(jax.grad(total)(layer, kind.inputs(layer)))
    close(*found, 1e-14)
    close(found[0], jax.grad(_through_weight(kind))(layer, kind.inputs(layer)))
    check_budget(kind, "embed", copy.deepcopy)


def recomputed(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    close(jax.grad(jax.checkpoint(total))(layer, x), jax.grad(_through_weight(kind))(layer, x))
    close(nnx.remat(lambda layer, x: layer(x))(layer, x), layer(x))


def mixed_precision(kind):
    layer = kind.make(dtype=jnp.bfloat16, param_dtype=jnp.float32)
    x = kind.inputs(layer)
    narrow = x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
    assert layer(narrow).dtype == jnp.bfloat16
    slopes = jax.tree.leaves(jax.grad(lambda layer: layer(narrow).sum())(layer))
    assert all(leaf.dtype == jnp.float32 for leaf in slopes)
    close(layer(narrow).astype("float32"), kind.reference(layer)(narrow).astype("float32"), 2**-5)
    assert kind.make()(x).dtype == jnp.float64


def compiled(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    for run in (jax.jit(lambda layer, x: layer(x)), nnx.jit(lambda layer, x: layer(x))):
        close(run(layer, x), layer(x))
    close(jax.jit(jax.grad(total))(layer, x), jax.grad(total)(layer, x))
    assert jax.make_jaxpr(layer)(x).out_avals[0].shape == layer(x).shape


def exported(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    rows = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), *x.shape[1:]), x.dtype)
    program = export.export(jax.jit(layer))(rows)
    for batch in (1, 9, 300):
        close(program.call(kind.inputs(layer, batch)), layer(kind.inputs(layer, batch)))


def without_numbers(kind):
    layer = kind.make()
    abstract = nnx.eval_shape(kind.make)
    assert first(abstract).shape == first(layer).shape
    graph, _ = nnx.split(abstract)
    again = nnx.merge(graph, nnx.state(layer))
    x = kind.inputs(layer)
    close(again(x), layer(x), 0)
    found = jax.eval_shape(layer, jax.ShapeDtypeStruct(x.shape, x.dtype))
    assert found.shape == layer(x).shape


def saved(kind):
    layer, again = kind.make(), kind.make(seed=9)
    state = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(layer)))
    whole = nnx.state(again)
    nnx.replace_by_pure_dict(whole, state)
    nnx.update(again, whole)
    close(again(kind.inputs(layer)), layer(kind.inputs(layer)), 0)
    if hasattr(layer, "to_dense"):
        with pytest.raises((ValueError, KeyError)):
            nnx.replace_by_pure_dict(nnx.state(layer.to_dense()), state)


def copied(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    for again in (copy.deepcopy(layer), nnx.clone(layer), pickle.loads(pickle.dumps(layer))):
        close(again(x), layer(x))


def averaged(kind):
    layer, mean = kind.make(), kind.make()
    moved = jax.tree.map(lambda value: value + 1.0, nnx.state(layer))
    nnx.update(layer, moved)
    nnx.update(mean, optax.incremental_update(nnx.state(layer), nnx.state(mean), 0.5))
    x = kind.inputs(layer)
    close(mean(x), kind.reference(mean)(x))
    close(first(mean)[...], first(layer)[...] - 0.5)


def threads(kind):
    layer, problems = kind.make(), []

    def serve(batch):
        with jax.enable_x64(True):
            x = kind.inputs(layer, batch)
            expected = kind.reference(layer)(x)
            try:
                for _ in range(20):
                    close(layer(x), expected)
            except Exception as problem:  # every one counts, whatever it is
                problems.append(problem)

    run_together(serve)
    assert not problems


def many_batches(kind):
    layer = kind.make()
    plans = getattr(layer, "embed", layer).plans
    assert len({id(plans(batch)) for batch in range(1, 20_000, 7)}) <= 8 * 15  # eight for each power of two


def kept(kind):
    for param_dtype, dtype in ((jnp.float32, None), (jnp.float64, None), (jnp.float32, jnp.bfloat16)):
        dense = kind.make(param_dtype=param_dtype, dtype=dtype).to_dense()
        layer = type(kind.make()).from_dense(dense)
        assert (layer.tensors[0].dtype, layer.dtype) == (param_dtype, dense.dtype)
        back = layer.to_dense()
        weight = back.embedding if isinstance(back, nnx.Embed) else back.kernel
        assert (weight.dtype, back.dtype) == (param_dtype, dense.dtype)
        x = kind.inputs(kind.make())
        close(layer(x).astype("float32"), dense(x).astype("float32"), 2**-4 if dtype else 1e-4)


def sources(kind):
    layer = kind.make()
    taken = type(layer.to_dense())
    rngs = nnx.Rngs(0)
    all_kinds = (
        nnx.Conv(8, 6, (3,), rngs=rngs),
        nnx.ConvTranspose(8, 6, (3,), rngs=rngs),
        nnx.Embed(8, 6, rngs=rngs),
        nnx.Linear(8, 6, rngs=rngs),
        nnx.Einsum("ab,bc->ac", (8, 6), rngs=rngs),
    )
    for foreign in (*(other for other in all_kinds if not isinstance(other, taken)), layer, jnp.ones((8, 6))):
        with pytest.raises(InputError, match="expected"):
            type(layer).from_dense(foreign)
    with pytest.raises(InputError, match="initializer is a function; expected"):
        kind.make(initializer=nnx.initializers.zeros_init())


def weight_readers(kind):
    layer = kind.make()
    if hasattr(layer, "to_dense"):
        dense = layer.to_dense()
        close(layer.kernel, (dense.embedding if isinstance(dense, nnx.Embed) else dense.kernel)[...])
    x = kind.inputs(layer)
    close(jax.grad(_through_weight(kind))(layer, x), jax.grad(total)(layer, x))


def adapters(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    if not isinstance(layer, MPOLinear | NetworkLinear):
        return _beside(layer, x)
    options = {"base_module": layer, "param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
    lora = nnx.LoRA(layer.in_features, 2, layer.out_features, **options)
    close(lora(x), layer(x) + x @ lora.lora_a[...] @ lora.lora_b[...])
    slopes = nnx.grad(lambda lora: jnp.sin(lora(x)).sum(), argnums=nnx.DiffState(0, nnx.LoRAParam))(lora)
    assert len(jax.tree.leaves(slopes)) == 2
    return None


def _beside(layer, x):
    """nnx has adapters for matrices only; those of others are a second layer, the first frozen."""

    class Adapted(nnx.Module):
        def __init__(self):
            self.base, self.scale = layer, nnx.LoRAParam(jnp.ones(()))

        def __call__(self, x):
            return self.base(x) * self.scale[...]

    slopes = nnx.grad(lambda module: module(x).sum(), argnums=nnx.DiffState(0, nnx.LoRAParam))(Adapted())
    close(jax.tree.leaves(slopes), [layer(x).sum()])


def odd_inputs(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    for wrong in (x.astype("complex128"), "text", None):
        with pytest.raises(InputError, match="expected"):
            layer(wrong)
    if jnp.issubdtype(x.dtype, jnp.floating):
        with pytest.raises(ShapeError, match="expected"):
            layer(x[..., :-1])
    else:
        with pytest.raises(InputError, match="expected integers"):
            layer(x.astype("float32"))
    with pytest.raises(InputError, match="complex64; expected real numbers"):
        kind.make(param_dtype=jnp.complex64)


def sharded(kind):
    layer = kind.make()
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x = kind.inputs(layer, 4)
    spread = jax.shard_map(lambda x: layer(x), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    close(spread(x), layer(x))
    placed = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.P("data")))
    close(jax.jit(lambda x: layer(x))(placed), layer(x))

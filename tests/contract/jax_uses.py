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
from contract.uses import Kind
from mponet.errors import InputError, ShapeError
from mponet_jax import MPOLinear, NetworkLinear

ABSENT = {
    "traced": "JAX has one tracer; `jax.make_jaxpr` is part of compiling",
    "hooks": "nnx modules have no hooks",
    "parametrised": "nnx has no parametrisation of parameters",
}


def kinds():
    """The kinds of layers that the contract is for."""

    def options(seed=1, **others):
        return {"param_dtype": jnp.float64, "rngs": nnx.Rngs(seed), **others}

    def inputs(layer, batch=5):
        return jnp.asarray(np.random.default_rng(batch).normal(size=(batch, layer.in_features)))

    ring = graphs.WIRINGS["ring"]
    return (
        Kind("MPOLinear", lambda **others: MPOLinear((4, 4), (4, 3), 5, **options(**others)), inputs),
        Kind("NetworkLinear", lambda **others: NetworkLinear(ring, **options(**others)), inputs),
    )


def close(found, expected, tolerance=1e-12):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.shape == theirs.shape
        bound = tolerance * max(1.0, float(jnp.abs(theirs).max()))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound)


def total(layer, x):
    return jnp.sin(layer(x)).sum()


def outputs(kind):
    layer = kind.make()
    dense, x = layer.to_dense(), kind.inputs(layer)
    close(layer(x), dense(x))
    close(jax.grad(total, argnums=1)(layer, x), jax.grad(total, argnums=1)(dense, x))


def training(kind):
    layer = kind.make()
    x = kind.inputs(layer, 32)
    targets = jnp.roll(layer(x), 1, 0)
    optimizer = nnx.Optimizer(layer, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(layer, optimizer):
        loss, slopes = nnx.value_and_grad(lambda layer: ((layer(x) - targets) ** 2).mean())(layer)
        optimizer.update(layer, slopes)
        return loss

    losses = [float(step(layer, optimizer)) for _ in range(30)]
    assert losses[-1] < 0.9 * losses[0]


def inference(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    layer.eval()
    close(layer(x), layer.to_dense()(x))
    layer.tensors[0][...] = 2.0 * layer.tensors[0][...]
    close(layer(x), layer.to_dense()(x))


def frozen(kind):
    layer = kind.make()
    name = layer.parameter_names[0]
    only = nnx.All(nnx.Param, nnx.PathContains(name))
    slopes = nnx.grad(total, argnums=nnx.DiffState(0, only))(layer, kind.inputs(layer))
    assert [path[0] for path in nnx.to_flat_state(slopes).paths] == [name]


def second_derivative(kind):
    layer = kind.make()
    dense, x = layer.to_dense(), kind.inputs(layer)
    slope = jax.grad(lambda x, layer: (jax.grad(total, argnums=1)(layer, x) ** 2).sum())
    close(slope(x, layer), slope(x, dense), 1e-10)


def forward_mode(kind):
    layer = kind.make()
    dense, x = layer.to_dense(), kind.inputs(layer)
    close(jax.jvp(layer, (x,), (2 * x,)), jax.jvp(dense, (x,), (2 * x,)))
    close(jax.jacfwd(layer)(x[0]), jax.jacfwd(dense)(x[0]))
    close(jax.hessian(lambda x: total(layer, x))(x[0]), jax.hessian(lambda x: total(dense, x))(x[0]), 1e-10)


def batched_gradients(kind):
    layer = kind.make()
    dense, x = layer.to_dense(), kind.inputs(layer)
    close(jax.jacrev(layer)(x[0]), jax.jacrev(dense)(x[0]))
    y, back = jax.vjp(layer, x)
    directions = jnp.stack([y, 2 * y])
    close(jax.vmap(back)(directions)[0], directions @ dense.kernel[...].T)


def mapped(kind):
    layer = kind.make()
    x = jnp.stack([kind.inputs(layer), 2 * kind.inputs(layer)])
    close(jax.vmap(layer)(x), layer(x))
    each = jax.vmap(jax.grad(lambda layer, row: total(layer, row[None])), in_axes=(None, 0))(layer, x[0])
    close(jax.tree.map(lambda parts: parts.sum(0), each), jax.grad(total)(layer, x[0]))


def recomputed(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    close(jax.grad(jax.checkpoint(total), argnums=1)(layer, x), jax.grad(total, argnums=1)(layer, x))
    close(nnx.remat(lambda layer, x: layer(x))(layer, x), layer(x))


def mixed_precision(kind):
    layer = kind.make(dtype=jnp.bfloat16, param_dtype=jnp.float32)
    x = kind.inputs(layer).astype(jnp.float32)
    assert layer(x).dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(jax.grad(lambda layer: layer(x).sum())(layer)))
    close(layer(x).astype("float32"), layer.to_dense()(x).astype("float32"), 2**-5)
    assert kind.make()(kind.inputs(layer)).dtype == jnp.float64


def compiled(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    for run in (jax.jit(lambda layer, x: layer(x)), nnx.jit(lambda layer, x: layer(x))):
        close(run(layer, x), layer(x))
    close(jax.jit(jax.grad(total, argnums=1))(layer, x), jax.grad(total, argnums=1)(layer, x))


def exported(kind):
    layer = kind.make()
    rows = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), layer.in_features), jnp.float64)
    program = export.export(jax.jit(layer))(rows)
    for batch in (1, 9, 300):
        close(program.call(kind.inputs(layer, batch)), layer(kind.inputs(layer, batch)))


def without_numbers(kind):
    layer = kind.make()
    abstract = nnx.eval_shape(kind.make)
    assert abstract.bias.shape == layer.bias.shape
    graph, _ = nnx.split(abstract)
    again = nnx.merge(graph, nnx.state(layer))
    close(again(kind.inputs(layer)), layer(kind.inputs(layer)), 0)
    found = jax.eval_shape(layer, jax.ShapeDtypeStruct((3, layer.in_features), jnp.float64))
    assert found.shape == (3, layer.out_features)


def saved(kind):
    layer, again = kind.make(), kind.make(seed=9)
    state = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(layer)))
    whole = nnx.state(again)
    nnx.replace_by_pure_dict(whole, state)
    nnx.update(again, whole)
    close(again(kind.inputs(layer)), layer(kind.inputs(layer)), 0)
    with pytest.raises((ValueError, KeyError)):
        nnx.replace_by_pure_dict(nnx.state(layer.to_dense()), state)


def copied(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    for again in (copy.deepcopy(layer), nnx.clone(layer), pickle.loads(pickle.dumps(layer))):
        close(again(x), layer(x), 0)


def averaged(kind):
    layer, mean = kind.make(), kind.make()
    moved = jax.tree.map(lambda value: value + 1.0, nnx.state(layer))
    nnx.update(layer, moved)
    nnx.update(mean, optax.incremental_update(nnx.state(layer), nnx.state(mean), 0.5))
    x = kind.inputs(layer)
    close(mean(x), mean.to_dense()(x))
    close(mean.tensors[0][...], layer.tensors[0][...] - 0.5)


def threads(kind):
    layer, problems = kind.make(), []
    dense = layer.to_dense()

    def serve(batch):
        with jax.enable_x64(True):
            x = kind.inputs(layer, batch)
            try:
                for _ in range(20):
                    close(layer(x), dense(x))
            except Exception as problem:  # every one counts, whatever it is
                problems.append(problem)

    workers = [threading.Thread(target=serve, args=(batch,)) for batch in (1, 53, 200) * 2]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not problems


def many_batches(kind):
    layer = kind.make()
    assert len({id(layer.plans(batch)) for batch in range(1, 20_000, 7)}) <= 8 * 15  # eight for each power of two


def kept(kind):
    for param_dtype, dtype in ((jnp.float32, None), (jnp.float64, None), (jnp.float32, jnp.bfloat16)):
        dense = kind.make(param_dtype=param_dtype, dtype=dtype).to_dense()
        layer = type(kind.make()).from_dense(dense)
        assert (layer.tensors[0].dtype, layer.dtype) == (param_dtype, dtype)
        back = layer.to_dense()
        assert (back.kernel.dtype, back.dtype) == (param_dtype, dtype)


def sources(kind):
    make = type(kind.make()).from_dense
    for foreign in (
        nnx.Conv(8, 6, (3,), rngs=nnx.Rngs(0)),
        nnx.Embed(8, 6, rngs=nnx.Rngs(0)),
        kind.make(),
        jnp.ones((8, 6)),
    ):
        with pytest.raises(InputError, match="expected"):
            make(foreign)
    with pytest.raises(InputError, match="initializer is a function; expected"):
        kind.make(initializer=nnx.initializers.zeros_init())


def weight_readers(kind):
    layer = kind.make()
    close(layer.kernel, layer.to_dense().kernel[...])
    x = kind.inputs(layer)
    ours = jax.grad(lambda layer: jnp.sin(x @ layer.kernel).sum())(layer)
    theirs = jax.grad(lambda layer: jnp.sin(layer(x) - layer.bias[...]).sum())(layer)
    for name in layer.parameter_names:
        close(getattr(ours, name)[...], getattr(theirs, name)[...])


def adapters(kind):
    layer = kind.make()
    options = {"base_module": layer, "param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}
    lora = nnx.LoRA(layer.in_features, 2, layer.out_features, **options)
    x = kind.inputs(layer)
    close(lora(x), layer(x) + x @ lora.lora_a[...] @ lora.lora_b[...])
    slopes = nnx.grad(lambda lora: jnp.sin(lora(x)).sum(), argnums=nnx.DiffState(0, nnx.LoRAParam))(lora)
    assert len(jax.tree.leaves(slopes)) == 2


def odd_inputs(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    for wrong in (x.astype("complex128"), "text", None):
        with pytest.raises(InputError, match="expected"):
            layer(wrong)
    with pytest.raises(ShapeError, match="expected"):
        layer(x[:, :-1])
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

"""The JAX adapter; what all frameworks promise is in test_layers.py and test_models.py."""

import os
from math import prod

import numpy as np
import pytest

from mponet import MPOShape
from mponet.contraction import execute
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PlanSet
from mponet.errors import BackendError, CheckpointError, ModelError, ShapeError
from mponet.models import build
from mponet.models.init import start
from mponet.operators.initialize import exact_variance
from mponet.operators.mpo import to_matrix
from mponet.recipe import Recipe


def requested():
    """Names in MPONET_BACKENDS."""
    return [name.strip().lower() for name in os.environ.get("MPONET_BACKENDS", "").split(",")]


pytestmark = pytest.mark.skipif("jax" not in requested(), reason="MPONET_BACKENDS does not name jax")

if "jax" in requested():  # named but missing is an error, not a skip
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from jax import export

    import mponet_jax
    from frameworks import SUBSCRIPTS
    from mponet_jax import MPOLinear
    from mponet_jax.lower import slots
    from mponet_jax.ops.arrays import OPS, devices, dtype_of
    from mponet_jax.ops.contraction import apply

CHAIN = MPOShape.from_factors((4, 3, 2), (2, 3, 4), 5)
SQUARE = MPOShape.from_factors((16, 16), (16, 16), 4)
MOMENTUM = Recipe("test", 20, 8, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)


def swept(shape, tile, *, transposed=False):
    plan = Plan(shape, (1,) * shape.sites, tuple(range(shape.sites)), tile, transposed=transposed)
    return PlanSet.alike(plan)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cores_of(shape, dtype="float32"):
    return tuple(jnp.asarray(core, dtype) for core in exact_variance(shape, np.random.default_rng(0)).cores)


def total(layer, inputs):
    return (layer(inputs) ** 2).sum()


@pytest.fixture
def layer():
    return MPOLinear.from_mpo(exact_variance(CHAIN, np.random.default_rng(0)), np.arange(24) / 10)


# ---------------------------------------------------------------- the operation


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("batch", "tile"), [(0, 16), (1, 16), (16, 16), (17, 16), (32, 16), (37, 16), (3, 1), (37, None), (0, None)]
)
def test_gradients_through_tiles_equal_jaxs_autodiff_through_the_cores(batch, tile, transposed):
    def ours(inputs, cores):
        return (apply(swept(CHAIN, tile, transposed=transposed), inputs, cores) * slope).sum()

    def einsum(inputs, cores):
        outputs = jnp.einsum(SUBSCRIPTS[3], inputs.reshape(batch, *CHAIN.input_dims), *cores)
        return (outputs.reshape(batch, 24) * slope).sum()

    with jax.enable_x64(True):
        inputs, slope = jnp.asarray(normal(batch, 24), "float64"), jnp.asarray(normal(batch, 24, seed=1), "float64")
        arguments = inputs, cores_of(CHAIN, "float64")
        found = jax.jit(jax.grad(ours, argnums=(0, 1)))(*arguments)
        expected = jax.grad(einsum, argnums=(0, 1))(*arguments)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def sizes(jaxpr):
    """Sizes of all arrays that a jaxpr makes, those within loops and calls included."""
    for equation in jaxpr.eqns:
        yield from (prod(variable.aval.shape) for variable in equation.outvars)
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda value: hasattr(value, "eqns")):
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                yield from sizes(getattr(inner, "jaxpr", inner))


def test_gradient_makes_nothing_larger_than_the_batch():
    batch, plans = 256, swept(SQUARE, 16)
    inputs, cores = jnp.asarray(normal(batch, 256)), cores_of(SQUARE)

    def ours(inputs, cores):
        return (apply(plans, inputs, cores) ** 2).sum()

    def plain(inputs, cores):
        return (execute.forward(plans.forward.with_tile(None), cores, inputs, OPS) ** 2).sum()

    def largest(function):
        return max(sizes(jax.make_jaxpr(jax.grad(function, argnums=(0, 1)))(inputs, cores).jaxpr))

    assert largest(ours) == batch * 256  # the gradient of the inputs
    assert largest(plain) == 4 * batch * 256  # what JAX makes when left alone: the check can tell


def test_per_example_gradients_add_up(layer):
    inputs = jnp.asarray(normal(5, 24))
    each = jax.vmap(jax.grad(lambda layer, row: total(layer, row[None])), in_axes=(None, 0))(layer, inputs)
    whole = jax.grad(total)(layer, inputs)
    np.testing.assert_allclose(each.core2[...].sum(axis=0), whole.core2[...], rtol=1e-4, atol=1e-4)


def test_gradient_of_a_gradient(layer):
    inputs, weight = jnp.asarray(normal(5, 24)), jnp.asarray(to_matrix(layer.to_mpo()), "float32")

    def penalty(function):
        return jax.grad(lambda x: (jax.grad(function)(x) ** 2).sum())(inputs)

    expected = penalty(lambda x: ((x @ weight + layer.bias[...]) ** 2).sum())
    np.testing.assert_allclose(penalty(lambda x: total(layer, x)), expected, rtol=1e-3, atol=1e-3)


def test_unused_gradient_of_the_inputs_is_not_computed():
    plans, arguments = swept(SQUARE, 16), (jnp.asarray(normal(64, 256)), cores_of(SQUARE))

    def flops(argnums):
        compiled = jax.jit(jax.grad(lambda x, c: apply(plans, x, c).sum(), argnums)).lower(*arguments).compile()
        return compiled.cost_analysis()["flops"]

    assert flops(1) < flops((0, 1))


def test_every_product_asks_for_full_precision():
    native = mponet_jax.backend.build(build("lenet5"), start(build("lenet5"), 0))
    text = jax.jit(jax.grad(total)).lower(native, jnp.zeros((2, 28, 28, 1))).as_text()
    products = [line for line in text.splitlines() if "dot_general " in line or "stablehlo.convolution" in line]
    assert len(products) > 10
    assert all(line.count("HIGHEST") == 2 for line in products)


# ---------------------------------------------------------------- the layer among JAX's and nnx's
# transformations


def test_the_layer_is_a_pytree_that_jit_and_vmap_take(layer):
    inputs = jnp.asarray(normal(3, 5, 24))
    expected = layer(inputs)
    assert expected.shape == (3, 5, 24)
    np.testing.assert_allclose(jax.jit(lambda layer, x: layer(x))(layer, inputs), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(nnx.jit(lambda layer, x: layer(x))(layer, inputs), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(layer)(inputs), expected, rtol=1e-5, atol=1e-5)


def test_layers_made_under_vmap_differ_and_scan():
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def stack(rngs):
        return MPOLinear((4, 4), (4, 4), 3, rngs=rngs)

    stacked, inputs = stack(nnx.Rngs(0)), jnp.asarray(normal(5, 16))
    graph, state = nnx.split(stacked)
    outputs, _ = jax.lax.scan(lambda x, one: (jnp.tanh(nnx.merge(graph, one)(x)), None), inputs, state)
    expected = inputs
    for k in range(3):
        expected = jnp.tanh(nnx.merge(graph, jax.tree.map(lambda array, k=k: array[k], state))(expected))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(np.asarray(stacked.core1[...]), axis=0).min() > 0


def test_starting_values_follow_the_rngs_also_when_traced():
    def make(seed):
        return MPOLinear((4, 4), (3, 5), 3, rngs=nnx.Rngs(seed))

    eager, traced, other = make(1), nnx.jit(make, static_argnums=0)(1), make(2)
    assert np.array_equal(eager.core1[...], traced.core1[...])
    assert not np.array_equal(eager.core1[...], other.core1[...])


def test_state_goes_to_a_file_and_comes_back(layer, tmp_path):
    flat = {"/".join(path): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(layer))}
    np.savez(tmp_path / "layer.npz", **flat)
    assert set(flat) == {"core1", "core2", "core3", "bias"}

    abstract = nnx.eval_shape(lambda: MPOLinear((4, 3, 2), (2, 3, 4), 5, rngs=nnx.Rngs(7)))
    graph, state = nnx.split(abstract)
    loaded = np.load(tmp_path / "layer.npz")
    filled = jax.tree.map_with_path(lambda path, _: jnp.asarray(loaded[path[0].key]), state)
    inputs = jnp.asarray(normal(3, 24))
    assert np.array_equal(nnx.merge(graph, filled)(inputs), layer(inputs))


def test_export_with_an_open_batch_serves_any():
    layer = MPOLinear((16, 16), (16, 16), 2, rngs=nnx.Rngs(0))
    rows = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), 256), jnp.float32)
    exported = export.export(jax.jit(layer))(rows)
    for batch in (1, 300):
        inputs = jnp.asarray(normal(batch, 256))
        np.testing.assert_allclose(exported.call(inputs), layer(inputs), rtol=1e-4, atol=1e-4)


def test_repr_and_table_show_what_it_is(layer):
    text = repr(layer)
    assert str(CHAIN) in text
    assert f"weights={CHAIN.parameters} of {CHAIN.dense_parameters}" in text
    assert f"plan='{layer.plans(128).training} (batch 128)'" in text
    assert "MPOLinear" in nnx.tabulate(layer, jnp.zeros((1, 24)))


def test_dense_layer_round_trip_keeps_the_dtypes(layer):
    dense = layer.to_dense()
    back = MPOLinear.from_dense(dense, input_dims=(4, 3, 2), output_dims=(2, 3, 4))
    inputs = jnp.asarray(normal(3, 24))
    np.testing.assert_allclose(dense(inputs), layer(inputs), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(back(inputs), layer(inputs), rtol=1e-5, atol=1e-5)
    half = nnx.Linear(24, 24, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    kept = MPOLinear.from_dense(half, input_dims=(4, 3, 2), output_dims=(2, 3, 4))
    assert (kept.dtype, kept.core1.dtype, kept.bias.dtype) == (jnp.bfloat16,) * 3


def test_a_wrong_width_names_both_sizes(layer):
    with pytest.raises(ShapeError, match=r"\(3, 7\); expected \(\.\.\., 24\)"):
        layer(jnp.zeros((3, 7)))


def test_parameters_share_no_memory_with_what_they_came_from():
    mpo = exact_variance(CHAIN, np.random.default_rng(0))
    bias = np.zeros(24, np.float32)
    layer = MPOLinear.from_mpo(mpo, bias)
    bias[:] = 9
    assert not np.asarray(layer.bias[...]).any()


# ---------------------------------------------------------------- dtypes


def test_bfloat16_computes_in_it_and_keeps_float32_parameters():
    layer = MPOLinear((4, 4), (4, 4), 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    exact = MPOLinear.from_mpo(layer.to_mpo(), np.zeros(16))
    inputs = jnp.asarray(normal(5, 16))
    outputs, slopes = layer(inputs), jax.grad(lambda layer: layer(inputs).astype("float32").sum())(layer)
    assert (outputs.dtype, layer.core1.dtype, slopes.core1.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(outputs.astype("float32"), exact(inputs), atol=0.1)


def test_bfloat16_gradients_of_many_tiles_are_added_in_float32():
    inputs, plans = jnp.ones((4096, 16), jnp.bfloat16), swept(MPOShape.from_factors((4, 4), (4, 4), 1), 16)
    cores = tuple(jnp.ones(size, jnp.bfloat16) for size in plans.forward.shape.core_shapes)
    slopes = jax.grad(lambda cores: apply(plans, inputs, cores).astype("float32").sum())(cores)
    # 256 tiles of 16 * 16 each: 65536, where bfloat16 sums stand still at 256 times their parts
    np.testing.assert_allclose(slopes[0].astype("float32"), 4096 * 4 * 4, rtol=0.02)


def test_float64_must_be_switched_on():
    with jax.enable_x64(False):
        with pytest.raises(BackendError, match="JAX_ENABLE_X64=1"):
            dtype_of("float64")
        with pytest.raises(BackendError, match="JAX_ENABLE_X64=1"):
            MPOLinear((4, 4), (4, 4), 3, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        with pytest.raises(BackendError, match="JAX_ENABLE_X64=1"):
            mponet_jax.backend.build(build("fc2"), start(build("fc2"), 0), dtype="float64")
    with jax.enable_x64(True):
        assert MPOLinear((4, 4), (4, 4), 3, dtype=jnp.float64, rngs=nnx.Rngs(0)).core1.dtype == jnp.float64


def test_devices_begin_with_the_default_and_end_with_the_cpu():
    assert devices()[-1] == "cpu"
    with pytest.raises(BackendError, match="expected one of"):
        mponet_jax.backend.build(build("fc2"), start(build("fc2"), 0), device="abacus:0")


# ---------------------------------------------------------------- models and their training


@pytest.fixture
def native():
    model = build("fc2")
    return mponet_jax.backend.build(model, start(model, 0))


def batch(seed=0, size=8):
    rng = np.random.default_rng(seed)
    return rng.random((size, 28, 28, 1), np.float32), rng.integers(0, 10, size)


def test_a_lowered_model_is_an_ordinary_module(native):
    assert isinstance(native.fc1, MPOLinear)
    assert {path[0] for path, _ in nnx.to_flat_state(nnx.state(native))} == {"fc1", "fc2"}
    table = nnx.tabulate(native, jnp.zeros((1, 28, 28, 1)))
    assert all(name in table for name in ("fc1", "flatten0", "relu2", "MPOLinear"))
    with pytest.raises(ModelError, match="not built by mponet"):
        slots(native.fc1)


def test_steps_compile_once_whatever_the_learning_rate_and_the_trainer(native):
    trainer = mponet_jax.backend.trainer(native, MOMENTUM)
    for step, rate in enumerate((0.1, 0.05, 1)):
        trainer.step(*batch(step), rate)
    other = mponet_jax.backend.build(build("fc2"), start(build("fc2"), 1))
    again = mponet_jax.backend.trainer(other, MOMENTUM)
    again.step(*batch(), 0.2)
    assert again._step is trainer._step
    assert trainer._step._cache_size() == 1


def test_a_step_returns_at_once_and_the_model_is_current(native):
    trainer, before = mponet_jax.backend.trainer(native, MOMENTUM), mponet_jax.backend.parameters(native)
    _, slopes = mponet_jax.backend.gradients(native, *batch())
    loss = trainer.step(*batch(), 0.1)
    assert isinstance(loss, jax.Array)
    after = mponet_jax.backend.parameters(native)
    for name, value in before.items():  # Nesterov's first step: g + 0.9 g
        update = 1.9 * (slopes[name] + 1e-3 * value)
        np.testing.assert_allclose(after[name], value - 0.1 * update, rtol=1e-4, atol=1e-6)


def test_copies_of_a_model_outlive_its_steps(native):
    clone = nnx.clone(native)  # shares its arrays: a step must not give their memory away
    before = mponet_jax.backend.predict(native, batch()[0])
    trainer = mponet_jax.backend.trainer(native, MOMENTUM)
    for _ in range(3):
        trainer.step(*batch(), 0.1)
    assert np.array_equal(mponet_jax.backend.predict(clone, batch()[0]), before)
    assert not np.array_equal(mponet_jax.backend.predict(native, batch()[0]), before)
    nnx.update(native, nnx.state(clone))  # what is put into the model is what the next step starts from
    assert float(trainer.step(*batch(), 0.1)) == pytest.approx(
        mponet_jax.backend.gradients(clone, *batch())[0], rel=1e-6
    )


def test_training_goes_on_where_its_state_left_off(native):
    trainer = mponet_jax.backend.trainer(native, MOMENTUM)
    assert trainer.state() == {}
    trainer.step(*batch(), 0.1)
    state, parameters = trainer.state(), mponet_jax.backend.parameters(native)
    trainer.step(*batch(1), 0.1)

    resumed = mponet_jax.backend.build(build("fc2"), parameters)
    other = mponet_jax.backend.trainer(resumed, MOMENTUM)
    other.restore(state)
    other.step(*batch(1), 0.1)
    for name, value in mponet_jax.backend.parameters(native).items():
        assert np.array_equal(mponet_jax.backend.parameters(resumed)[name], value)
    with pytest.raises(CheckpointError, match="expected velocities"):
        other.restore({"velocity/other": np.zeros(3)})
    with pytest.raises(CheckpointError, match="has the shape"):
        other.restore({name: value[:1] for name, value in state.items()})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_models_train_in_half_precision(dtype):
    model = build("fc2")
    native = mponet_jax.backend.build(model, start(model, 0), dtype=dtype)
    trainer = mponet_jax.backend.trainer(native, MOMENTUM)
    losses = [float(trainer.step(*batch(), 0.05)) for _ in range(10)]
    assert losses[-1] < losses[0]
    assert native.fc1.core1.dtype == dtype
    assert mponet_jax.backend.predict(native, batch()[0]).dtype == ("float32" if dtype == "bfloat16" else "float16")

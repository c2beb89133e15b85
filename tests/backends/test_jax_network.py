"""`NetworkLinear` in JAX; what all frameworks promise is in test_network_layers.py."""

import os

import numpy as np
import pytest

import graphs
from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import path
from mponet.contraction.planner import PlanSet

REQUESTED = "jax" in os.environ.get("MPONET_BACKENDS", "")
pytestmark = pytest.mark.skipif(not REQUESTED, reason="MPONET_BACKENDS does not name jax")

if REQUESTED:  # named but missing is an error, not a skip
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from jax import export

    from mponet_jax import NetworkLinear
    from mponet_jax.ops.contraction import apply

RING, TUCKER = graphs.WIRINGS["ring"], graphs.WIRINGS["tucker"]


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), "float32")


def total(layer, inputs):
    return (layer(inputs) ** 2).sum()


@pytest.fixture
def layer():
    return NetworkLinear(RING, rngs=nnx.Rngs(0))


def test_the_layer_is_a_pytree_that_jit_and_vmap_take(layer):
    inputs = normal(3, 5, RING.in_features)
    expected = layer(inputs)
    for found in (
        jax.jit(lambda layer, x: layer(x))(layer, inputs),
        nnx.jit(lambda layer, x: layer(x))(layer, inputs),
        jax.vmap(layer)(inputs),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_one_compilation_serves_every_layer_of_the_same_wiring(layer):
    step = jax.jit(jax.grad(total))
    inputs = normal(4, RING.in_features)
    for seed in range(3):
        step(NetworkLinear(RING, rngs=nnx.Rngs(seed)), inputs)
    assert step._cache_size() == 1


@pytest.mark.parametrize("rows", [37, 32])
def test_gradients_through_scanned_tiles_equal_jaxs_own(rows):
    plan = GraphPlan(TUCKER, path(TUCKER, rows), 16)
    arrays = normal(rows, TUCKER.in_features), tuple(normal(*size, seed=k) for k, size in enumerate(TUCKER.sizes))

    def einsum(inputs, tensors):
        x = inputs.reshape(-1, *TUCKER.input_dims)
        return (jnp.einsum("bik,ir,sk,rtsu,tj,lu->bjl", x, *tensors) ** 2).sum()

    def ours(inputs, tensors):
        return (apply(PlanSet.alike(plan), inputs, tensors) ** 2).sum()

    found = jax.jit(jax.grad(ours, argnums=(0, 1)))(*arrays)
    for one, other in zip(
        jax.tree.leaves(found), jax.tree.leaves(jax.grad(einsum, argnums=(0, 1))(*arrays)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * float(jnp.abs(other).max()))


def test_per_example_gradients_add_up(layer):
    inputs = normal(5, RING.in_features)
    each = jax.vmap(jax.grad(lambda layer, row: total(layer, row[None])), in_axes=(None, 0))(layer, inputs)
    whole = jax.grad(total)(layer, inputs)
    np.testing.assert_allclose(each.b[...].sum(axis=0), whole.b[...], rtol=1e-4, atol=1e-4)


def test_gradient_of_a_gradient(layer):
    inputs, weight = normal(5, RING.in_features), jnp.asarray(layer.to_matrix(), "float32")

    def penalty(function):
        return jax.grad(lambda x: (jax.grad(function)(x) ** 2).sum())(inputs)

    expected = penalty(lambda x: ((x @ weight + layer.bias[...]) ** 2).sum())
    np.testing.assert_allclose(penalty(lambda x: total(layer, x)), expected, rtol=1e-3, atol=1e-3)


def test_layers_made_under_vmap_differ():
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def stack(rngs):
        return NetworkLinear(RING, rngs=rngs)

    stacked = stack(nnx.Rngs(0))
    assert stacked.a.shape == (3, *RING.sizes[0])
    assert np.ptp(np.asarray(stacked.a[...]), axis=0).min() > 0


def test_starting_values_follow_the_rngs_also_when_traced():
    def make(seed):
        return NetworkLinear(RING, rngs=nnx.Rngs(seed))

    eager, traced, other = make(1), nnx.jit(make, static_argnums=0)(1), make(2)
    assert np.array_equal(eager.a[...], traced.a[...])
    assert not np.array_equal(eager.a[...], other.a[...])


def test_export_with_an_open_batch_serves_any(layer):
    rows = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), RING.in_features), jnp.float32)
    exported = export.export(jax.jit(layer))(rows)
    for batch in (1, 300):
        inputs = normal(batch, RING.in_features)
        np.testing.assert_allclose(exported.call(inputs), layer(inputs), rtol=1e-4, atol=1e-4)


def test_bfloat16_computes_in_it_and_keeps_float32_parameters():
    layer = NetworkLinear(RING, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    inputs = normal(5, RING.in_features)
    outputs, slopes = layer(inputs), jax.grad(lambda layer: layer(inputs).astype("float32").sum())(layer)
    assert (outputs.dtype, layer.a.dtype, slopes.a.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    # bfloat16 keeps 8 bits: inputs, three nodes and at most three results are rounded, each sum
    # over magnitudes
    room = np.abs(inputs) @ graphs.matrix(RING, [np.abs(np.asarray(node[...], "float64")) for node in layer.tensors])
    assert np.all(np.abs(np.asarray(outputs, "float64") - np.asarray(inputs) @ layer.to_matrix()) <= 8 * 2**-8 * room)


def test_every_product_asks_for_full_precision(layer):
    text = jax.jit(jax.grad(total)).lower(layer, normal(4, RING.in_features)).as_text()
    products = [line for line in text.splitlines() if "dot_general " in line]
    assert len(products) >= 4
    assert all(line.count("HIGHEST") == 2 for line in products)


def test_repr_and_table_show_what_it_is(layer):
    assert f"weights={RING.parameters} of {RING.dense_parameters}" in repr(layer)
    assert "NetworkLinear" in nnx.tabulate(layer, jnp.zeros((1, RING.in_features)))

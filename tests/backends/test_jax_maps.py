"""What JAX users do with its convolutions and embeddings.

What all frameworks promise is elsewhere.
"""

import os

import pytest

if "jax" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name jax", allow_module_level=True)

import jax
import jax.numpy as jnp
from flax import nnx

from mponet_jax import MPOConv, MPOEmbed


def conv(**options):
    return MPOConv(8, 8, (3, 3), 4, rngs=nnx.Rngs(0), **options)


def embedding(**options):
    return MPOEmbed(50, 16, 4, rngs=nnx.Rngs(0), **options)


cases = pytest.mark.parametrize(
    ("make", "inputs"), [(conv, jnp.ones((2, 6, 6, 8))), (embedding, jnp.arange(6).reshape(2, 3))]
)


@cases
def test_split_merged_compiled_and_exported_for_any_batch(make, inputs):
    layer = make()
    graph, state = nnx.split(layer)
    called = jax.jit(lambda state, inputs: nnx.merge(graph, state)(inputs))
    assert jnp.allclose(called(state, inputs), layer(inputs), atol=1e-6)
    batch = jax.export.symbolic_shape("batch")[0]
    exported = jax.export.export(called)(state, jax.ShapeDtypeStruct((batch, *inputs.shape[1:]), inputs.dtype))
    assert jnp.allclose(exported.call(state, inputs[:1]), layer(inputs[:1]), atol=1e-6)
    shapes = jax.tree.map(lambda leaf: leaf.shape, nnx.state(nnx.eval_shape(make)))
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, state)


@cases
def test_forward_mode_agrees_with_reverse_mode(make, inputs):
    graph, state = nnx.split(make())

    def total(state):
        return (nnx.merge(graph, state)(inputs) ** 2).sum()

    tangent = jax.tree.map(jnp.ones_like, state)
    _, slope = jax.jvp(total, (state,), (tangent,))
    gradient = jax.grad(total)(state)
    assert jnp.allclose(slope, sum(leaf.sum() for leaf in jax.tree.leaves(gradient)), rtol=1e-4)


@cases
def test_strict_promotion_and_16_bits(make, inputs):
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert make()(inputs).dtype == jnp.float32
    assert make(dtype=jnp.bfloat16)(inputs).dtype == jnp.bfloat16


def test_maps_with_any_leading_dimensions():
    layer = conv()
    maps = jax.random.normal(jax.random.key(0), (2, 3, 6, 6, 8))
    assert jnp.allclose(layer(maps)[1, 2], layer(maps[1, 2]), atol=1e-5)


@pytest.mark.parametrize("padding", ["CIRCULAR", "REFLECT", ((1, 2), (0, 1))])
def test_paddings_of_nnx(padding):
    dense = nnx.Conv(4, 6, (3, 2), 2, padding=padding, rngs=nnx.Rngs(0))
    layer = MPOConv.from_conv(dense)
    maps = jax.random.normal(jax.random.key(0), (2, 7, 6, 4))
    assert jnp.allclose(layer(maps), dense(maps), atol=1e-5)
    assert jnp.allclose(layer.to_dense()(maps), dense(maps), atol=1e-5)

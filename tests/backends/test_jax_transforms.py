"""JAX's transformations of the layers.

Both modes, transposition, strict promotion, devices and meshes.
"""

import os

import numpy as np
import pytest

REQUESTED = "jax" in os.environ.get("MPONET_BACKENDS", "").replace(" ", "").split(",")
pytestmark = pytest.mark.skipif(not REQUESTED, reason="MPONET_BACKENDS does not name jax")

if REQUESTED:  # named but missing is an error, not a skip
    import jax
    import jax.numpy as jnp
    from flax import nnx

    import graphs
    from mponet.contraction.plan import Plan
    from mponet.contraction.planner import PlanSet
    from mponet.errors import InputError
    from mponet.operators.shape import MPOShape
    from mponet_jax import MPOLinear, NetworkLinear
    from mponet_jax.ops.contraction import apply

SHAPE = ((4, 3, 2), (2, 3, 4), 5)


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def layers():
    yield MPOLinear(*SHAPE, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    yield MPOLinear((6, 1), (1, 8), 3, use_bias=False, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    yield NetworkLinear(graphs.WIRINGS["ring"], param_dtype=jnp.float64, rngs=nnx.Rngs(0))


def batch(layer, rows=7, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, layer.in_features)))


def dense(layer):
    """The same map by the matrix that numpy makes of the layer."""
    matrix, bias = jnp.asarray(layer.to_matrix()), 0.0 if layer.bias is None else layer.bias[...]
    return lambda x: x @ matrix + bias


def close(found, expected, tolerance=1e-11):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(jnp.abs(b).max())))


@pytest.mark.parametrize("number", range(3))
def test_forward_and_reverse_mode_of_the_inputs(number):
    layer = list(layers())[number]
    x, exact = batch(layer), dense(layer)
    close(jax.jvp(layer, (x,), (2 * x,)), jax.jvp(exact, (x,), (2 * x,)))
    close(jax.jacfwd(layer)(x[0]), jax.jacfwd(exact)(x[0]))
    close(jax.jacrev(layer)(x[0]), jax.jacrev(exact)(x[0]))
    close(jax.vmap(layer)(x[:, None]), exact(x)[:, None])
    close(jax.hessian(lambda x: jnp.sin(layer(x)).sum())(x[0]), jax.hessian(lambda x: jnp.sin(exact(x)).sum())(x[0]))


def test_a_layer_without_bias_is_linear_and_can_be_transposed():
    layer = list(layers())[1]
    x = batch(layer)
    close(jax.linear_transpose(layer, x)(layer(x)), (layer(x) @ jnp.asarray(layer.to_matrix()).T,))


@pytest.mark.parametrize("number", range(3))
def test_second_derivatives_by_the_parameters(number):
    graph, state = nnx.split(list(layers())[number])
    x = batch(nnx.merge(graph, state), 3)

    def loss(state):
        return jnp.sin(nnx.merge(graph, state)(x)).sum()

    direction = jax.tree.map(jnp.cos, state)
    forward_over_reverse = jax.jvp(jax.grad(loss), (state,), (direction,))[1]
    reverse_over_reverse = jax.grad(
        lambda s: sum(jax.tree.leaves(jax.tree.map(jnp.vdot, jax.grad(loss)(s), direction)))
    )
    close(forward_over_reverse, reverse_over_reverse(state))


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 50])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_tiles_change_neither_outputs_nor_gradients(rows, dtype):
    shape = MPOShape.from_sizes((8, 8), (8, 8), 3)
    rng = np.random.default_rng(0)
    cores = tuple(jnp.asarray(rng.normal(size=size), dtype) for size in shape.core_shapes)
    bias, x = jnp.asarray(rng.normal(size=64), dtype), jnp.asarray(rng.normal(size=(rows, 64)), dtype)
    whole = Plan(shape, (1, 1), (0, 1))

    def step(plan):
        return jax.vjp(lambda *arrays: apply(PlanSet.alike(plan), *arrays), x, cores, bias)

    found, expected = (jax.tree.map(np.float64, (y, back(y))) for y, back in (step(whole.with_tile(16)), step(whole)))
    # bfloat16: each block's gradient is rounded once before it is summed in float32
    close(found, expected, 1e-12 if dtype == "float64" else 2**-7)


@pytest.mark.parametrize("number", range(3))
def test_the_kernel_is_the_dense_matrix_and_has_gradients(number):
    graph, state = nnx.split(list(layers())[number])
    layer = nnx.merge(graph, state)
    close(layer.kernel, layer.to_matrix(), 1e-13)
    weights = jnp.cos(layer.kernel)
    by_kernel = jax.grad(lambda s: (nnx.merge(graph, s).kernel * weights).sum())(state)
    identity = jnp.eye(layer.in_features)
    by_outputs = jax.grad(lambda s: ((nnx.merge(graph, s)(identity)) * weights).sum())(state)
    names = [name for name in by_kernel if name != "bias"]
    close([by_kernel[name] for name in names], [by_outputs[name] for name in names])


def test_strict_rank_and_dtype_promotion():
    layer = MPOLinear((4, 4), (4, 3), 5, rngs=nnx.Rngs(0))
    x = jnp.ones((2, 3, 16), jnp.float32)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        step = jax.value_and_grad(lambda x: layer(x).sum())
        assert jax.tree.map(jnp.shape, step(x)) == ((), (2, 3, 16))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_numbers_are_refused(dtype):
    with pytest.raises(InputError, match="dtype complex"):
        MPOLinear(*SHAPE, param_dtype=dtype, rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="inputs has dtype complex"):
        next(layers())(np.ones((2, 24), dtype))


@pytest.mark.parametrize("inputs", [[[0.0] * 24], None, "text"], ids=["list", "None", "text"])
def test_what_is_no_array_is_refused(inputs):
    with pytest.raises(InputError, match="expected a JAX or numpy array"):
        next(layers())(inputs)


def test_lora_is_part_of_what_from_dense_takes():
    adapted = nnx.LoRALinear(24, 24, lora_rank=2, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    adapted.lora.lora_b[...] = jnp.ones_like(adapted.lora.lora_b[...])
    layer = MPOLinear.from_dense(adapted)
    x = batch(layer)
    close(layer(x), adapted(x), 1e-6)  # the adapter's own numbers are float32

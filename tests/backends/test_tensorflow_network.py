"""`NetworkDense`; what all frameworks promise is in test_network_layers.py."""

import os

import numpy as np
import pytest

import graphs
from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import path
from mponet.contraction.planner import PlanSet
from mponet.errors import GraphError, ShapeError
from mponet.operators.topology import NetworkShape, to_nodes

REQUESTED = "tensorflow" in os.environ.get("MPONET_BACKENDS", "").replace(" ", "").split(",")
pytestmark = pytest.mark.skipif(not REQUESTED, reason="MPONET_BACKENDS does not name tensorflow")

if REQUESTED:  # named but missing is an error, not a skip
    import keras
    import tensorflow as tf

    from mponet_tensorflow import NetworkDense
    from mponet_tensorflow.ops.contraction import apply

RING, TREE, TUCKER = (graphs.WIRINGS[name] for name in ("ring", "tree", "tucker"))
TENSORS = {id(wiring): graphs.tensors_of(wiring) for wiring in (RING, TREE, TUCKER)}


def layer_of(wiring=RING, **options):
    nodes = to_nodes(wiring, TENSORS[id(wiring)])
    return NetworkDense.from_nodes(nodes, np.arange(wiring.out_features) / 10, **{"dtype": "float64", **options})


def expected(wiring, inputs):
    return inputs @ graphs.matrix(wiring, TENSORS[id(wiring)]) + np.arange(wiring.out_features) / 10


def slopes_of(function, arrays):
    """Gradients of a fixed, uneven function of ``function(*arrays)``."""
    with tf.GradientTape() as tape:
        tape.watch(arrays)
        total = tf.reduce_sum(tf.sin(function(*arrays)))
    return tape.gradient(total, arrays)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("signature", [(7, 12), (None, 12), (None, None)])
def test_traced_once_with_the_batch_known_or_not(signature, xla):
    layer = layer_of()
    traced = tf.function(layer, jit_compile=xla, input_signature=[tf.TensorSpec(signature, tf.float64)])
    for seed in range(2):
        inputs, _ = graphs.batch_of(RING, 7, seed)
        assert np.allclose(traced(inputs), expected(RING, inputs), rtol=0, atol=1e-12)
    if signature[0] is None:
        inputs, _ = graphs.batch_of(RING, 4)
        assert np.allclose(traced(inputs), expected(RING, inputs), rtol=0, atol=1e-12)
    assert traced.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("leading", [(2, 3), (0, 3), (2, 0)])
def test_unknown_leading_dimensions_may_be_empty(leading):
    traced = tf.function(layer_of(TUCKER), input_signature=[tf.TensorSpec((None, None, 12), tf.float64)])
    inputs = np.random.default_rng(2).normal(size=(*leading, 12))
    assert np.allclose(traced(inputs), expected(TUCKER, inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize(("batch", "tile"), [(0, 8), (40, 8), (41, 8), (41, None)])
@pytest.mark.parametrize("wiring", [RING, TUCKER], ids=["ring", "tucker"])
def test_gradients_equal_autodiff_of_einsum(wiring, batch, tile, xla):
    words = {id(RING): "bikm,uijv,vklw,wmnu->bjln", id(TUCKER): "bik,ir,sk,rtsu,tj,lu->bjl"}[id(wiring)]
    plan = GraphPlan(wiring, path(wiring, 1), tile)
    inputs, _ = graphs.batch_of(wiring, batch)
    arrays = [tf.constant(array) for array in (inputs, *TENSORS[id(wiring)])]

    def ours(x, *tensors):
        return apply(PlanSet.alike(plan), x, tensors)

    def theirs(x, *tensors):
        product = tf.einsum(words, tf.reshape(x, (batch, *wiring.input_dims)), *tensors)
        return tf.reshape(product, (batch, wiring.out_features))

    found = tf.function(lambda arrays: slopes_of(ours, arrays), jit_compile=xla)(arrays)
    for one, other, eager in zip(found, slopes_of(theirs, arrays), slopes_of(ours, arrays), strict=True):
        scale = max(1.0, float(np.abs(other).max()) if other.numpy().size else 1.0)
        assert np.allclose(one, other, rtol=0, atol=1e-12 * scale)
        assert np.allclose(eager, other, rtol=0, atol=1e-12 * scale)


def test_unknown_batches_have_gradients():
    layer, (inputs, _) = layer_of(TREE), graphs.batch_of(TREE, 5)
    arrays = [tf.constant(array) for array in (inputs, *TENSORS[id(TREE)])]

    def slopes(x):
        return slopes_of(lambda *arrays: apply(layer.plans(x.shape[0]), arrays[0], arrays[1:]), [x, *arrays[1:]])

    traced = tf.function(slopes, input_signature=[tf.TensorSpec((None, 12), tf.float64)])
    for one, other in zip(traced(inputs), slopes(arrays[0]), strict=True):
        assert np.allclose(one, other, rtol=0, atol=1e-11)


def test_a_layer_that_is_not_built_has_no_tensors():
    layer = NetworkDense(RING)
    with pytest.raises(ShapeError, match=r"no weights yet.*build\(\(None, inputs\)\)"):
        _ = layer.tensors
    with pytest.raises(ShapeError, match=r"\(None, 13\); expected \(\.\.\., 12\)"):
        layer.build((None, 13))
    assert "built=False" in repr(layer)
    assert layer(np.ones((2, 12))).shape == (2, 6)
    assert len(layer.tensors) == 3


def test_a_node_must_not_be_called_as_something_of_keras():
    for name in ("input", "weights", "activation"):
        with pytest.raises(GraphError, match=f"nodes are called {name}"):
            NetworkDense(NetworkShape.from_edges({name: "in1 out1"}, {"in1": 2, "out1": 2}))


def test_config_makes_the_same_layer_again():
    layer = NetworkDense(TREE, activation="tanh", use_bias=False, initializer="he", seed=3, name="m")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    for each in (layer, again):
        each.build((None, 12))
    assert again.get_config() == layer.get_config()
    assert again.shape == TREE
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(layer.tensors, again.tensors, strict=True))


def test_the_seed_of_keras_governs():
    def first_node():
        layer = NetworkDense(RING)
        layer.build((None, 12))
        return layer.a.numpy()

    keras.utils.set_random_seed(1)
    once, other = first_node(), first_node()
    keras.utils.set_random_seed(1)
    assert np.array_equal(once, first_node())
    assert not np.array_equal(once, other)


def small_model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((3, 4)), keras.layers.Flatten(), NetworkDense(RING, activation="relu"), keras.layers.Dense(3)]
    return keras.Sequential(layers)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compile_and_fit(jit_compile):
    model = small_model()
    inputs = np.random.default_rng(5).normal(size=(50, 3, 4))
    labels = (inputs.sum(axis=(1, 2)) > 0).astype(np.int64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=jit_compile)
    history = model.fit(inputs, labels, batch_size=16, epochs=12, verbose=0).history["loss"]  # 50 = 3 * 16 + 2
    assert history[-1] < history[0] / 2


def test_a_model_saved_and_loaded(tmp_path):
    model = small_model()
    inputs = np.random.default_rng(6).normal(size=(5, 3, 4))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(again(inputs), model(inputs))
    assert again.layers[1].shape == RING


@pytest.mark.parametrize("policy", ["float64", "float32", "bfloat16", "mixed_bfloat16", "mixed_float16"])
def test_dtype_policies(policy):
    layer, (inputs, _) = layer_of(dtype=policy), graphs.batch_of(RING, 7)
    chosen = keras.DTypePolicy(policy)
    with tf.GradientTape() as tape:
        outputs = layer(inputs)
        total = tf.reduce_sum(outputs)
    assert outputs.dtype == chosen.compute_dtype
    slopes = tape.gradient(total, [weight.value for weight in layer.weights])
    assert {slope.dtype.name for slope in slopes} == {chosen.variable_dtype}
    # inputs, three nodes, the bias and at most three results are rounded, each sum over magnitudes;
    # nodes and bias twice where they are kept in other numbers than are computed in
    rounding = {"float64": 2**-53, "float32": 2**-24, "bfloat16": 2**-8, "float16": 2**-11}[chosen.compute_dtype]
    room = np.abs(inputs) @ graphs.matrix(RING, graphs.magnitudes(TENSORS[id(RING)])) + layer_of().bias.numpy()
    sums = 12 if rounding < 2**-20 else 0  # wide numbers are added as they are, 16-bit ones in float32
    error = np.abs(tf.cast(outputs, tf.float64) - expected(RING, inputs))
    assert np.all(error <= (16 + 8 * sums) * rounding * room)

"""`MPODense`; what all frameworks promise is in test_layers.py and test_models.py."""

import os
import subprocess
import sys

import numpy as np
import pytest

from mponet import MPOShape
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PlanRequest, PlanSet
from mponet.errors import ShapeError
from mponet.operators.initialize import exact_variance
from mponet.operators.mpo import to_matrix

REQUESTED = "tensorflow" in os.environ.get("MPONET_BACKENDS", "").replace(" ", "").split(",")
pytestmark = pytest.mark.skipif(not REQUESTED, reason="MPONET_BACKENDS does not name tensorflow")

if REQUESTED:  # named but missing is an error, not a skip
    import keras
    import tensorflow as tf

    import mponet_tensorflow
    from frameworks import SUBSCRIPTS
    from mponet_tensorflow import MPODense
    from mponet_tensorflow.ops.contraction import apply

CHAIN = MPOShape.from_factors((4, 3, 2), (2, 3, 4), 5)


@pytest.fixture
def operator():
    return exact_variance(CHAIN, np.random.default_rng(0))


@pytest.fixture
def layer(operator):
    return MPODense.from_mpo(operator, np.arange(24) / 10, dtype="float64")


@pytest.fixture
def inputs():
    return np.random.default_rng(1).normal(size=(7, 24))


def expected(layer, inputs):
    return inputs @ to_matrix(layer.to_mpo()) + layer.bias.numpy()


def slopes_of(function, arrays):
    """Gradients of a fixed, uneven function of ``function(*arrays)``."""
    with tf.GradientTape() as tape:
        tape.watch(arrays)
        total = tf.reduce_sum(tf.sin(function(*arrays)))
    return tape.gradient(total, arrays)


# ---------------------------------------------------------------- tracing and XLA


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("signature", [(7, 24), (None, 24), (None, None)])
def test_traced_with_the_batch_known_or_not(layer, inputs, signature, xla):
    traced = tf.function(layer, jit_compile=xla, input_signature=[tf.TensorSpec(signature, tf.float64)])
    assert np.allclose(traced(inputs), expected(layer, inputs), rtol=0, atol=1e-13)
    assert traced.get_concrete_function().structured_outputs.shape[-1] == 24


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("leading", [(2, 3), (0, 3), (2, 0)])
def test_unknown_leading_dimensions_may_be_empty(layer, leading, xla):
    spec = tf.TensorSpec((None, None, 24), tf.float64)
    traced = tf.function(layer, jit_compile=xla, input_signature=[spec])
    inputs = np.random.default_rng(2).normal(size=(*leading, 24))
    assert np.allclose(traced(inputs), expected(layer, inputs), rtol=0, atol=1e-13)


def test_a_width_not_known_while_tracing_is_checked_when_run(layer):
    traced = tf.function(layer, input_signature=[tf.TensorSpec((None, None), tf.float64)])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[2,48\].*\[\?,24\]"):
        traced(np.ones((2, 48)))  # as many numbers as four rows of the right width


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("batch", [0, 40, 41])
@pytest.mark.parametrize("tile", [None, 8])
@pytest.mark.parametrize(
    ("groups", "transposed"), [((3,), False), ((2, 1), False), ((1, 1, 1), False), ((2, 1), True), ((1, 1, 1), True)]
)
def test_gradients_equal_autodiff_of_einsum(operator, groups, transposed, tile, batch, xla):
    order = tuple(range(len(groups))) if transposed else tuple(reversed(range(len(groups))))
    plan = Plan(CHAIN, groups, order, tile, transposed=transposed)
    inputs = np.random.default_rng(3).normal(size=(batch, 24))
    arrays = [tf.constant(a) for a in (inputs, *operator.cores)]

    def ours(x, *cores):
        return apply(PlanSet.alike(plan), x, cores)

    def theirs(x, *cores):
        product = tf.einsum(SUBSCRIPTS[3], tf.reshape(x, (-1, 4, 3, 2)), *cores)
        return tf.reshape(product, (-1, 24))

    found = tf.function(lambda arrays: slopes_of(ours, arrays), jit_compile=xla)(arrays)
    for one, other, eager in zip(found, slopes_of(theirs, arrays), slopes_of(ours, arrays), strict=True):
        assert np.allclose(one, other, rtol=0, atol=1e-12)
        assert np.allclose(eager, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("xla", [False, True])
def test_unknown_batches_have_gradients(operator, xla):
    plans = PlanSet.of(PlanRequest(CHAIN, None, 8))
    cores = [tf.constant(core) for core in operator.cores]
    spec = tf.TensorSpec((None, 24), tf.float64)
    traced = tf.function(
        lambda x: slopes_of(lambda x, *cores: apply(plans, x, cores), [x, *cores]),
        input_signature=[spec],
        jit_compile=xla,
    )
    for batch in (0, 5):
        inputs = tf.constant(np.random.default_rng(4).normal(size=(batch, 24)))
        again = slopes_of(lambda x, *cores: apply(plans, x, cores), [inputs, *cores])
        for one, other in zip(traced(inputs), again, strict=True):
            assert np.allclose(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("tile", "saves"), [(None, False), (4, False), (None, True)])
@pytest.mark.parametrize("traced", [False, True])
def test_second_order_gradients(operator, inputs, traced, tile, saves):
    plan = Plan(CHAIN, (1, 2), (1, 0), tile, saves_states=saves)
    arrays = [tf.constant(a) for a in (inputs, *operator.cores)]

    def curvature(function):
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            steepness = sum(tf.reduce_sum(s * s) for s in slopes_of(function, arrays))
        return tape.gradient(steepness, arrays)

    def ours():
        return curvature(lambda x, *cores: apply(PlanSet.alike(plan), x, cores))

    found = (tf.function(ours) if traced else ours)()
    theirs = curvature(lambda x, *c: tf.reshape(tf.einsum(SUBSCRIPTS[3], tf.reshape(x, (-1, 4, 3, 2)), *c), (-1, 24)))
    for one, other in zip(found, theirs, strict=True):
        assert np.allclose(one, other, rtol=1e-11, atol=1e-11)


def test_a_long_tiled_batch_is_one_loop_in_the_graph(operator):
    plan = Plan(CHAIN, (1, 2), (1, 0), 8)

    def nodes(batch):
        traced = tf.function(lambda x: apply(PlanSet.alike(plan), x, operator.cores))
        graph = traced.get_concrete_function(tf.TensorSpec((batch, 24), tf.float64)).graph
        return len(graph.as_graph_def().node)

    assert nodes(80_000) == nodes(80)


# ---------------------------------------------------------------- a layer like others


def test_the_number_of_inputs_is_that_of_the_first_call():
    layer = MPODense(12, 3, sites=2)
    assert layer(np.ones((2, 30), np.float32)).shape == (2, 12)
    assert layer.shape == MPOShape.from_sizes(30, 12, 3, 2)
    assert [weight.name for weight in layer.weights] == ["core1", "core2", "bias"]
    assert layer.compute_output_shape((None, 5, 30)) == (None, 5, 12)


def test_before_it_is_built():
    layer = MPODense((3, 4), 2, name="early")
    assert repr(layer) == "<MPODense name=early, units=12, bond=2, built=False>"
    with pytest.raises(ShapeError, match="early has no shape yet"):
        layer.to_mpo()
    with pytest.raises(ShapeError, match="known last dimension"):
        layer.build((None, None))


def test_sizes_that_do_not_fit():
    for wrong in ({"units": 0}, {"units": (3, 4), "sites": 3}, {"units": (3, 4), "input_dims": (2, 2, 2)}):
        with pytest.raises(ShapeError):
            MPODense(**{"bond": 2, **wrong})
    with pytest.raises(ShapeError, match=r"built for 7 inputs; expected 6"):
        MPODense(4, 2, input_dims=(2, 3)).build((None, 7))
    with pytest.raises(ShapeError, match="no weights yet"):
        MPODense.from_dense(keras.layers.Dense(4))


def test_activation_and_whole_numbers_as_in_dense(operator):
    layer = MPODense.from_mpo(operator, activation="relu", dtype="float64")
    assert layer.bias is None
    inputs = np.arange(48).reshape(2, 24)
    assert np.allclose(layer(inputs), np.maximum(inputs @ to_matrix(operator), 0), rtol=1e-13)


def test_config_makes_the_same_layer_again():
    layer = MPODense(
        (3, 4), 2, activation="tanh", use_bias=False, input_dims=(5, 6), initializer="he", seed=3, name="m"
    )
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    for each in (layer, again):
        each.build((None, 30))
    assert again.get_config() == layer.get_config()
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(layer.cores, again.cores, strict=True))


def test_the_seed_of_keras_governs():
    def first_core():
        layer = MPODense(6, 2)
        layer.build((None, 8))
        return layer.core1.numpy()

    keras.utils.set_random_seed(1)
    once, other = first_core(), first_core()
    keras.utils.set_random_seed(1)
    assert np.array_equal(once, first_core())
    assert not np.array_equal(once, other)


def small_model():
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6, 4)), keras.layers.Flatten(), MPODense((4, 4), 3, activation="relu"), MPODense(3, 2)]
    return keras.Sequential(layers)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compile_and_fit(jit_compile):
    model = small_model()
    inputs = np.random.default_rng(5).normal(size=(50, 6, 4))
    labels = (inputs.sum(axis=(1, 2)) > 0).astype(np.int64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=jit_compile)
    history = model.fit(inputs, labels, batch_size=16, epochs=12, verbose=0).history["loss"]  # 50 = 3 * 16 + 2
    assert history[-1] < history[0] / 2


def test_saved_and_loaded(tmp_path):
    model = small_model()
    inputs = np.random.default_rng(6).normal(size=(5, 6, 4))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(again(inputs), model(inputs))
    assert again.layers[1].shape == model.layers[1].shape


def test_summary_counts_the_cores():
    lines = []
    small_model().summary(print_fn=lines.append)
    cores = MPOShape.from_sizes(24, (4, 4), 3).parameters + 16
    assert any("mpo_dense" in line and f" {cores} " in line for line in "\n".join(lines).splitlines())


# ---------------------------------------------------------------- dtypes


@pytest.mark.parametrize("policy", ["float64", "float32", "bfloat16", "mixed_bfloat16", "mixed_float16"])
def test_dtype_policies(operator, inputs, policy):
    layer = MPODense.from_mpo(operator, np.ones(24), dtype=policy)
    chosen = keras.DTypePolicy(policy)
    with tf.GradientTape() as tape:
        outputs = layer(inputs)
        total = tf.reduce_sum(outputs)
    assert outputs.dtype == chosen.compute_dtype
    slopes = tape.gradient(total, [weight.value for weight in layer.weights])
    assert {slope.dtype.name for slope in slopes} == {chosen.variable_dtype}
    # roundings of the inputs, the three cores, two partial sums and the result; the numbers are of
    # size one
    rounding = {"float64": 2**-53, "float32": 2**-24, "bfloat16": 2**-8, "float16": 2**-11}[chosen.compute_dtype]
    assert np.abs(tf.cast(outputs, tf.float64) - expected(layer, inputs)).max() <= 32 * rounding


def test_dense_gives_its_policy_and_activation_on():
    dense = keras.layers.Dense(6, "tanh", dtype="mixed_bfloat16")
    dense.build((None, 8))
    layer = MPODense.from_dense(dense)
    back = layer.to_dense()
    for each in (layer, back):
        assert each.dtype_policy.name == "mixed_bfloat16"
        assert each.activation is keras.activations.tanh
    assert np.allclose(back.kernel.numpy(), dense.kernel.numpy(), rtol=0, atol=1e-6)


# ---------------------------------------------------------------- the adapter


def test_a_new_learning_rate_compiles_nothing():
    from mponet.models import build
    from mponet.models.init import start
    from mponet.recipe import preset

    model = build("fc2", "mpo", 2)
    trainer = mponet_tensorflow.backend.trainer(
        mponet_tensorflow.backend.build(model, start(model, 0)), preset("fc2", "short")
    )
    images, labels = np.zeros((4, 28, 28, 1), np.float32), np.zeros(4, np.int64)
    for rate in (0.1, 0.05, 1, np.float32(0.01)):
        trainer.step(images, labels, rate)
    assert trainer.compiled.experimental_get_tracing_count() == 1


def import_with(**environment):
    code = f"import sys; sys.path[:0] = {sys.path!r}\nimport mponet_tensorflow"
    given = {**os.environ, "KERAS_BACKEND": "", **environment}
    run = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=200)
    assert run.returncode == 1
    return run.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("setting", ["jax", "nonsense"])
def test_keras_on_another_framework_is_refused(setting):
    said = import_with(KERAS_BACKEND=setting)
    assert said.startswith(f"mponet.errors.BackendError: keras is configured by KERAS_BACKEND for '{setting}'")
    assert "set KERAS_BACKEND=tensorflow" in said


@pytest.mark.parametrize("setting", ["numpy", "torch"])
def test_keras_set_to_another_framework_in_its_file_is_refused(tmp_path, setting):
    (tmp_path / "keras.json").write_text(f'{{"backend": "{setting}"}}')
    said = import_with(KERAS_HOME=str(tmp_path))
    assert said.startswith(f"mponet.errors.BackendError: keras is configured by ~/.keras/keras.json for '{setting}'")

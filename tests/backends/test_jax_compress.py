"""Compression of flax.nnx modules, as far as other frameworks have nothing like it."""

import numpy as np
import pytest

from contract.compression import tokens, weights
from mponet.compress import CompressConfig
from mponet.errors import CompressionError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402
from safetensors.numpy import load_file, save_file  # noqa: E402

from contract import compress_jax as lab  # noqa: E402
from mponet_jax import MPOEinsum, MPOLinear, calibrate, compress, load_compressed, merge, plan, save_compressed  # noqa: E402
from mponet_jax.compression.saving import restructure  # noqa: E402

CONFIG = CompressConfig(keep=0.5, min_weights=1, structures=("low-rank",))


class Block(nnx.Module):
    """Attention of nnx, whose layers are `LinearGeneral`."""

    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(4, 32, decode=False, rngs=rngs)
        self.linear = nnx.Linear(32, 32, rngs=rngs)

    def __call__(self, x):
        return x + self.linear(self.attention(x))


class Nested(nnx.Module):
    """Blocks in ``nnx.remat`` and ``nnx.jit``, and layers in lists, tuples and dictionaries."""

    def __init__(self, rngs=None):
        rngs = rngs or nnx.Rngs(0)
        self.first, self.second = Block(rngs), Block(rngs)
        self.layers = nnx.List([nnx.Linear(32, 32, rngs=rngs)])
        self.others = nnx.data({"a": [nnx.Linear(32, 32, rngs=rngs)], "b": (nnx.Linear(32, 32, rngs=rngs),)})

    def __call__(self, x):
        x = nnx.jit(Block.__call__)(self.second, nnx.remat(Block.__call__)(self.first, x))
        return self.others["b"][0](self.others["a"][0](self.layers[0](x)))


@pytest.fixture
def data():
    return list(np.random.default_rng(0).normal(size=(3, 20, 5, 32)).astype(np.float32))


def test_layers_are_found_observed_and_replaced_wherever_they_are(data):
    model = Nested()
    sums = calibrate(model, CONFIG, data)
    names = {"layers.0", "others.a.0", "others.b.0"}
    names |= {f"{b}.{n}" for b in ("first", "second") for n in ("linear", "attention.query", "attention.out")}
    assert names <= set(sums.inputs)
    assert {sums.inputs[f"first.attention.{n}"] for n in ("query", "key", "value")} == {
        sums.inputs["first.attention.query"]
    }
    assert set(sums.gradients) == set(sums.inputs)
    uniform = CompressConfig(keep=0.5, min_weights=1, structures=("low-rank",), allocation="uniform")
    small, report = compress(model, uniform, sums)
    assert {layer.name for layer in report.plan.replaced} >= names
    assert isinstance(small.first.attention.query, MPOEinsum)
    assert isinstance(small.others["a"][0], MPOLinear)
    assert small(data[0]).shape == model(data[0]).shape
    assert report.deviation < 0.05


def test_the_pass_sees_the_inputs_that_a_plain_call_has(data):
    """Inside of ``nnx.remat``, too."""
    model = Nested()
    sums = calibrate(model, CONFIG, data)
    inputs = np.concatenate(data).reshape(-1, 32).astype(np.float64)
    np.testing.assert_allclose(sums.of("first.attention.query").products, inputs.T @ inputs, rtol=1e-5, atol=1e-3)


class Scanned(nnx.Module):
    """A layer that runs over time in a scan of the user's own, broadcast or carried along."""

    def __init__(self, carried):
        self.carried = carried
        self.step, self.last = nnx.Linear(32, 32, rngs=nnx.Rngs(0)), nnx.Linear(32, 32, rngs=nnx.Rngs(1))

    def __call__(self, x):
        start = jnp.zeros_like(x[:, 0])
        if self.carried:
            run = nnx.scan(
                lambda c, row: ((c[0], c[0](c[1] + row)), None), in_axes=(nnx.Carry, 1), out_axes=(nnx.Carry, 0)
            )
            return self.last(run((self.step, start), x)[0][1])
        run = nnx.scan(
            lambda layer, c, row: (layer(c + row), None), in_axes=(None, nnx.Carry, 1), out_axes=(nnx.Carry, 0)
        )
        return self.last(run(self.step, start, x)[0])


def test_a_layer_inside_a_scan_is_left_or_one_clear_error(data):
    made = plan(Scanned(carried=False), CONFIG, data)
    assert "not reached" in made["step"].reason
    assert made["last"].replaced
    with pytest.raises(CompressionError, match="exclude it"):
        plan(Scanned(carried=True), CONFIG, data)
    made = plan(Scanned(carried=True), CompressConfig(keep=0.5, min_weights=1, exclude=["step"]), data)
    assert made["last"].replaced


def test_speeds_are_measured_and_rows_counted(data):
    model = Nested()
    made = plan(model, CONFIG, data, measure=True)
    assert all(layer.speed > 0 for layer in made.replaced)
    counted = plan(model, CONFIG, None, example=data[0])
    assert {layer.name: layer.positions for layer in counted} == {layer.name: 5 for layer in counted}


def test_layers_are_fitted_to_the_inputs_behind_compressed_ones(data):
    """Then outputs of the whole are nearer to the original's."""
    model = Nested()
    config = CompressConfig(keep=0.3, min_weights=1, structures=("low-rank",), allocation="uniform")
    errors = {}
    for upstream in (False, True):
        small, _ = compress(model, config, data, upstream=upstream)
        errors[upstream] = sum(float(jnp.square(small(batch) - model(batch)).sum()) for batch in data)
    assert errors[True] < errors[False]
    with pytest.raises(CompressionError, match="in_place"):
        compress(model, config, data, upstream=True, in_place=True)


def test_weights_of_torch_are_taken(tmp_path):
    """Those of the same architecture, under the names and with the axes that they have there."""
    with jax.enable_x64(True):
        model, data = lab.network(weights(), "float64"), tokens()
        config = CompressConfig(keep=0.5, min_weights=1000, exclude=["query", "embed"], structures=("low-rank",))
        small, report = compress(model, config, data)
        save_compressed(small, report.plan, tmp_path)
        path = tmp_path / "model.safetensors"
        tensors = load_file(path)
        tensors["query.weight"] = np.ascontiguousarray(tensors.pop("query.kernel").T)
        tensors["embed.weight"] = tensors.pop("embed.embedding")
        # what torch's layers keep besides: their sizes under the name of the dense weight
        tensors |= {f"{layer.name}.weight": np.array([96, 96]) for layer in report.plan.replaced}
        save_file(tensors, path)
        again = load_compressed(lab.network(weights(9), "float64"), tmp_path)
        np.testing.assert_array_equal(lab.run(again, data[0]), lab.run(small, data[0]))


def test_checkpoints_of_orbax_are_restored(data, tmp_path):
    checkpoints = pytest.importorskip("orbax.checkpoint")
    model = Nested()
    small, report = compress(model, CONFIG, data)
    writer = checkpoints.StandardCheckpointer()
    writer.save(tmp_path / "state", nnx.state(small))
    writer.wait_until_finished()
    again = restructure(Nested(nnx.Rngs(5)), report.plan)
    nnx.update(again, writer.restore(tmp_path / "state", nnx.state(again)))
    np.testing.assert_array_equal(again(data[0]), small(data[0]))


def test_a_module_that_is_a_layer_itself_is_left_with_the_reason(data):
    with pytest.raises(CompressionError, match="whole model"):
        compress(nnx.Linear(32, 32, rngs=nnx.Rngs(0)), CONFIG, data)


def test_merged_models_are_ordinary_and_compute_the_same(data):
    small, report = compress(Nested(), CONFIG, data)
    dense, merged = merge(small)
    assert set(merged.deviations) == {layer.name for layer in report.plan.replaced}
    assert merged.deviation < 1e-6
    assert not any(isinstance(module, MPOEinsum | MPOLinear) for _, module in nnx.iter_modules(dense))
    np.testing.assert_allclose(dense(data[0]), small(data[0]), rtol=1e-4, atol=1e-5)


def test_merged_layers_that_share_an_operator_share_a_kernel():
    for model, batch, _, _ in lab.tied().values():
        small, _ = compress(model, CONFIG, [batch])
        dense, _ = merge(small)
        assert len(lab.numbers(dense)) == len(lab.numbers(model))
        np.testing.assert_allclose(lab.run(dense, batch), lab.run(small, batch), rtol=1e-4, atol=1e-5)

"""One network in three frameworks: the same sums and plan, and weights that load everywhere."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from mponet.compress import Calibration, CompressionPlan

pytestmark = pytest.mark.timeout(900)  # processes with a framework of their own

COMMON = """
import sys
import numpy as np
from mponet.compress import CompressConfig
given = dict(np.load("given.npz"))
config = CompressConfig(keep=0.5, min_weights=1, structures=("low-rank", "mpo", "window"))

def finish(package, model, batches, loss, run):
    # write sums, plan and the compressed network; or, with a second argument, load that of another
    name = sys.argv[1]
    if len(sys.argv) > 2:
        other = sys.argv[2]
        again = package.load_compressed(model, other + "/small")
        np.save(name + "/loads-" + other, run(again, batches[0]))
        return
    sums = package.calibrate(model, config, batches, loss=loss)
    sums.save(__import__("pathlib").Path(name) / "sums.safetensors")
    package.plan(model, config, sums).save(name + "/plan.json")
    small, report = package.compress(model, config, sums)
    package.save_compressed(small, report.plan, name + "/small")
    np.save(name + "/outputs", run(small, batches[0]))
"""
TORCH = """
import torch
from torch import nn
import mponet_torch.compression as package

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 3, stride=2)
        self.hidden, self.head = nn.Linear(16 * 9, 40), nn.Linear(40, 20)

    def forward(self, maps):
        maps = torch.relu(self.conv(maps)).permute(0, 2, 3, 1).flatten(1)
        return self.head(torch.tanh(self.hidden(maps)))

model = Network().double()
with torch.no_grad():
    model.conv.weight.copy_(torch.from_numpy(given["conv"].transpose(3, 2, 0, 1)))
    for name in ("hidden", "head"):
        getattr(model, name).weight.copy_(torch.from_numpy(given[name].T))
    for name in ("conv", "hidden", "head"):
        getattr(model, name).bias.copy_(torch.from_numpy(given[name + "_bias"]))
batches = [torch.from_numpy(batch.transpose(0, 3, 1, 2)) for batch in given["data"]]
run = lambda model, batch: model(batch).detach().numpy()
finish(package, model, batches, lambda outputs, _: (outputs**3).sum(), run)
"""
TENSORFLOW = """
import keras
import tensorflow as tf
import mponet_tensorflow.compression as package

class Network(keras.Model):
    def __init__(self):
        super().__init__(dtype="float64")
        self.conv = keras.layers.Conv2D(16, 3, 2, activation="relu", dtype="float64")
        self.flat = keras.layers.Flatten(dtype="float64")
        self.hidden = keras.layers.Dense(40, activation="tanh", dtype="float64")
        self.head = keras.layers.Dense(20, dtype="float64")

    def call(self, maps):
        return self.head(self.hidden(self.flat(self.conv(maps))))

model = Network()
model(given["data"][0])
for name in ("conv", "hidden", "head"):
    getattr(model, name).kernel.assign(given[name])
    getattr(model, name).bias.assign(given[name + "_bias"])
run = lambda model, batch: model(batch).numpy()
finish(package, model, list(given["data"]), lambda outputs, _: tf.reduce_sum(outputs**3), run)
"""
JAX = """
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
from flax import nnx
import mponet_jax.compression as package

class Network(nnx.Module):
    def __init__(self):
        options = {"rngs": nnx.Rngs(0), "param_dtype": jnp.float64}
        self.conv = nnx.Conv(8, 16, (3, 3), strides=2, padding="VALID", **options)
        self.hidden, self.head = nnx.Linear(16 * 9, 40, **options), nnx.Linear(40, 20, **options)

    def __call__(self, maps):
        maps = nnx.relu(self.conv(maps)).reshape(len(maps), -1)
        return self.head(jnp.tanh(self.hidden(maps)))

model = Network()
for name in ("conv", "hidden", "head"):
    getattr(model, name).kernel[...] = jnp.asarray(given[name])
    getattr(model, name).bias[...] = jnp.asarray(given[name + "_bias"])
run = lambda model, batch: np.asarray(model(batch))
finish(package, model, list(map(jnp.asarray, given["data"])), lambda outputs, _: (outputs**3).sum(), run)
"""
PROGRAMS = {"torch": TORCH, "tensorflow": TENSORFLOW, "jax": JAX}
PAIRS = [("torch", other) for other in ("tensorflow", "jax")]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    if missing := [name for name in PROGRAMS if find_spec(name) is None]:
        pytest.skip(f"{missing[0]} is not installed")
    folder = tmp_path_factory.mktemp("frameworks")
    rng = np.random.default_rng(0)
    sizes = {"conv": (3, 3, 8, 16), "hidden": (144, 40), "head": (40, 20)}
    given = {name: rng.normal(size=size) / np.sqrt(np.prod(size[:-1])) for name, size in sizes.items()}
    given |= {f"{name}_bias": rng.normal(size=size[-1]) for name, size in sizes.items()}
    np.savez(folder / "given.npz", data=rng.normal(size=(4, 30, 7, 7, 8)).cumsum(-2), **given)
    for name in PROGRAMS:
        (folder / name).mkdir()
        call(folder, name)
    return folder


def call(folder, name, *others):
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{COMMON}{PROGRAMS[name]}"
    subprocess.run([sys.executable, "-c", code, name, *others], check=True, cwd=folder, timeout=420)


@pytest.mark.parametrize("pair", PAIRS)
def test_sums_and_gradients_agree_to_rounding(results, pair):
    ours, theirs = (Calibration.load(results / name / "sums.safetensors") for name in pair)
    assert ours.inputs == theirs.inputs
    assert ours.gradient_rows == theirs.gradient_rows
    for name, sums in ours.sums.items():
        other = theirs.sums[name]
        assert sums.count == other.count
        scale = np.abs(sums.products).max()
        np.testing.assert_allclose(sums.products, other.products, rtol=1e-10, atol=1e-12 * scale)
        np.testing.assert_allclose(sums.total, other.total, rtol=1e-10, atol=1e-12 * np.sqrt(scale * sums.count))
    for name, symmetric in ours.gradient_products.items():
        products, others = symmetric.full(), theirs.gradient_products[name].full()
        np.testing.assert_allclose(products, others, rtol=1e-9, atol=1e-12 * np.abs(products).max())
    assert ours.gradients == pytest.approx(theirs.gradients, rel=1e-10)


@pytest.mark.parametrize("pair", PAIRS)
def test_plans_are_equal(results, pair):
    ours, theirs = (CompressionPlan.load(results / name / "plan.json") for name in pair)
    assert ours.replaced and len(ours) == len(theirs)
    for layer in ours:
        other = theirs[layer.name]
        for field in ("name", "kind", "layout", "bonds", "dense_weights", "dense_multiplications", "multiplications"):
            assert getattr(layer, field) == getattr(other, field), f"{field} of {layer.name}"
        assert layer.output_error == pytest.approx(other.output_error, rel=1e-6, abs=1e-9)
        assert layer.loss == pytest.approx(other.loss, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("reader", PROGRAMS)
def test_compressed_weights_load_in_every_other_framework(results, reader):
    for writer in PROGRAMS.keys() - {reader}:
        call(results, reader, writer)
        found, expected = np.load(results / reader / f"loads-{writer}.npy"), np.load(results / writer / "outputs.npy")
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max(), err_msg=writer)

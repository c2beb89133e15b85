"""The same weights and data give the same sums and the same plan, whatever the framework."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from mponet.compress import Calibration, CompressionPlan

pytestmark = pytest.mark.timeout(900)  # two processes, each with a framework of its own

COMMON = """
import sys
import numpy as np
from mponet.compress import CompressConfig
given = dict(np.load("given.npz"))
config = CompressConfig(keep=0.5, min_weights=1, structures=("low-rank", "mpo", "window"))

def finish(calibrate, plan, model, batches, loss):
    sums = calibrate(model, config, batches, loss=loss)
    sums.save(__import__("pathlib").Path(sys.argv[1]) / "sums.safetensors")
    plan(model, config, sums).save(sys.argv[1] + "/plan.json")
"""
TORCH = """
import torch
from torch import nn
from mponet_torch.compression import calibrate, plan

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
finish(calibrate, plan, model, batches, lambda outputs, _: (outputs**3).sum())
"""
TENSORFLOW = """
import keras
import tensorflow as tf
from mponet_tensorflow.compression import calibrate, plan

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
finish(calibrate, plan, model, list(given["data"]), lambda outputs, _: tf.reduce_sum(outputs**3))
"""
PROGRAMS = {"torch": TORCH, "tensorflow": TENSORFLOW}


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
    found = {}
    for name, program in PROGRAMS.items():
        (folder / name).mkdir()
        code = f"import sys; sys.path[:0] = {sys.path!r}\n{COMMON}{program}"
        subprocess.run([sys.executable, "-c", code, name], check=True, cwd=folder, timeout=420)
        sums = Calibration.load(folder / name / "sums.safetensors")
        found[name] = sums, CompressionPlan.load(folder / name / "plan.json")
    return found


def test_sums_and_gradients_agree_to_rounding(results):
    (ours, _), (theirs, _) = results.values()
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


def test_plans_are_equal(results):
    (_, ours), (_, theirs) = results.values()
    assert ours.replaced
    for layer, other in zip(ours, theirs, strict=True):
        for field in ("name", "kind", "layout", "bonds", "dense_weights", "dense_multiplications", "multiplications"):
            assert getattr(layer, field) == getattr(other, field), f"{field} of {layer.name}"
        assert layer.output_error == pytest.approx(other.output_error, rel=1e-6, abs=1e-9)
        assert layer.loss == pytest.approx(other.loss, rel=1e-6, abs=1e-9)

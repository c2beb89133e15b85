"""Runs on real frameworks: they learn, report divergence, and resume to the same result.

"Exactly" is to the last bit: the same process or another, the same framework, the same machine.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mponet import load
from mponet.models import PAPER_VARIANTS, VARIANTS, build
from mponet.recipe import Recipe
from mponet.training import checkpoint
from mponet.training.data import Dataset
from mponet.training.run import Settings, metrics, run
from mponet.training.run.execute import NullReporter

RECIPE = Recipe("short", steps=40, batch=50, learning_rate=0.02, momentum=0.9, nesterov=True, weight_decay=1e-4)
RECIPE = replace(RECIPE, evaluate_every=10)
#: All that the CIFAR-10 recipe has, and clipping.
CIFAR = {"batch": 20, "average": 0.9, "clip": 1.0, "normalization": "pixel", "augmentation": "crop-flip"}
CHANGES = {"fc2": {}, "lenet5": {}, "resnet8-k1": CIFAR, "densenet7-4": CIFAR}
CASES = [(name, variant) for name in CHANGES for variant in VARIANTS]


def patterns(name="fc2"):
    """Ten random pictures with noise, twenty of each for training, in the size of a network."""
    rng = np.random.default_rng(0)
    shape = build(name).input_shape
    pictures = rng.integers(0, 200, (10, *shape))

    def noisy(count):
        labels = np.tile(np.arange(10), count)
        return (pictures[labels] + rng.integers(0, 56, (len(labels), *shape))).astype(np.uint8), labels

    (train_images, train_labels), (test_images, test_labels) = noisy(20), noisy(5)
    names = tuple("abcdefghij")
    return Dataset("patterns", train_images, train_labels, test_images, test_labels, names, "made up")


def settings(name, **changes):
    return Settings(name, None, "patterns", replace(RECIPE, **CHANGES[name], **changes), seed=0)


class Killed(BaseException):
    """As abrupt as a signal: nothing in the library may catch it."""


class Slow(NullReporter):
    """Leaves time to be killed."""

    def advanced(self, record):
        time.sleep(0.1)


class Killer(NullReporter):
    """Ends a run as soon as it has passed a step."""

    def __init__(self, step):
        self.step = step

    def advanced(self, record):
        if record.step > self.step:
            raise Killed


def tensors(folder, variant):
    found = checkpoint.load(folder / variant / checkpoint.NAME)
    assert found.step == RECIPE.steps
    return {**found.parameters, **found.optimizer}


def assert_same(folder, other, variant):
    here, there = tensors(folder, variant), tensors(other, variant)
    assert here.keys() == there.keys()
    assert [name for name in here if not np.array_equal(here[name], there[name])] == []


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_it_learns_and_a_killed_run_resumes_to_the_same_parameters(backend, tmp_path, name, variant):
    whole = run(settings(name), backend, patterns(name), tmp_path / "whole", variants=(variant,))[variant]
    assert not whole.diverged
    if (
        not CHANGES[name] and variant != "low-rank"
    ):  # forty steps teach nobody to see through crops, nor settle statistics of decay 0.99
        assert whole.accuracy >= 0.4  # by chance: 0.1
    with pytest.raises(Killed):
        run(settings(name), backend, patterns(name), tmp_path / "killed", variants=(variant,), reporter=Killer(25))
    assert checkpoint.load(tmp_path / "killed" / variant / checkpoint.NAME).step == 20
    again = run(settings(name), backend, patterns(name), tmp_path / "killed", variants=(variant,), resume=True)[variant]
    assert_same(tmp_path / "whole", tmp_path / "killed", variant)
    assert (again.loss, again.accuracy, again.best_accuracy) == (whole.loss, whole.accuracy, whole.best_accuracy)


@pytest.mark.parametrize("name", ["fc2", "lenet5"])
def test_plain_gradient_descent_resumes_as_exactly(backend, tmp_path, name):
    plain = settings(name, momentum=0.0, nesterov=False)
    run(plain, backend, patterns(), tmp_path / "whole", variants=("mpo",))
    with pytest.raises(Killed):
        run(plain, backend, patterns(), tmp_path / "killed", variants=("mpo",), reporter=Killer(15))
    run(plain, backend, patterns(), tmp_path / "killed", variants=("mpo",), resume=True)
    assert_same(tmp_path / "whole", tmp_path / "killed", "mpo")


def test_a_process_that_is_killed_by_a_signal_resumes_to_the_same_parameters(backend, backend_name, tmp_path):
    """SIGKILL, which nothing can catch; what the killed process did, another one continues."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, __file__, backend_name, tmp_path / "killed"], env=env)
    _kill_at_first_checkpoint(process, tmp_path / "killed")
    run(settings("fc2"), backend, patterns(), tmp_path / "killed", resume=True)
    run(settings("fc2"), backend, patterns(), tmp_path / "whole")
    for each in PAPER_VARIANTS:
        assert_same(tmp_path / "whole", tmp_path / "killed", each)


def _kill_at_first_checkpoint(process, folder):
    while process.poll() is None and not any(folder.glob(f"*/{checkpoint.NAME}")):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "result.json").exists()


def test_a_checkpoint_holds_the_native_dtype_in_the_canonical_layout(backend, tmp_path):
    run(settings("lenet5"), backend, patterns(), tmp_path, variants=("dense",))
    found = checkpoint.load(tmp_path / "dense" / checkpoint.NAME)
    assert {value.dtype for value in found.parameters.values()} == {np.dtype(np.float32)}
    assert found.parameters["conv2/kernel"].shape == (5, 5, 6, 16)
    native = backend.build(found.model, found.parameters)
    assert all(np.array_equal(value, found.parameters[name]) for name, value in backend.parameters(native).items())


def test_saving_changes_nothing(backend, tmp_path):
    """A run that saves after every step ends like one that saves at its end."""
    run(settings("fc2", evaluate_every=1), backend, patterns(), tmp_path / "often", variants=("mpo",))
    run(settings("fc2", evaluate_every=40), backend, patterns(), tmp_path / "once", variants=("mpo",))
    assert_same(tmp_path / "often", tmp_path / "once", "mpo")


def test_a_learning_rate_far_too_large_is_a_divergence_and_no_accuracy(backend, tmp_path):
    result = run(settings("lenet5", learning_rate=1e12), backend, patterns(), tmp_path, variants=("dense",))["dense"]
    assert result.diverged
    assert (result.accuracy, result.best_accuracy) == (None, None)
    assert metrics.read(tmp_path / "dense" / metrics.NAME)[-1].diverged


if __name__ == "__main__":  # the process that is killed
    run(settings("fc2"), load(sys.argv[1]), patterns(), Path(sys.argv[2]), reporter=Slow())

"""A compression that was killed goes on where it stopped, to the same bytes."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from core.compress.planted import network
from mponet.compress import Calibration, CompressConfig, InputSums, gather
from mponet.compress.run import calibrate, compress, plan
from mponet.compress.work_folder import WorkFolder, batch_key
from mponet.errors import CheckpointError, CompressionError
from mponet.files import temporary_path

CONFIG = CompressConfig(keep=0.5, min_weights=1, structures=("low-rank", "balanced"))
STEPS = ["calibrate", "search", "fit"]


class Planted:
    """The made-up network as an adapter: a batch is a slice of the rows of every layer."""

    def __init__(self, seed=0):
        self._targets, self.inputs, self.gradients = network(seed)
        self.replaced, self.seen = {}, []

    def targets(self):
        return self._targets

    def other_weights(self):
        return 0

    def calibrate(self, targets, data, *, gradients, products, sums=None):
        sums = Calibration() if sums is None else sums
        rng = np.random.default_rng(0)
        for rows in data:
            self.seen.append(int(rows[0]))
            for target in targets:
                sums.inputs[target.name] = target.name
                sums.sums.setdefault(target.name, InputSums.zeros(target.in_features)).add(
                    self.inputs[target.name][rows]
                )
                slopes = rng.standard_normal((3, target.out_features)) if rows[0] == 0 else None
                if slopes is not None:
                    sums.add_gradient(target.name, float((slopes**2).mean()), 3, slopes.T @ slopes)
        return sums

    def replace(self, fitted):
        self.replaced[fitted.name] = fitted


def batches():
    return np.split(np.arange(600), 12)


def run(folder, kill=None, config=CONFIG, data=None):
    """Compress; ``kill`` is a step and how much of it is done when the process kills itself."""
    adapter = Planted()

    def progress(step, done, _):
        if (step, done) == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    report = compress(adapter, config, batches() if data is None else data, folder=folder, progress=progress)
    return adapter, report


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(autouse=True)
def _eager(monkeypatch):
    monkeypatch.setattr(gather, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(gather, "SAVE_SHARE", 0.0)


def test_killed_at_every_step_it_goes_on_to_the_same_bytes(tmp_path):
    plain, _ = run(None)
    whole, _ = run(tmp_path / "whole")
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from core.compress.test_work_folder import gather, run\n"
        "gather.SAVE_SECONDS = gather.SAVE_SHARE = 0.0\n"
        f"run({str(tmp_path / 'killed')!r}, kill=(sys.argv[1], int(sys.argv[2])))"
    )
    for step, done in [("calibrate", 5), ("calibrate", 11), ("search", 2), ("fit", 1)]:
        process = subprocess.run([sys.executable, "-c", code, step, str(done)], capture_output=True)
        assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]
    left = temporary_path(tmp_path / "killed").name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    (tmp_path / "killed" / left).write_bytes(b"half a file")
    resumed, _ = run(tmp_path / "killed")
    assert resumed.seen == []  # no batch is run again
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    for name, layer in plain.replaced.items():
        for other in (whole.replaced[name], resumed.replaced[name]):
            assert other.plan == layer.plan
            assert (other.output_error, other.loss_error) == (layer.output_error, layer.loss_error)
            np.testing.assert_array_equal(other.bias, layer.bias)
            for core, expected in zip(other.mpo.cores, layer.mpo.cores, strict=True):
                np.testing.assert_array_equal(core, expected)


def test_a_killed_pass_runs_no_batch_twice(tmp_path):
    class Stopped(Exception):
        pass

    def stopping(count):
        yield from batches()[:count]
        raise Stopped

    first, second = Planted(), Planted()
    with pytest.raises(Stopped):
        calibrate(first, CONFIG, stopping(7), folder=tmp_path)
    sums = calibrate(second, CONFIG, iter(batches()), folder=tmp_path)
    assert first.seen + second.seen == [int(rows[0]) for rows in batches()]
    expected = calibrate(Planted(), CONFIG, batches())
    for name in expected.inputs:
        np.testing.assert_array_equal(sums.of(name).products, expected.of(name).products)
        np.testing.assert_array_equal(sums.gradient_products[name].full(), expected.gradient_products[name].full())
    assert sums.gradients == expected.gradients


def test_several_budgets_share_sums_and_options(tmp_path):
    adapter, _ = run(tmp_path)
    files = set(contents(tmp_path))
    second, other = (
        plan(
            adapter, CompressConfig(keep=0.3, min_weights=1, structures=CONFIG.structures), batches(), folder=tmp_path
        )[0],
        Planted(),
    )
    kinds = {name.split("-")[0] for name in set(contents(tmp_path)) - files}
    assert kinds <= {"fitted"}
    fresh = plan(other, CompressConfig(keep=0.3, min_weights=1, structures=CONFIG.structures), batches())[0]
    assert second == fresh


@pytest.mark.parametrize("change", ["data", "weights", "settings"])
def test_what_belongs_to_something_else_is_made_anew(tmp_path, change):
    run(tmp_path)
    files = set(contents(tmp_path))
    if change == "data":
        run(tmp_path, data=batches()[::-1])
    elif change == "weights":
        compress(Planted(seed=1), CONFIG, batches(), folder=tmp_path)
    else:
        run(tmp_path, config=CompressConfig(keep=0.5, min_weights=1, structures=CONFIG.structures, metric="covariance"))
    kinds = [name.split("-")[0] for name in set(contents(tmp_path)) - files]
    assert kinds.count("options") == len(Planted().targets())


def test_fewer_batches_than_before_are_refused_and_so_is_a_damaged_part(tmp_path):
    def stopping():
        yield from batches()[:7]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(Planted(), CONFIG, stopping(), folder=tmp_path)
    with pytest.raises(CompressionError, match="3 batches, and 7"):
        calibrate(Planted(), CONFIG, iter(batches()[:3]), folder=tmp_path)
    run(tmp_path)
    part = next(tmp_path.glob("fitted-*"))
    part.write_bytes(part.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=part.name):
        run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file"):
        WorkFolder(tmp_path / "file")


def test_progress_names_every_step_and_counts_its_parts():
    calls = []
    compress(Planted(), CONFIG, batches(), progress=lambda *call: calls.append(call))
    assert list(dict.fromkeys(step for step, _, _ in calls)) == STEPS
    assert [call for call in calls if call[0] == "calibrate"] == [("calibrate", k, 12) for k in range(12)]


def test_batches_are_told_apart_by_their_numbers():
    one, other = {"x": np.arange(6.0)}, {"x": np.arange(6.0).reshape(2, 3)}
    keys = [batch_key(batch) for batch in (one, other, (np.arange(6.0),), {"y": np.arange(6.0)}, "x", object())]
    assert len(set(keys)) == len(keys)
    assert batch_key(object()) == batch_key(object())  # no address in it
    assert batch_key(one) == batch_key({"x": np.arange(6.0)})

"""Files, folders, arguments and numbers that lie: each is read or refused in one line, at once.

Seconds here; ``benchmarks/robustness.py`` does the same by the hundred thousand, and
``MPONET_FUZZ=1000 pytest`` a thousand mutations at each door.
"""

import os
import random
import time

import pytest

from core.faults import arguments, crash, doors, folders, toys
from mponet.errors import CheckpointError, MPONetError
from mponet.report import report
from mponet.report.experiments import experiments
from mponet.report.sources import find
from mponet.training import checkpoint
from mponet.training.run import metrics
from mponet.training.suite import read, states

pytestmark = pytest.mark.usefixtures("toy_runs")

FUZZ = int(os.environ.get("MPONET_FUZZ", "40"))
NAMES = (
    *("config", "result", "metrics", "spectra", "suite", "failed", "folder", "crosscheck", "bench", "tuning"),
    "compression plan",
    "checkpoint",
)


@pytest.fixture(scope="module")
def all_doors(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPONET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield {door.name: door for door in doors.doors(tmp_path_factory.mktemp("doors"))}


@pytest.mark.parametrize("name", NAMES)
def test_a_mutated_document_is_read_or_refused_in_one_line(all_doors, name):
    assert set(all_doors) == set(NAMES)
    counts = doors.fuzz(all_doors[name], FUZZ, random.Random(name))
    assert counts.faults == () and counts.documents == FUZZ


@pytest.mark.parametrize("name", NAMES)
def test_every_door_takes_what_mponet_writes(all_doors, name):
    all_doors[name].read()


@pytest.mark.parametrize("kind", folders.KINDS)
def test_whatever_stands_in_place_of_a_file_is_a_line_at_once(tmp_path, kind):
    for number, target in enumerate(folders.targets(tmp_path)):
        folders.replaced(target, kind)
        if number % 3 == 2 or target.name == "check.json":
            began = time.monotonic()
            for call in (
                lambda: experiments(find(tmp_path)),
                lambda: states(read(tmp_path / "suite"), tmp_path / "suite"),
            ):
                try:
                    call()
                except MPONetError as error:
                    assert "\n" not in str(error)
            assert time.monotonic() - began < 5


def test_a_report_leaves_out_what_is_not_ours_and_names_it(tmp_path, caplog):
    folders.targets(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"architectures": ["GPT2"]}')
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_bytes((tmp_path / "run" / "config.json").read_bytes())
    (tmp_path / "suite" / "suite.json").write_text("{")
    (tmp_path / "check.json").write_text('{"reports": [{"comparisons": [{"quantity": 1}]}]}')
    page = report(tmp_path)
    assert "Left out" in page and "4 runs" in page  # those of the damaged suite count as runs
    for name in ("model: config.json", "begun: has not begun", "suite: suite.json", "check.json cannot be used"):
        assert name in page and name in caplog.text


def test_a_run_that_has_not_begun_is_said_to_be_one(tmp_path):
    folders.targets(tmp_path / "all")
    (tmp_path / "config.json").write_bytes((tmp_path / "all" / "run" / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="no training that has begun"):
        report(tmp_path)


def test_numbers_at_the_edges_are_drawn_or_left_out(tmp_path):
    folders.extreme(tmp_path, random.Random(3))
    assert "<svg" in report(tmp_path)


def test_a_large_checkpoint_of_wrong_names_is_refused_by_its_header(tmp_path, monkeypatch):
    toys.run_in(tmp_path)()
    path = tmp_path / "dense" / checkpoint.NAME
    payload = path.read_bytes()
    size = int.from_bytes(payload[:8], "little")
    header = (
        payload[8 : 8 + size]
        .replace(b'{"parameters/fc1/bias"', b'{"parameters/fc1/biaz"')
        .replace(b',"parameters/fc1/bias"', b',"parameters/fc1/biaz"')
    )
    assert header != payload[8 : 8 + size]
    path.write_bytes(payload[:8] + header + payload[8 + size :])

    def unread(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(checkpoint, "_check_numbers", unread)
    with pytest.raises(CheckpointError, match="biaz"):
        checkpoint.load(path)


def test_equal_checkpoints_are_equal_files(tmp_path):
    for name in ("a", "b"):
        toys.run_in(tmp_path / name)()
    assert crash.content(tmp_path / "a") == crash.content(tmp_path / "b")


def test_metrics_whose_steps_do_not_rise_are_refused(tmp_path):
    toys.run_in(tmp_path)()
    path = tmp_path / "dense" / metrics.NAME
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(CheckpointError, match=r"line 3 .*step is 20 after step 40"):
        metrics.read(path)


@pytest.mark.parametrize("seed", range(2))
def test_odd_arguments_are_refused_in_words(tmp_path, seed):
    counts = arguments.fuzz(FUZZ, random.Random(seed), tmp_path)
    assert counts.faults == ()

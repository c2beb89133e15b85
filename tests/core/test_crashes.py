"""Kills, second processes, full disks and missing permissions.

The same files in the end, or one line.
"""

import os
import resource
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from core.faults import crash, folders, toys
from core.toy import ToyBackend
from mponet.errors import MPONetError
from mponet.report import report
from mponet.training import checkpoint
from mponet.training.data import load
from mponet.training.run import Settings, run
from mponet.training.suite import read

pytestmark = pytest.mark.usefixtures("toy_runs")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills are of forks")
@pytest.mark.parametrize(("make", "stride"), [(toys.run_in, 9), (toys.suite_in, 17)])
def test_a_kill_at_a_file_operation_changes_nothing_in_the_end(tmp_path, make, stride):
    crash.finished(make(tmp_path / "whole"))
    whole = crash.content(tmp_path / "whole")
    points = crash.count_points(make(tmp_path / "count"), tmp_path / "count")
    for point in range(0, points, stride):
        folder = tmp_path / str(point)
        assert crash.killed_at(make(folder), folder, point), point
        crash.finished(make(folder))
        assert crash.content(folder) == whole, point


@pytest.mark.skipif(not hasattr(os, "fork"), reason="owners are forks")
@pytest.mark.parametrize("make", [toys.run_in, toys.suite_in])
def test_two_who_start_together_leave_the_files_of_one(tmp_path, make):
    crash.finished(make(tmp_path / "whole"))
    for number in range(3):
        assert crash.together(make(tmp_path / str(number)), 2) == [0, 0]
        assert crash.content(tmp_path / str(number)) == crash.content(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits are set in forks")
@pytest.mark.parametrize("size", [0, 50, 150, 400, 1000, 2000, 4000])
def test_a_full_disk_is_a_line_and_the_next_start_goes_on(tmp_path, size):
    """A limit of the size of files is as a full disk.

    Part of a write succeeds, the rest is refused.
    """

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        toys.run_in(tmp_path / "full")()

    crash.finished(toys.run_in(tmp_path / "whole"))
    load("digits")
    assert crash.together(work, 1) == [3]
    crash.finished(toys.run_in(tmp_path / "full"))
    assert crash.content(tmp_path / "full") == crash.content(tmp_path / "whole")


@pytest.fixture
def open_folder():
    """A folder that another user may enter; those of pytest are closed."""
    with TemporaryDirectory(prefix="mponet-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for path in folder.rglob("*"):  # or it could not be removed
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="rights are those of POSIX")
def test_folders_without_permission_are_a_line(open_folder):
    def calls(root):
        return (
            lambda: report(root / "run"),
            lambda: read(root / "suite"),
            lambda: checkpoint.load(root / "run" / "mpo" / checkpoint.NAME),
            toys.run_in(root / "run"),
            toys.run_in(root / "new"),
        )

    folders.targets(open_folder / "all")
    folders.targets(open_folder / "loaded")
    for call in calls(open_folder / "loaded"):  # what is imported lazily may lie where only root reads
        with suppress(MPONetError):
            call()
    for path in (
        open_folder / "all" / "run",
        open_folder / "all" / "suite" / "suite.json",
        open_folder / "all" / "other",
    ):
        path.chmod(0)

    wanted = calls(open_folder / "all")  # reads the digits, which may lie where only root reads

    def work():
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        problems = []
        for call in wanted:
            try:
                call()
            except MPONetError as error:
                problems.append(str(error))
        assert len(problems) >= 4 and not any("\n" in problem for problem in problems), problems

    crash.finished(work)


def test_a_folder_that_vanishes_is_a_line(tmp_path):
    class Vandal:
        def __getattr__(self, _):
            return lambda *_: shutil.rmtree(tmp_path / "run", ignore_errors=True)

    settings = Settings("toy", None, "digits", toys.SHORT, 0)
    with pytest.raises(MPONetError, match="cannot be written"):
        run(settings, ToyBackend(), load("digits"), tmp_path / "run", reporter=Vandal())


def test_a_continuation_under_other_conditions_is_said(tmp_path, caplog, monkeypatch):
    settings = Settings("toy", None, "digits", toys.SHORT, 0)
    with pytest.raises(KeyboardInterrupt):
        run(settings, Interrupted(), load("digits"), tmp_path)
    monkeypatch.setenv("MPONET_PLAN", "measure")
    run(settings, ToyBackend(), load("digits"), tmp_path, resume=True)
    assert "dense continues under other conditions: plans is 'measure', was 'model'" in caplog.text


class Interrupted(ToyBackend):
    """Stopped by hand at step 30."""

    def gradients(self, *arguments, **named):
        if self.steps == 30:
            raise KeyboardInterrupt
        return super().gradients(*arguments, **named)

"""The door that files are read through, and the writes that are whole or not at all."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.faults.folders import KINDS
from mponet import files
from mponet.errors import CheckpointError, RecipeError
from mponet.files.lock import is_locked, locked


@dataclass(frozen=True)
class Inner:
    number: int
    share: float | None = None


@dataclass(frozen=True)
class Document:
    name: str
    inner: list[Inner]


GOOD = b'{"name": "a", "inner": [{"number": 1}, {"number": 2, "share": 0.5}], "more": 3}'


def test_a_document_becomes_its_dataclass(tmp_path):
    (tmp_path / "a").write_bytes(GOOD)
    assert files.read_json(tmp_path / "a", Document) == Document("a", [Inner(1), Inner(2, 0.5)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"name": 3, "inner": []}', r"Expected `str`, got `int` - at `\$.name`"),
        (b'{"name": "a", "inner": [{"number": 1.5}]}', r"\$.inner\[0\].number"),
        (b'{"name": "a", "inner": [{"number": 1, "share": NaN}]}', "malformed"),
        (b'{"name": "a", "inner": [{"number": 1, "share": 1e400}]}', "out of range"),
        (b'{"name": "a", "inner": [], "x": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"name": "\xff", "inner": []}', ""),
        (b'{"name": "\\ud800", "inner": []}', ""),
    ],
)
def test_anything_else_is_refused_with_the_place(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"a is damaged.*{message}"):
        files.read_json(tmp_path / "a", Document)


@pytest.mark.parametrize(
    "kind", sorted(set(KINDS) - {"empty", "binary", "foreign", "deep", "locked", "dangling", "terminal"})
)
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    KINDS[kind](tmp_path / "a")
    with pytest.raises(CheckpointError, match="a "):
        files.read_bytes(tmp_path / "a")


def test_absent_is_not_damaged(tmp_path):
    assert files.read_if_present(tmp_path / "none") is None
    assert not files.exists(tmp_path / "none" / "inner")
    with pytest.raises(CheckpointError, match="does not exist"):
        files.read_bytes(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot be reached"):
        files.exists(tmp_path / ("x" * 5000))


def test_the_limit_counts_what_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * (1 << 20))
    assert len(files.read_bytes(tmp_path / "a", 1 << 20)) == 1 << 20
    with pytest.raises(CheckpointError, match="more than 0 MiB"):
        files.read_bytes(tmp_path / "a", (1 << 20) - 1)


def test_a_waiting_link_is_not_written_through(tmp_path, monkeypatch):
    (tmp_path / "victim").write_text("precious")
    monkeypatch.setattr("mponet.files.writer.temporary_path", lambda folder: folder / ".waiting")
    (tmp_path / ".waiting").symlink_to("victim")
    with pytest.raises(FileExistsError):
        files.write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "victim").read_text() == "precious" and not (tmp_path / "a").exists()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="a cannot be written \\(No space left"), files.writing(tmp_path / "a"):
        files.write_atomically(tmp_path / "a", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_parts_are_written_in_order_and_devices_directly(tmp_path):
    files.write_atomically(tmp_path / "a", b"one", memoryview(b"two"))
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    (tmp_path / "null").symlink_to("/dev/null")
    files.write_atomically(tmp_path / "null", b"x")
    assert (tmp_path / "null").is_symlink()


def test_leftovers_of_dead_processes_go_and_those_of_live_ones_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    own = files.temporary_path(tmp_path).name
    gone, parent = (own.replace(f"-{os.getpid()}-", f"-{process}-") for process in (dead.pid, os.getppid()))
    kept = {own, parent, ".mponet-01234567-1-0123abcd.part", ".mponet-x-0123abcd.part", "other.part"}
    for name in (gone, *kept):
        (tmp_path / name).write_text("")
    files.remove_leftovers(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("name", ["", "none/a", "x" * 300, "file/a"])
def test_a_file_that_cannot_be_written_is_known_beforehand(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        files.check_writable(tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_file_that_can_be_written_is_left_as_it_is(tmp_path):
    (tmp_path / "old").write_text("old")
    for name in ("old", "new"):
        files.check_writable(tmp_path / name)
    files.check_writable(Path("/dev/null"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]


def test_a_folder_has_one_owner_and_the_lock_leaves_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("mponet.files.lock.WAIT", 0.1)
    home = tmp_path / "new"
    with locked(home, "lock"):
        assert is_locked(home, "lock")
        with pytest.raises(RecipeError, match="in use by another process"), locked(home, "lock"):
            pass
    assert is_locked(home, "lock") is False and not list(home.iterdir())


def test_a_lock_file_of_a_dead_process_is_taken_over(tmp_path):
    (tmp_path / "lock").write_text("")
    with locked(tmp_path, "lock"):
        assert is_locked(tmp_path, "lock")


def test_many_who_want_a_folder_have_it_one_after_the_other(tmp_path):
    inside, most = [], []

    def work():
        with locked(tmp_path, "lock"):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6

"""Kill a process at each of its file operations, let another go on, and compare the results.

A point is an operation on a file: before it, and for writes also after half of it.  The work runs
in forked children, so that a kill is one: nothing is cleaned up.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from mponet.errors import MPONetError

WATCHED = ("open", "os.rename", "os.remove", "os.mkdir", "fcntl.flock")
CLOCK = ("seconds", "images_per_s", "step_ms")


def count_points(work: Callable[[], object], folder: Path) -> int:
    """How many points ``work`` passes."""
    reading, writing = os.pipe()

    def counted():
        points = _Points(folder, None)
        work()
        os.write(writing, str(points.passed).encode())

    status = _in_child(counted)
    os.close(writing)
    with os.fdopen(reading) as stream:
        passed = stream.read()
    assert status == 0, f"the work ended with {status}"
    return int(passed)


def killed_at(work: Callable[[], object], folder: Path, point: int) -> bool:
    """Run ``work`` and kill it at a point; whether it was."""

    def armed():
        _Points(folder, point)
        work()

    return _in_child(armed) == -signal.SIGKILL


def finished(work: Callable[[], object]) -> None:
    """Run ``work`` in a child to its end."""
    status = _in_child(work)
    assert status == 0, f"the work ended with {status}"


def together(work: Callable[[], object], count: int) -> list[int]:
    """Exit statuses of ``count`` children that do the same at the same time.

    3 where an error of ours was raised.
    """
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work()
                status = 0
            except MPONetError:
                status = 3
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def content(folder: Path) -> dict[str, object]:
    """All files, hidden ones too, without what depends on clock, place and number of starts."""
    return {
        str(file.relative_to(folder)): _timeless(file, folder) for file in sorted(folder.rglob("*")) if file.is_file()
    }


def _timeless(file: Path, folder: Path) -> object:
    if file.suffix == ".jsonl":
        return [_without_clock(json.loads(line)) for line in file.read_text().splitlines()]
    if file.name == "config.json":
        return json.loads(file.read_text())["settings"]
    if file.name == "result.json":
        return _without_clock(json.loads(file.read_text().replace(str(folder), "")))
    return file.read_bytes()


def _without_clock(value):
    if isinstance(value, dict):
        return {key: _without_clock(inner) for key, inner in value.items() if key not in CLOCK}
    return value


class _Points:
    """Counts file operations below a folder, and kills this process at one of them."""

    def __init__(self, folder: Path, armed: int | None) -> None:
        self.passed, self._armed, self._folder = 0, armed, str(folder)
        sys.addaudithook(self._hook)
        fsync, fdopen, open_path = os.fsync, os.fdopen, Path.open

        def patched_fsync(handle):
            self.tick()
            return fsync(handle)

        def patched_open(path, mode="r", *others, **named):
            stream = open_path(path, mode, *others, **named)
            return _HalfWritten(stream, self) if "a" in mode or "w" in mode else stream

        os.fsync = patched_fsync
        os.fdopen = lambda handle, mode="r", *others: (
            _HalfWritten(fdopen(handle, mode, *others), self) if "w" in mode else fdopen(handle, mode, *others)
        )
        Path.open = patched_open

    def tick(self) -> bool:
        """Pass a point; killed before anything of it is done."""
        if self.passed == self._armed:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed += 1
        return self.passed == self._armed

    def _hook(self, event: str, arguments: tuple) -> None:
        if event in WATCHED and (event == "fcntl.flock" or self._folder in str(arguments[0])):
            self.tick()


class _HalfWritten:
    """A stream whose writes are two points: before, and with half of the bytes on their way."""

    def __init__(self, stream, points: _Points) -> None:
        self._stream, self._points = stream, points

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, payload) -> int:
        next_is_armed = self._points.tick()
        half = len(payload) // 2
        if next_is_armed:
            self._stream.write(bytes(payload[:half]))
            self._stream.flush()
        self._points.tick()
        return self._stream.write(payload)

    def writelines(self, parts) -> None:
        for part in parts:
            self.write(part)


def _in_child(work: Callable[[], object]) -> int:
    """Exit status of ``work`` in a fork of this process; negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)

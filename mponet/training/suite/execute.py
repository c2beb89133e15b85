"""Train the cells of a suite that are not finished, one after the other; one that breaks does not stop the rest."""

import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from mponet.backend import Backend
from mponet.errors import MPONetError
from mponet.files import write_json, writing
from mponet.training.data import Dataset
from mponet.training.run import Reporter, Result, run
from mponet.training.suite import write
from mponet.training.suite.cells import Cell, Suite
from mponet.training.suite.folder import settle, working
from mponet.training.suite.state import FAILED, outcome
from mponet.training.suite.table import Report, report


class Observer(Protocol):
    """Whoever wants to watch a suite."""

    def watching(self, cell: Cell, number: int, count: int) -> AbstractContextManager[Reporter | None]:
        """What watches the training of a cell, the ``number``-th of ``count``."""

    def finished(self, cell: Cell, result: Result) -> None:
        """A cell is done, or has diverged."""

    def failed(self, cell: Cell, message: str) -> None:
        """A cell broke."""


class Silent:
    """Watches nothing."""

    def watching(self, cell: Cell, number: int, count: int) -> AbstractContextManager[Reporter | None]:
        """Nobody."""
        return nullcontext()

    def finished(self, cell: Cell, result: Result) -> None:
        """Nothing."""

    def failed(self, cell: Cell, message: str) -> None:
        """Nothing."""


def run_suite(
    suite: Suite,
    backend: Backend,
    datasets: Mapping[str, Dataset],
    home: Path,
    *,
    device: str | None = None,
    observer: Observer | None = None,
) -> Report:
    """Train what is not finished, going on where an earlier process stopped, and write the tables after every cell.

    A cell that raises an exception is noted in its folder, and tried again by the next call; one
    that diverged is finished.

    Args:
        suite: what to train.
        backend: what trains it.
        datasets: by name, those that the suite needs.
        home: folder of the suite.
        device: of the backend; None for its default.
        observer: is told what happens.

    Raises:
        RecipeError: ``home`` holds another suite, or another process works on it.
        CheckpointError: ``home`` is damaged, or cannot be written.
    """
    watcher = observer or Silent()
    settle(home, suite)
    with working(home):
        cells = suite.cells()
        for number, cell in enumerate(cells, 1):
            if not _finished(cell, home):
                with watcher.watching(cell, number, len(cells)) as reporter:
                    result = _attempt(cell, backend, datasets, home, device, reporter)
                if isinstance(result, str):
                    watcher.failed(cell, result)
                else:
                    watcher.finished(cell, result)
                write.tables(report(suite, home), home)
        made = report(suite, home)
        write.tables(made, home)
        return made


def _finished(cell: Cell, home: Path) -> bool:
    try:
        return outcome(cell, home) is not None
    except MPONetError:
        return False  # the attempt says what is wrong with the folder


def _attempt(
    cell: Cell,
    backend: Backend,
    datasets: Mapping[str, Dataset],
    home: Path,
    device: str | None,
    reporter: Reporter | None,
) -> Result | str:
    """Train a cell; its result, or the message of what broke it."""
    settings, folder = cell.settings, cell.folder(home)
    note = folder / FAILED
    with writing(note):
        note.unlink(missing_ok=True)
    try:
        return run(
            settings,
            backend,
            datasets[settings.data],
            folder,
            variants=(cell.variant,),
            resume=True,
            device=device,
            reporter=reporter,
        )[cell.variant]
    except Exception as error:  # whatever it is, the other cells have nothing to do with it
        message = str(error) if isinstance(error, MPONetError) else f"{type(error).__name__}: {error}"
        with writing(note):
            folder.mkdir(parents=True, exist_ok=True)
        write_json(note, {"message": message, "traceback": traceback.format_exception(error)})
        return message

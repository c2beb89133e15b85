"""Who trains the cells of a suite: this process, workers, or the tasks of a Ray cluster."""

import signal
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from mponet.backend import load
from mponet.cli.output import fail, print_status
from mponet.errors import RecipeError
from mponet.files.lock import locked
from mponet.training.data import Dataset
from mponet.training.launch import run_processes
from mponet.training.on_ray import run_on_ray
from mponet.training.run import Reporter, Result
from mponet.training.suite import Suite, Training, report, run_suite, work
from mponet.training.suite.execute import Observer, is_finished
from mponet.training.suite.folder import LOCK, claim_folder
from mponet.training.suite.on_ray import run_cell
from mponet.training.suite.table import Report
from mponet.training.suite.write import flat, tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The options of ``mponet suite`` that say who trains.

    Attributes:
        workers: number of processes on this machine; None for one process.
        worker: whether this process is a worker.
        name: ``ray``, or None.
        address: of the Ray cluster.
        cpus: processors per task.
        gpus: accelerators per task.

    Raises:
        RecipeError: two of them are asked for at once, or the engine is unknown.
    """

    workers: int | None = None
    worker: bool = False
    name: str | None = None
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in (None, "ray"):
            raise RecipeError(f"engine is {self.name!r}; expected ray; leave it out to train in processes of mponet")
        if (self.workers is not None) + self.worker + (self.name is not None) > 1:
            raise RecipeError("workers, worker and engine exclude one another; expected one of them; leave out others")

    def train(
        self,
        suite: Suite,
        datasets: Mapping[str, Dataset],
        folder: Path,
        device: str | None,
        observer: Observer,
    ) -> Report:
        """Train what is not finished; see `mponet.training.suite.run_suite` for the errors."""
        if self.workers is None and self.name is None:
            backend = load(suite.backend)
            if self.worker:
                return work(suite, backend, datasets, folder, device=device, observer=_Lines(observer))
            return run_suite(suite, backend, datasets, folder, device=device, observer=observer)
        with locked(folder, LOCK, shared=True):
            claim_folder(folder, suite)
            if self.name == "ray":
                self._as_tasks(suite, folder, device)
            else:
                self._as_processes(suite, folder, device)
            made = report(suite, folder)
            tables(made, folder)
            return made

    def _as_processes(self, suite: Suite, folder: Path, device: str | None) -> None:
        assert self.workers is not None
        run_processes([*_arguments(suite, folder, device), "--worker"], [{}] * self.workers, _tell_end)

    def _as_tasks(self, suite: Suite, folder: Path, device: str | None) -> None:
        names = [str(training) for training in suite.trainings() if not is_finished(training, folder)]
        calls = {name: (name, str(folder.resolve()), device) for name in names}
        run_on_ray(run_cell, calls, _tell_task, address=self.address, cpus=self.cpus, gpus=self.gpus)


def _tell_task(name: str, line: str) -> None:
    print_status(f"{name}: {line}")


@dataclass(frozen=True, slots=True)
class _Lines:
    """Begin and end of each cell in a line; several workers may share a terminal."""

    observer: Observer

    def watching(self, training: Training, number: int, count: int) -> AbstractContextManager[Reporter | None]:
        """No live view."""
        print_status(f"{number}/{count} {training}: starts")
        return nullcontext()

    def finished(self, training: Training, result: Result) -> None:
        """Pass on."""
        self.observer.finished(training, result)

    def failed(self, training: Training, message: str) -> None:
        """Pass on."""
        self.observer.failed(training, flat(message))


def _arguments(suite: Suite, folder: Path, device: str | None) -> list[str]:
    """The command line that means this suite."""
    settings = suite.as_dict()
    options = {
        "backend": suite.backend,
        "preset": suite.preset,
        "models": ",".join(settings["models"]),
        "seeds": suite.seeds,
        "variants": ",".join(suite.variants),
        "data": suite.data,
        "epochs": suite.epochs,
        "steps": suite.steps,
        "device": device,
        "out": folder,
    }
    return [
        "suite",
        *(word for key, value in options.items() if value is not None for word in (f"--{key}", str(value))),
    ]


def _tell_end(number: int, status: int) -> None:
    if status < 0:
        fail(f"worker {number + 1} was killed by {signal.Signals(-status).name}; the others take over its cell")
    elif status > 1:
        fail(f"worker {number + 1} ended with status {status}; its own line says why")

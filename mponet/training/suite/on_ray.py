"""A suite as Ray tasks: one task is one cell, on whatever machines the cluster has.

Ray is imported only here.  Its own retries are off: a cell goes on from its last checkpoint, so
this module submits it again.  Nothing large travels: a task is told the folder, which all machines
see, and reads suite and data there.
"""

from pathlib import Path
from typing import Any

from mponet.backend import load
from mponet.errors import BackendError
from mponet.training import data
from mponet.training.suite.folder import read
from mponet.training.suite.worker import work_on

ATTEMPTS = 5  # of a cell whose process dies; what it wrote stays


def run_on_ray(
    names: list[str], folder: Path, tell: Any, *, address: str | None, cpus: float, gpus: float, device: str | None
) -> None:
    """Train cells of the suite in a folder as Ray tasks, and wait for all.

    Args:
        names: of the cells.
        folder: of the suite; all machines of the cluster see it under this name.
        tell: called with the name of a cell and a line about how it ended.
        address: of the cluster; None starts one on this machine, or uses ``RAY_ADDRESS``.
        cpus: processors that a cell takes.
        gpus: accelerators that a cell takes.
        device: of the backend; None for its default.

    Raises:
        BackendError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _ray()
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BackendError(
                f"the Ray cluster {address or 'of this machine'} cannot be used ({error}); expected one that runs; "
                "start it with `ray start --head`, and give its --address"
            ) from error
    try:
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run_cell)
        pending = {task.remote(name, str(folder), device): (name, 1) for name in names}
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            name, attempt = pending.pop(done)
            try:
                tell(name, ray.get(done))
            except ray.exceptions.RayError as error:
                reason = type(error).__name__
                if attempt < ATTEMPTS:
                    tell(name, f"its process died ({reason}); it goes on in another")
                    pending[task.remote(name, str(folder), device)] = (name, attempt + 1)
                else:
                    tell(name, f"its process died {attempt} times ({reason}); the same command tries again")
    finally:
        if started:
            ray.shutdown()


def run_cell(name: str, folder: str, device: str | None) -> str:
    """Train one cell of the suite in a folder, here and now; a line about how it ended."""
    path = Path(folder)
    suite = read(path)
    training = next(one for one in suite.trainings() if str(one) == name)
    datasets = {training.settings.data: data.load(training.settings.data)}
    return work_on(training, suite, load(suite.backend), datasets, path, device=device)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise BackendError(
            "engine is 'ray', which is not installed; expected it for --engine ray; pip install 'mponet[ray]'"
        ) from error
    return ray

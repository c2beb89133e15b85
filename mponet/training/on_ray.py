"""Work as tasks of Ray, on whatever machines the cluster has.

Ray is imported only here.  Its own retries are off: work goes on where it stopped, so this module
submits it again.  Nothing large travels: a task is told names of files, which all machines see.
"""

from collections.abc import Callable, Mapping
from typing import Any

from mponet.errors import BackendError

ATTEMPTS = 5  # of a task whose process dies; what it wrote stays


def run_on_ray(
    function: Callable[..., str],
    calls: Mapping[str, tuple[Any, ...]],
    tell: Callable[[str, str], None],
    *,
    address: str | None,
    cpus: float,
    gpus: float,
) -> None:
    """Call a function as Ray tasks, and wait for all.

    Args:
        function: does a task; gives a line about how it ended.
        calls: arguments by name of a task.
        tell: called with the name of a task and such a line.  One that raises ends as
            ``failed: ...``, and does not stop the others.
        address: of the cluster; None starts one on this machine, or uses ``RAY_ADDRESS``.
        cpus: processors that a task takes.
        gpus: accelerators that a task takes.

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
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(function)
        pending = {task.remote(*arguments): (name, 1) for name, arguments in calls.items()}
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            name, attempt = pending.pop(done)
            try:
                tell(name, ray.get(done))
            except ray.exceptions.RayTaskError as error:  # would raise again in another process
                tell(name, f"failed: {' '.join(str(error.cause).split())}")
            except ray.exceptions.RayError as error:
                reason = type(error).__name__
                if attempt < ATTEMPTS:
                    tell(name, f"its process died ({reason}); it goes on in another")
                    pending[task.remote(*calls[name])] = (name, attempt + 1)
                else:
                    tell(name, f"its process died {attempt} times ({reason}); the same command tries again")
    finally:
        if started:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise BackendError(
            "engine is 'ray', which is not installed; expected it for --engine ray; pip install 'mponet[ray]'"
        ) from error
    return ray

"""`Group`: the processes that train one model together."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from mponet.errors import BackendError


def _alone(value: bool) -> bool:
    """One process agrees with itself."""
    return value


@dataclass(frozen=True, slots=True)
class Group:
    """The processes that train one model together.

    Attributes:
        rank: number of this process, from 0; process 0 writes.
        count: number of processes.
        agree: returns the value that process 0 passed, when all processes have called it.
        losing: a context that turns the loss of another process into a `BackendError`.
        sharded: whether each process keeps a share of the parameters instead of all of them.
    """

    rank: int = 0
    count: int = 1
    agree: Callable[[bool], bool] = _alone
    losing: Callable[[], AbstractContextManager[None]] = nullcontext
    sharded: bool = False

    def wait(self) -> None:
        """Return when all processes have called it."""
        self.agree(True)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0


ALONE = Group()


@contextmanager
def losing(is_loss: Callable[[Exception], bool]) -> Iterator[None]:
    """Turn a framework's error for the loss of another process into one of ours.

    Args:
        is_loss: whether an error says that a process was lost.

    Raises:
        BackendError: another process ended.
    """
    try:
        yield
    except Exception as error:
        if not is_loss(error):
            raise
        raise BackendError(
            f"another process of this training ended ({' '.join(str(error).split())[:120]}); expected all of them; "
            "look at its own last line, then start all again with --resume"
        ) from error

"""How much memory a pass of a layer may take: what the layer says, else an environment variable."""

import os
from typing import Any

from mponet.errors import PlanError

VARIABLE = "MPONET_MEMORY"


def checked_memory(memory: Any) -> int | None:
    """Bytes as the ``memory`` of a layer.

    Raises:
        PlanError: it is neither None nor a whole number of bytes.

    >>> checked_memory(1_000_000)
    1000000
    """
    if memory is None or (type(memory) is int and memory >= 0):
        return memory
    raise PlanError(
        f"memory is {memory!r}; expected a whole number of bytes, at least 0, or None; "
        "None leaves the limit to the size of the layer"
    )


def memory_budget(memory: int | None = None) -> int | None:
    """The ``memory`` of a layer, else what ``MPONET_MEMORY`` says; None if neither is given.

    Raises:
        PlanError: the variable is not a whole number of bytes.
    """
    if memory is not None:
        return memory
    said = os.environ.get(VARIABLE, "").strip().strip("'\"").strip()
    if not said:
        return None
    if not (said.isascii() and said.isdigit()):
        raise PlanError(
            f"{VARIABLE} is {said!r}; expected a whole number of bytes, such as 16000000; "
            "unset it to leave the limit to the size of each layer"
        )
    return int(said)

"""The processes that train one model together, by `jax.distributed`."""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mponet.errors import BackendError
from mponet.group import ALONE, Group, losing

#: Axis of the mesh that rows of a batch are spread over.
DATA = "data"
#: Of an array that every device holds.
WHOLE = PartitionSpec()
#: Words in the messages of lost connections.
LOST = ("gloo", "nccl", "heartbeat", "coordination", "unavailable", "deadline_exceeded")


def group() -> Group:
    """The group that ``JAX_COORDINATOR_ADDRESS`` names; one process where it is not set.

    ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` say the rest; without them JAX asks the cluster
    (SLURM, MPI, Kubernetes).
    """
    if os.environ.get("JAX_COORDINATOR_ADDRESS") and not jax.distributed.is_initialized():
        told = {"num_processes": "JAX_NUM_PROCESSES", "process_id": "JAX_PROCESS_ID"}
        numbers: dict[str, Any] = {key: int(os.environ[name]) for key, name in told.items() if name in os.environ}
        with _stdout_to_stderr():
            jax.distributed.initialize(**numbers)
            if jax.process_count() > 1:
                _agree(True)
    count = jax.process_count() if jax.distributed.is_initialized() else 1
    return ALONE if count == 1 else Group(jax.process_index(), count, _agree, _losing)


@lru_cache(maxsize=1)
def mesh() -> Mesh:
    """All devices of all processes, along the axis ``data``."""
    return Mesh(np.array(jax.devices()), (DATA,))


def share(shape: tuple[int, ...]) -> PartitionSpec:
    """How an array is spread over the devices: along its longest axis that divides among them."""
    count = mesh().size
    axis = max((k for k, size in enumerate(shape) if size % count == 0), key=lambda k: shape[k], default=None)
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, DATA)


def placed(value: Any, spec: PartitionSpec = WHOLE) -> Any:
    """An array of the whole mesh, from the same numbers in every process."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(placed(jax.random.key_data(value)), impl=jax.random.key_impl(value))
    numbers = np.asarray(value)
    return jax.make_array_from_callback(numbers.shape, NamedSharding(mesh(), spec), lambda index: numbers[index])


def kept(tree: Any, *, whole: bool = False) -> Any:
    """Within a compiled step, arrays as devices keep them between steps: each a share, or whole."""

    def keep(value: Any) -> Any:
        return jax.lax.with_sharding_constraint(value, NamedSharding(mesh(), WHOLE if whole else share(value.shape)))

    return jax.tree.map(keep, tree)


def batched(rows: Any) -> Any:
    """The whole batch, of which each process gives its rows."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh(), PartitionSpec(DATA)), np.asarray(rows))


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Keep standard output for results: Gloo prints there as it connects, past Python."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _is_loss(error: Exception) -> bool:
    """Whether an error of the runtime tells of a lost process."""
    return isinstance(error, jax.errors.JaxRuntimeError) and any(word in str(error).lower() for word in LOST)


@contextmanager
def _losing() -> Iterator[None]:
    """Raise a `BackendError` for a lost process; this one then skips JAX's shutdown at exit."""
    try:
        with losing(_is_loss):
            yield
    except BackendError:
        atexit.register(_leave)
        raise


def _leave() -> None:
    """End the process here: JAX would wait for the lost one for minutes, and abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _agree(value: bool) -> bool:
    with _losing():
        return bool(multihost_utils.process_allgather(np.asarray(value))[0])

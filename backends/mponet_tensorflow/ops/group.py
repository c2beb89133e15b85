"""The processes that train one model together, by `tf.distribute.MultiWorkerMirroredStrategy`."""

import json
import os
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from mponet.errors import BackendError
from mponet.group import ALONE, Group, losing
from mponet_tensorflow.ops.arrays import Array, tf


def group() -> Group:
    """The group that ``TF_CONFIG`` names; one process where it names none.

    Raises:
        BackendError: ``TF_CONFIG`` is not usable.
    """
    count = len(_workers())
    if count < 2:
        return ALONE
    resolved = strategy().cluster_resolver
    return Group(int(resolved.task_id), count, _agree, _losing)


@lru_cache(maxsize=1)
def strategy() -> Any:
    """The strategy of all processes, made once, since it opens connections."""
    return tf.distribute.MultiWorkerMirroredStrategy()


def averaged(values: Sequence[Array]) -> list[Array]:
    """The means over all processes, within `tf.distribute.Strategy.run`."""
    context = tf.distribute.get_replica_context()
    return list(context.all_reduce(tf.distribute.ReduceOp.MEAN, list(values)))


def _workers() -> list[str]:
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return []
    try:
        return list(json.loads(text)["cluster"]["worker"])
    except (ValueError, LookupError, TypeError) as error:
        raise BackendError(
            f"TF_CONFIG is {text[:80]!r}; expected JSON with cluster.worker and task, as TensorFlow documents it; "
            "correct it or unset it"
        ) from error


def _is_loss(error: Exception) -> bool:
    """Whether an error tells of a lost process; collectives of others are aborted by one."""
    lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)
    return isinstance(error, lost)


_losing = partial(losing, _is_loss)


def _agree(value: bool) -> bool:
    with _losing():
        first = float(value and strategy().cluster_resolver.task_id == 0)
        means = strategy().run(_mean, args=(tf.constant(first),))
        return float(strategy().experimental_local_results(means)[0]) > 0


@tf.function(autograph=False)  # type: ignore[untyped-decorator]
def _mean(value: Array) -> Array:
    return averaged([tf.identity(value)])[0]  # a copy lies on a device, which an argument does not

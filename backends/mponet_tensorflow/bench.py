"""What `mponet bench` times on this framework, and how."""

import ctypes
import gc
import os
import re
from pathlib import Path
from typing import Any

from mponet.bench.contender import DENSE, OURS, Contender, Numbers
from mponet.errors import BackendError
from mponet.mpo import MPO
from mponet_tensorflow.arrays import Array, keras, tf, to_numpy
from mponet_tensorflow.layers import MPODense
from mponet_tensorflow.peers import PEERS

# of glibc's malloc.h, and bytes of a large block
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGE = -1, -3, 1 << 16


class Passes:
    """A layer and a batch, as `mponet.bench.contender.Passes`: under `tf.function`."""

    def __init__(self, native: Any, inputs: Numbers, slopes: Numbers) -> None:
        self.inputs, self.slopes = tf.constant(inputs), tf.constant(slopes)

        def step(inputs: Array, slopes: Array) -> tuple[Array, list[Array]]:
            variables = [v.value if isinstance(v, keras.Variable) else v for v in native.trainable_variables]
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = native(inputs)
            # outputs that nobody asks for would not be computed
            return outputs, tape.gradient(outputs, [inputs, *variables], slopes)

        self._forward = tf.function(lambda inputs: native(inputs), autograph=False)
        self._step = tf.function(step, autograph=False)

    def forward(self) -> Array:
        """The outputs."""
        return _done(self._forward(self.inputs))

    def step(self) -> tuple[Array, list[Array]]:
        """The outputs, and the gradients by the inputs and by every parameter."""
        return _done(self._step(self.inputs, self.slopes))

    def outputs(self) -> Numbers:
        """The outputs, numpy."""
        return to_numpy(self.forward())


def contenders() -> tuple[Contender, ...]:
    """Everything that takes part."""
    return (Contender(DENSE, "dense", dense), Contender(OURS, "ours", ours), *PEERS)


def settings() -> dict[str, Any]:
    """Threads and device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = tf.config.threading.get_intra_op_parallelism_threads() or cores  # 0 stands for all
    return {"threads": threads, "device": "gpu" if tf.config.list_physical_devices("GPU") else "cpu"}


def step_memory(passes: Passes) -> int:
    """Bytes that a step has in use at its peak beyond what was there before it, results included.

    TensorFlow keeps no account on a CPU: it is what the process adds to its resident memory, exact to a page or so
    because large blocks are made to go back to the system at once.

    Raises:
        BackendError: the system does not tell.
    """
    _return_at_once()
    passes.step()
    status, mark = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not mark.exists():
        raise BackendError("there is no /proc/self/clear_refs; expected Linux; measure memory there")
    gc.collect()
    mark.write_text("5", encoding="ascii")  # the peak so far becomes what is in use now
    before = _kilobytes(status, "VmRSS")
    kept = passes.step()
    peak = _kilobytes(status, "VmHWM")
    del kept
    return 1024 * (peak - before)


def ours(mpo: MPO, bias: Numbers) -> keras.layers.Layer:
    """Our layer."""
    return MPODense.from_mpo(mpo, bias)


def dense(mpo: MPO, bias: Numbers) -> keras.layers.Layer:
    """The layer of Keras with the same matrix."""
    return MPODense.from_mpo(mpo, bias).to_dense()


def _done(results: Any) -> Any:
    """The results, computed."""
    if tf.config.list_physical_devices("GPU"):
        tf.test.experimental.sync_devices()
    return results


def _return_at_once() -> None:
    """Have the C library give large blocks back when they are freed, where it is glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _LARGE)


def _kilobytes(status: Path, what: str) -> int:
    found = re.search(rf"^{what}:\s+(\d+) kB$", status.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise BackendError(f"{status} says nothing of {what}; expected Linux; measure memory there")
    return int(found[1])

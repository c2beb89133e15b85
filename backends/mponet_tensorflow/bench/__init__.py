"""Implementations of a layer in this framework that `mponet bench` times."""

import gc
import os
from typing import Any

from mponet.bench.implementation import DENSE, OURS, Implementation, Numbers
from mponet.contraction.machine import cores
from mponet.errors import BackendError
from mponet.operators.mpo import MPO
from mponet_tensorflow.bench.peers import PEERS
from mponet_tensorflow.freezing import freeze
from mponet_tensorflow.nn.linear import MPODense
from mponet_tensorflow.ops.arrays import Array, keras, tf, to_numpy

#: Has the CPU's blocks counted, all of them (`mponet.bench.process` sets it).
_COUNTING = "TF_CPU_ALLOCATOR_USE_BFC"


class Passes:
    """A layer and a batch, as `mponet.bench.implementation.Passes`: under `tf.function`."""

    def __init__(self, native: Any, inputs: Numbers, gradients: Numbers) -> None:
        self.inputs, self.gradients = tf.constant(inputs), tf.constant(gradients)

        def step(inputs: Array, gradients: Array) -> tuple[Array, list[Array]]:
            variables = [v.value if isinstance(v, keras.Variable) else v for v in native.trainable_variables]
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = native(inputs)
            # outputs that nobody asks for would not be computed
            return outputs, tape.gradient(outputs, [inputs, *variables], gradients)

        self._forward = tf.function(lambda inputs: native(inputs), autograph=False)
        self._step = tf.function(step, autograph=False)

    def forward(self) -> Array:
        """The outputs."""
        return _done(self._forward(self.inputs))

    def step(self) -> tuple[Array, list[Array]]:
        """The outputs, and the gradients by the inputs and by every parameter."""
        return _done(self._step(self.inputs, self.gradients))

    def outputs(self) -> Numbers:
        """The outputs, numpy."""
        return to_numpy(self.forward())


def implementations() -> tuple[Implementation, ...]:
    """All implementations that are compared."""
    return (Implementation(DENSE, "dense", dense), Implementation(OURS, "ours", ours), *PEERS)


def settings() -> dict[str, Any]:
    """Number of threads and device."""
    threads = tf.config.threading.get_intra_op_parallelism_threads() or cores()  # 0 stands for all
    return {"threads": threads, "device": "gpu" if tf.config.list_physical_devices("GPU") else "cpu"}


def step_memory(passes: Passes) -> int:
    """Bytes that a step has in use at its peak beyond what was there before it, results included.

    By the account of TensorFlow's allocator, of the blocks that it hands out, each less than twice
    as large as what was asked for.  A process keeps blocks that were freed, so its size says
    nothing.

    Raises:
        BackendError: on a CPU, where that account is complete only if `_COUNTING` was ``true`` when
            TensorFlow started.
    """
    gpu = bool(tf.config.list_physical_devices("GPU"))
    if not gpu and os.environ.get(_COUNTING) != "true":
        raise BackendError(
            f"{_COUNTING} is {os.environ.get(_COUNTING)!r}; expected 'true' before TensorFlow starts, or small blocks "
            "are not counted; `mponet bench memory` sets it"
        )
    device = "GPU:0" if gpu else "CPU:0"
    passes.step()
    gc.collect()
    account = tf.config.experimental
    account.reset_memory_stats(device)
    before = account.get_memory_info(device)["current"]
    kept = passes.step()
    peak = account.get_memory_info(device)["peak"]
    del kept
    return int(peak - before)


def compiled(native: Any) -> None:
    """Nothing: training steps always run under `tf.function`."""
    del native


def frozen(native: Any) -> Any:
    """A network after `freeze`."""
    return freeze(native)[0]


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

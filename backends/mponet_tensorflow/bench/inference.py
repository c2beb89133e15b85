"""What `mponet bench inference` times in this framework."""

from collections.abc import Callable, Mapping
from typing import Any

from mponet.bench.implementation import DENSE, OURS, Numbers
from mponet.bench.inference import FROZEN, MAP, InferenceRow
from mponet.bench.layers import problem
from mponet.bench.rows import Row
from mponet_tensorflow.bench.peers import LowRank
from mponet_tensorflow.freezing import freeze
from mponet_tensorflow.nn.convolution import MPOConv2D
from mponet_tensorflow.nn.embedding import MPOEmbedding
from mponet_tensorflow.nn.linear import MPODense
from mponet_tensorflow.ops.arrays import Array, keras, tf, to_numpy

MODES = ("tf.function",)


def layers(row: InferenceRow) -> Mapping[str, Any]:
    """The implementations by name, and under ``kept`` what the frozen layer keeps."""
    ours, others = _layer(row)
    frozen, report = freeze(ours)
    (kept,) = report.layers.values()
    words = {"plan": kept.kept, "bytes": kept.nbytes, "dense bytes": kept.matrix_nbytes}
    return {DENSE: ours.to_dense(), OURS: ours, FROZEN: frozen, **others, "kept": words}


def call(native: Any, inputs: Numbers, mode: str) -> Callable[[], Array]:
    """A forward pass under `tf.function`, ready to run."""
    rows = tf.constant(inputs)
    run = tf.function(native, autograph=False)
    if not tf.config.list_physical_devices("GPU"):
        return lambda: run(rows)

    def waiting() -> Array:
        result = run(rows)
        tf.test.experimental.sync_devices()
        return result

    return waiting


def outputs(result: Array) -> Numbers:
    """The result of a call as a numpy array."""
    return to_numpy(result)


def _layer(row: InferenceRow) -> tuple[Any, dict[str, keras.layers.Layer]]:
    """Our layer, and what is timed besides."""
    shape = row.shape
    if row.kind == "convolution":
        ours = MPOConv2D(shape.out_features, 3, row.bond, padding="same", seed=0)
        ours.build((None, MAP, MAP, shape.in_features))
        return ours, {}
    if row.kind == "embedding":
        dims = {"input_dims": shape.input_dims, "output_dims": shape.output_dims}
        ours = MPOEmbedding(shape.in_features, shape.out_features, row.bond, seed=0, **dims)
        ours.build()
        return ours, {}
    mpo, bias, _, _ = problem(Row(row.name, shape, 1))
    return MPODense.from_mpo(mpo, bias), {"low rank": LowRank.of(mpo, bias)}

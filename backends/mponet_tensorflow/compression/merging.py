"""`merge`: operators in a model back to ordinary layers."""

from typing import Any, TypeVar

from mponet.compress.merging import MergeReport, deviation
from mponet_tensorflow.compression.duplicate import compile_as, copied
from mponet_tensorflow.compression.graph import named_layers, put
from mponet_tensorflow.compression.modules import OPERATORS
from mponet_tensorflow.nn.convolution import MPOConv1D, MPOConv2D
from mponet_tensorflow.nn.einsum import MPOEinsumDense
from mponet_tensorflow.nn.embedding import MPOEmbedding
from mponet_tensorflow.ops.arrays import keras, to_numpy

Module = TypeVar("Module", bound=keras.Model)


def merge(model: Module, *, in_place: bool = False) -> tuple[Module, MergeReport]:
    """A model with ordinary layers instead of operators, and how far they are from these.

    Every `MPODense` becomes a `keras.layers.Dense`, an `MPOEinsumDense` a
    `keras.layers.EinsumDense`; convolutions and embeddings become those of Keras.  Matrices are
    multiplied out in float64 and stored in the layer's dtype.

    Args:
        model: a compressed model, or any other that holds layers of mponet.
        in_place: whether to replace the layers of ``model`` itself, which saves the memory of a
            copy.

    Raises:
        CompressionError: numbers are not finite.  The model is unchanged then.

    Example:
        >>> import keras
        >>> from mponet.compress import CompressConfig
        >>> from mponet_tensorflow import compress, merge
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(96)])
        >>> small, _ = compress(model, CompressConfig(keep=0.5))
        >>> dense, report = merge(small)
        >>> isinstance(dense.layers[0], keras.layers.Dense), report.deviation < 1e-6
        (True, True)
    """
    if isinstance(model, OPERATORS):
        dense = _merged(model)
        return dense, MergeReport({"": _deviation("", model, dense)})
    model = model if in_place else copied(model)
    found = {name: layer for name, layer in named_layers(model).items() if isinstance(layer, OPERATORS)}
    merged = {name: _merged(layer) for name, layer in found.items()}
    report = MergeReport({name: _deviation(name, found[name], dense) for name, dense in merged.items()})
    for name, dense in merged.items():
        put(model, found[name], dense)
    if merged:
        compile_as(model, model)
    return model, report


def _merged(layer: Any) -> Any:
    """The ordinary layer; an embedding that is an output head, too, stays both."""
    dense = layer.to_dense()
    if not isinstance(layer, MPOEmbedding) or layer._dense_type is type(dense):
        return dense
    table = to_numpy(dense.embeddings)
    dense = layer._dense_type.from_config(dense.get_config())
    dense.build()
    layer._write(dense.embeddings, table)
    return dense


def _deviation(name: str, layer: Any, dense: Any) -> float:
    if isinstance(layer, MPOEmbedding):
        return deviation(name, layer.to_table(), to_numpy(dense.embeddings))
    kernel = to_numpy(dense.kernel)
    if isinstance(layer, MPOConv1D | MPOConv2D):
        return deviation(name, layer.to_kernel(), kernel)
    if isinstance(layer, MPOEinsumDense):
        kernel = kernel.transpose(layer.einsum.kernel_axes)
    return deviation(name, layer.to_matrix(), kernel)

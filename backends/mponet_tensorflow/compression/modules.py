"""Layers of Keras that hold a matrix.

For each kind it says how the matrix is read, and which layer replaces it.

A kind of layer is an entry of `KINDS`.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.compress.convolution import kernel_operator
from mponet.compress.fitting import FittedLayer
from mponet.compress.target import Target
from mponet.errors import InputError, MPONetError
from mponet.layers.einsum import MatrixEinsum
from mponet.layers.window import Window
from mponet_tensorflow.nn.convolution import MPOConv1D, MPOConv2D
from mponet_tensorflow.nn.einsum import MPOEinsumDense, as_rows
from mponet_tensorflow.nn.embedding import MPOEmbedding
from mponet_tensorflow.nn.linear import MPODense
from mponet_tensorflow.nn.network import NetworkDense
from mponet_tensorflow.ops.arrays import Array, keras, tf

#: Layers that are operators already.
OPERATORS = (MPODense, NetworkDense, MPOEinsumDense, MPOConv1D, MPOConv2D, MPOEmbedding)
#: ``sum x^T x``, ``sum x`` and the number of rows of some inputs.
Sums = tuple[NDArray[np.float64], NDArray[np.float64], int]
#: Rows that are turned to float64 at a time.
ROWS_AT_ONCE = 16384


#: End of the name of the second use of a `keras.layers.ReversibleEmbedding`.
REVERSE = ".reverse"


@dataclass(frozen=True, slots=True)
class ReverseUse:
    """A `keras.layers.ReversibleEmbedding` as an output head, called with ``reverse=True``.

    Attributes:
        embedding: the layer.
    """

    embedding: Any


@dataclass(frozen=True, slots=True)
class ModuleKind:
    """How one kind of layer is described and replaced.

    Attributes:
        recognise: whether a layer is of the kind.
        describe: the target of a layer, from its name.
        sums: sums over the rows that the layer multiplies with, from its input.
        build: the layer that takes the place, from the layer and the fitted one.
        gradient_rows: rows ``(n, out)`` of the gradient at a layer's output.
        reading: what decides which rows are made of an input; layers that read the same array, and
            agree in it, share sums.
    """

    recognise: Callable[[Any], bool]
    describe: Callable[[str, Any], Target]
    sums: Callable[[Any, Array], Sums]
    build: Callable[[Any, FittedLayer], Any]
    gradient_rows: Callable[[Any, Array], Array]
    reading: Callable[[Any], Hashable]


def kind_of(module: Any) -> ModuleKind | None:
    """The kind of a layer; None if it is of none, or has no weights yet."""
    if not layer_of(module).built:
        return None
    return next((kind for kind in KINDS if kind.recognise(module)), None)


def type_name(module: Any) -> str:
    """``keras.layers.Dense`` as users write it."""
    cls = type(module)
    return f"keras.layers.{cls.__name__}" if cls.__module__.startswith("keras.") else cls.__name__


def layer_of(module: Any) -> Any:
    """The layer of a use."""
    return module.embedding if isinstance(module, ReverseUse) else module


def is_reversed(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a layer with these arguments is called as an output head."""
    return bool(kwargs.get("reverse", len(args) > 1 and args[1] is True))


def weight_of(module: Any) -> Any:
    """The variable that holds the matrix of a layer of some kind."""
    return module._embeddings if isinstance(module, keras.layers.Embedding) else module._kernel


def _target(name: str, module: Any, base: Any, layer: Any, **sizes: Any) -> Target:
    """A target whose weight the class ``layer`` reads.

    What that refuses is the reason why it is left alone.
    """
    problem = ""
    if type(module).call is not base.call:
        problem = f"{type_name(module)} has a call of its own; only that of keras.layers.{base.__name__} is supported"
    elif module.quantization_mode is not None:
        problem = f"it is quantised to {module.quantization_mode}; compress before quantising"
    else:
        try:
            layer._dense_weights(module)
        except MPONetError as error:
            problem = str(error)
    bias = getattr(module, "bias", None)

    def load() -> NDArray[np.float64]:
        matrix = layer._dense_weights(module).matrix
        return matrix.reshape(-1, matrix.shape[-1]).astype(np.float64)  # type: ignore[no-any-return]

    return Target(
        name=name,
        type_name=type_name(module),
        load=load,
        load_bias=None if bias is None else lambda: layer._dense_weights(module).bias.astype(np.float64),
        itemsize=tf.as_dtype(weight_of(module).dtype).size,
        **{"unsupported": problem, **sizes},
    )


# ---------------------------------------------------------------- linear layers


def _describe_dense(name: str, module: Any) -> Target:
    inputs, outputs = weight_of(module).shape
    sizes = {"kind": "linear", "in_features": inputs, "out_features": outputs}
    return _target(name, module, keras.layers.Dense, MPODense, **sizes)


def linear_rows(module: Any, inputs: Array) -> Array:
    """The rows ``(n, in)`` that a dense layer or an einsum multiplies with its matrix."""
    if not isinstance(module, keras.layers.EinsumDense):
        return tf.reshape(inputs, (-1, inputs.shape[-1]))
    einsum = MatrixEinsum.parse(module.equation)
    return as_rows(inputs, einsum.input_axes(inputs.shape.rank), einsum.dims(weight_of(module).shape)[0])[0]


def _linear_sums(module: Any, inputs: Array) -> Sums:
    return _row_sums(linear_rows(module, inputs))


def _reads_last(module: Any) -> Hashable:
    return "last", weight_of(module).shape[0]


def _build_dense(module: Any, fitted: FittedLayer) -> Any:
    options = MPODense._dense_weights(module).options
    return _adopted(MPODense.from_mpo(fitted.mpo, fitted.bias, **options), module)


# ---------------------------------------------------------------- einsums


def _describe_einsum(name: str, module: Any) -> Target:
    kernel = tuple(weight_of(module).shape)
    try:
        inputs, outputs = MatrixEinsum.parse(module.equation).matrix_shape(kernel)
    except MPONetError:  # it is the reason why the layer is left alone
        inputs, outputs = int(np.prod(kernel[:-1])), kernel[-1]
    sizes = {"kind": "linear", "in_features": inputs, "out_features": outputs}
    return _target(name, module, keras.layers.EinsumDense, MPOEinsumDense, **sizes)


def _reads_axes(module: Any) -> Hashable:
    einsum = MatrixEinsum.parse(module.equation)
    rows = einsum.contracted
    last = einsum.inputs[-len(rows) :] == rows
    return ("last", einsum.matrix_shape(weight_of(module).shape)[0]) if last else (einsum.inputs, rows)


def _build_einsum(module: Any, fitted: FittedLayer) -> Any:
    options = MPOEinsumDense._dense_weights(module).options
    return _adopted(MPOEinsumDense.from_mpo(fitted.mpo, fitted.bias, **options), module)


def _features_apart(module: Any, gradient: Array) -> Array:
    """Features are put last, in the order of the matrix."""
    einsum = MatrixEinsum.parse(module.equation)
    axes = [int(axis) for axis in np.argsort(einsum.output_axes(gradient.shape.rank))]
    return as_rows(gradient, axes, einsum.dims(weight_of(module).shape)[1])[0]


# ---------------------------------------------------------------- convolutions


def _layer_of(module: Any) -> Any:
    return MPOConv1D if isinstance(module, keras.layers.Conv1D) else MPOConv2D


def _describe_convolution(name: str, module: Any) -> Target:
    *window, inner, outputs = weight_of(module).shape
    problem = {} if module.groups == 1 else {"unsupported": f"it has {module.groups} groups; only one is supported"}
    return _target(
        name,
        module,
        keras.layers.Conv1D if len(window) == 1 else keras.layers.Conv2D,
        _layer_of(module),
        kind="convolution",
        in_features=int(np.prod(window)) * inner,
        out_features=outputs,
        input_dims=(*window, inner),
        **problem,
    )


def _convolution_sums(module: Any, inputs: Array) -> Sums:
    """Of the patches ``(*window, channels)`` that the kernel is multiplied with."""
    window = _window_of(module)
    rank = len(window.size)
    maps = inputs if module.data_format == "channels_last" else tf.transpose(inputs, (0, *range(2, rank + 2), 1))
    maps = tf.pad(maps, ((0, 0), *window.pads(tuple(maps.shape[1:-1])), (0, 0)))
    size, stride, rate = window.size, window.stride, window.dilation
    if rank == 1:
        maps, size, stride, rate = maps[:, None], (1, *size), (1, *stride), (1, *rate)
    channels = maps.shape[-1]
    total: Sums | None = None
    for k in range(maps.shape[0]):  # the patches of one map are as many times as large as the window
        patches = tf.image.extract_patches(maps[k : k + 1], (1, *size, 1), (1, *stride, 1), (1, *rate, 1), "VALID")
        part = _row_sums(tf.reshape(patches, (-1, int(np.prod(size)) * channels)))
        total = part if total is None else tuple(a + b for a, b in zip(total, part, strict=True))  # type: ignore[assignment]
    assert total is not None
    return total


def _window_of(module: Any) -> Window:
    return Window.of(module.kernel_size, module.strides, module.padding, module.dilation_rate)


def _reads_patches(module: Any) -> Hashable:
    return "patches", _window_of(module), module.data_format


def _build_convolution(module: Any, fitted: FittedLayer) -> Any:
    layer = _layer_of(module)
    structure, mpo = kernel_operator(fitted)
    options = layer._dense_weights(module).options
    built = layer.from_mpo(mpo, fitted.bias, kernel_size=module.kernel_size, structure=structure, **options)
    return _adopted(built, module)


# ---------------------------------------------------------------- embeddings


def _describe_embedding(name: str, module: Any) -> Target:
    base, problem = keras.layers.Embedding, {}
    if isinstance(module, keras.layers.ReversibleEmbedding):
        base = keras.layers.ReversibleEmbedding
        if odd := [n for n in ("reverse_dtype", "logit_soft_cap") if getattr(module, n) is not None]:
            problem = {"unsupported": f"its {odd[0]} is {getattr(module, odd[0])}; expected None"}
        elif not module.tie_weights:
            problem = {"unsupported": "tie_weights is off, so that its output head has a table of its own"}
    sizes = {"kind": "embedding", "in_features": module.input_dim, "out_features": module.output_dim}
    return _target(name, module, base, MPOEmbedding, **sizes, **problem)


def _describe_reverse(name: str, use: Any) -> Target:
    table = _describe_embedding(name.removesuffix(REVERSE), use.embedding)
    return replace(
        table,
        name=name,
        kind="linear",
        in_features=table.out_features,
        out_features=table.in_features,
        load=lambda: table.load().T,
        tied_to=table.name,
        transposed=True,
    )


def _build_nothing(use: Any, fitted: FittedLayer) -> Any:
    raise InputError(f"{fitted.name} is a second use of {use.embedding.name}; expected the layer itself")


def _reads_features(use: Any) -> Hashable:
    return "last", use.embedding.output_dim


def _embedding_sums(module: Any, inputs: Array) -> Sums:
    tokens = tf.cast(inputs, tf.int64).numpy().reshape(-1)
    counts = np.bincount(tokens, minlength=module.input_dim).astype(np.float64)
    return counts, counts, tokens.size


def _reads_tokens(module: Any) -> Hashable:
    return "tokens", module.input_dim


def _build_embedding(module: Any, fitted: FittedLayer) -> Any:
    options = MPOEmbedding._dense_weights(module).options
    built = MPOEmbedding.from_mpo(fitted.mpo, num_embeddings=module.input_dim, **options)
    built._dense_type = type(module)  # what merge makes of it again
    return _adopted(built, module)


# ---------------------------------------------------------------- all kinds


def _row_sums(rows: Array) -> Sums:
    products, total = 0.0, 0.0
    for k in range(0, max(len(rows), 1), ROWS_AT_ONCE):
        exact = tf.cast(rows[k : k + ROWS_AT_ONCE], tf.float64)
        products, total = products + tf.matmul(exact, exact, transpose_a=True), total + tf.reduce_sum(exact, 0)
    return products.numpy(), total.numpy(), len(rows)


def _features_last(_: Any, gradient: Array) -> Array:
    return tf.reshape(gradient, (-1, gradient.shape[-1]))


def _channels(module: Any, gradient: Array) -> Array:
    if module.data_format == "channels_first":
        gradient = tf.transpose(gradient, (0, *range(2, len(module.kernel_size) + 2), 1))
    return tf.reshape(gradient, (-1, gradient.shape[-1]))


def _adopted(layer: Any, module: Any) -> Any:
    """The layer as trainable as the one that it replaces, with its penalty on outputs."""
    layer._adopt(module)
    return layer


#: The kinds, the first that recognises a layer counts.
KINDS: tuple[ModuleKind, ...] = (
    ModuleKind(
        lambda module: isinstance(module, keras.layers.Dense),
        _describe_dense,
        _linear_sums,
        _build_dense,
        _features_last,
        _reads_last,
    ),
    ModuleKind(
        lambda module: isinstance(module, keras.layers.EinsumDense),
        _describe_einsum,
        _linear_sums,
        _build_einsum,
        _features_apart,
        _reads_axes,
    ),
    ModuleKind(
        lambda module: isinstance(module, keras.layers.Conv1D | keras.layers.Conv2D),
        _describe_convolution,
        _convolution_sums,
        _build_convolution,
        _channels,
        _reads_patches,
    ),
    ModuleKind(
        lambda module: isinstance(module, keras.layers.Embedding),
        _describe_embedding,
        _embedding_sums,
        _build_embedding,
        _features_last,
        _reads_tokens,
    ),
    ModuleKind(
        lambda module: isinstance(module, ReverseUse),
        _describe_reverse,
        _linear_sums,
        _build_nothing,
        _features_last,
        _reads_features,
    ),
)

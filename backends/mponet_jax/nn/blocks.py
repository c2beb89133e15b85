"""Modules for the words of the vocabulary that nnx itself has no module, or no exact one, for.

They know nothing of models, and work in any network of yours.  Feature maps are ``(batch, height,
width, channels)`` as everywhere in flax.  `nnx.Module.train` and `nnx.Module.eval` switch those
that differ between training and inference.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from mponet.errors import ModelError
from mponet_jax.ops.arrays import Array, accumulator


class Sequential(nnx.Module):
    """Modules one after the other, each an attribute under its name.

    Without any, inputs come out as they are.

    Args:
        modules: by name, in order.
        model: the `mponet.models.spec.Model` that they were lowered from, if they were.
    """

    def __init__(self, modules: Mapping[str, nnx.Module], model: Any = None) -> None:
        self._model = model
        self._order = tuple(modules)
        for name, module in modules.items():
            setattr(self, name, module)

    @property
    def mponet_model(self) -> Any:
        """What it was made from."""
        return self._model

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self._order)

    def __call__(self, inputs: Array) -> Array:
        """What the last of them gives."""
        for module in self:
            inputs = module(inputs)
        return inputs


class ReLU(nnx.Module):
    """``max(x, 0)``."""

    def __call__(self, inputs: Array) -> Array:
        """Of each number."""
        return nnx.relu(inputs)


class BatchNorm(nnx.Module):
    """Batch norm over the last axis, with the state of `nnx.BatchNorm`.

    It computes ``(x - mean) / sqrt(variance + epsilon) * scale + bias``.

    In training, mean and variance are those of the batch, the variance divided by the number of
    values; the running ones follow.  `nnx.BatchNorm` by default takes the variance as ``E[x^2] -
    E[x]^2``, which in float32 leaves nothing of it where the mean is some thousand times the
    spread.  Here the mean is taken off first; and statistics are in float32 at least, which does
    not make wider numbers of half precision behind it.

    Args:
        features: length of the last axis.
        decay: share of the running statistics that a step keeps.
        epsilon: added to the variance.
        param_dtype: dtype of scale and bias.
    """

    def __init__(
        self, features: int, decay: float = 0.99, epsilon: float = 1e-3, *, param_dtype: Any = jnp.float32
    ) -> None:
        self.scale = nnx.Param(jnp.ones(features, param_dtype))
        self.bias = nnx.Param(jnp.zeros(features, param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros(features, accumulator(param_dtype)))
        self.var = nnx.BatchStat(jnp.ones(features, accumulator(param_dtype)))
        self.decay = decay
        self.epsilon = epsilon
        self.use_running_average = False

    def __call__(self, inputs: Array) -> Array:
        """The norm of the batch in training, of the running statistics otherwise."""
        scale, bias = self.scale[...], self.bias[...]
        wide = inputs.astype(accumulator(inputs.dtype))
        mean, variance = self._running() if self.use_running_average else self._batch(wide)
        outputs = (wide - mean) * (lax.rsqrt(variance + self.epsilon) * scale) + bias
        return outputs.astype(jnp.promote_types(inputs.dtype, scale.dtype))

    def _running(self) -> tuple[Array, Array]:
        return self.mean[...], self.var[...]

    def _batch(self, inputs: Array) -> tuple[Array, Array]:
        found = _moments(inputs)
        for running, batch in zip((self.mean, self.var), found, strict=True):
            moved = self.decay * running[...] + (1 - self.decay) * batch
            running[...] = lax.stop_gradient(moved).astype(running.dtype)
        return found


@jax.custom_jvp
def _moments(inputs: Array) -> tuple[Array, Array]:
    """Mean and variance, divided by the number of values, over all axes but the last."""
    axes = tuple(range(inputs.ndim - 1))
    mean = inputs.mean(axes)
    return mean, lax.square(inputs - mean).mean(axes)


@_moments.defjvp
def _moments_forward(primals: tuple[Array], tangents: tuple[Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The variance as a function of its mean is at a minimum.

    What JAX would add for it is zero, at a pass over all.
    """
    (inputs,), (direction,) = primals, tangents
    axes = tuple(range(inputs.ndim - 1))
    mean, variance = _moments(inputs)
    return (mean, variance), (direction.mean(axes), 2 * ((inputs - mean) * direction).mean(axes))


class Dropout(nnx.Dropout):
    """`nnx.Dropout`, which can be told what to keep.

    Attributes:
        kept: boolean, the shape of the inputs: the values to keep, in inference as well; None for
            flax's own ways. `mponet_jax.lower.dropping` sets it.  It is data, as parameters are: a
            compiled function that is given the module takes another mask without being compiled
            again.
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(rate, **kwargs)
        self.kept: Array | None = nnx.data(None)

    def __call__(self, inputs: Array, **kwargs: Any) -> Array:
        """The values kept, divided by the share of them.

        Raises:
            ModelError: the mask has another shape.
        """
        if self.kept is None:
            return super().__call__(inputs, **kwargs)
        if self.kept.shape != inputs.shape:
            raise ModelError(f"the mask of a dropout has the shape {self.kept.shape}; expected {inputs.shape}")
        return inputs * (self.kept.astype(inputs.dtype) / (1 - self.rate))


class MaxPool(nnx.Module):
    """Largest value of each ``size x size`` window, no padding."""

    def __init__(self, size: int, stride: int) -> None:
        self.size = size
        self.stride = stride

    def __call__(self, inputs: Array) -> Array:
        """``(batch, height, width, channels)`` to fewer rows and columns."""
        window, strides = (self.size, self.size), (self.stride, self.stride)
        pooled: Array = nnx.max_pool(inputs, window, strides, "VALID")
        return pooled


class AvgPool(nnx.Module):
    """Mean of each ``size x size`` window, no padding."""

    def __init__(self, size: int, stride: int) -> None:
        self.size = size
        self.stride = stride

    def __call__(self, inputs: Array) -> Array:
        """``(batch, height, width, channels)`` to fewer rows and columns."""
        window, strides = (self.size, self.size), (self.stride, self.stride)
        pooled: Array = nnx.avg_pool(inputs, window, strides, "VALID")
        return pooled


class FlattenNHWC(nnx.Module):
    """Flatten feature maps to vectors, channels fastest.

    ``(batch, height, width, channels)`` becomes ``(batch, height * width * channels)``.
    """

    def __call__(self, inputs: Array) -> Array:
        """The feature maps as vectors; vectors stay as they are."""
        return inputs.reshape(inputs.shape[0], prod(inputs.shape[1:]))


class ReshapeNHWC(nnx.Module):
    """`FlattenNHWC` backwards: vectors, channels fastest, to feature maps.

    Args:
        shape: ``(height, width, channels)``.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __call__(self, inputs: Array) -> Array:
        """``(batch, height * width * channels)`` to ``(batch, height, width, channels)``."""
        return inputs.reshape(inputs.shape[0], *self.shape)


class PadChannels(nnx.Module):
    """Feature maps with ``channels`` channels of zeros behind their own."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def __call__(self, inputs: Array) -> Array:
        """``(..., n)`` to ``(..., n + channels)``."""
        return jnp.pad(inputs, [(0, 0)] * (inputs.ndim - 1) + [(0, self.channels)])


class Residual(nnx.Module):
    """``body(x) + shortcut(x)``; without a shortcut, ``body(x) + x``."""

    def __init__(self, body: nnx.Module, shortcut: nnx.Module | None = None) -> None:
        self.body = body
        self.shortcut = Sequential({}) if shortcut is None else shortcut

    def __call__(self, inputs: Array) -> Array:
        """The sum of both branches."""
        total: Array = self.body(inputs) + self.shortcut(inputs)
        return total


class Concat(nnx.Module):
    """``x`` and behind it, along the last axis, ``body(x)``."""

    def __init__(self, body: nnx.Module) -> None:
        self.body = body

    def __call__(self, inputs: Array) -> Array:
        """``(..., n)`` to ``(..., n + k)``."""
        return jnp.concatenate((inputs, self.body(inputs)), axis=-1)

"""Modules for the words of the vocabulary that torch itself has no exact module for.

They know nothing of models, and work in any network of yours: feature maps are ``(batch, channels,
height, width)`` as everywhere in torch, best in channels-last memory, which all of them keep.
"""

from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.nn import functional

from mponet.errors import ModelError
from mponet_torch.ops.arrays import Array
from mponet_torch.ops.group import summed


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """`torch.nn.BatchNorm2d` of maps or vectors, with the biased running variance.

    The biased variance is that of the batch itself.

    torch divides by one value less than there are before it takes the variance into the running
    one.  Its kernel stays in use: the old running variance is put on the same footing first, and
    the result taken back.  Its ``num_batches_tracked`` is kept for the sake of ``state_dict``, and
    not counted.

    Args:
        num_features: channels, or length of the vectors.
        eps: added to the variance.
        momentum: share of the batch in the running statistics.

    Attributes:
        synchronized: whether the batch is spread over the processes of `torch.distributed`, and its
            statistics are those of all of it.
    """

    synchronized = False

    def __init__(self, num_features: int, eps: float = 1e-3, momentum: float = 0.01) -> None:
        super().__init__(num_features, eps=eps, momentum=momentum)

    def forward(self, inputs: Array) -> Array:
        """The norm of the batch in training, of the running statistics otherwise.

        Raises:
            ModelError: in training, there is one value for each channel: it has no spread to be
                divided by.
        """
        self._check_input_dim(inputs)
        if not self.training:
            return super().forward(inputs)
        count = inputs.numel() // inputs.shape[1]
        if count == 1:
            raise ModelError(
                f"a batch norm in training gets {tuple(inputs.shape)}, one value for each channel; expected two or "
                "more; train with a larger batch, or call eval() first"
            )
        if self.synchronized:
            return self._synchronized(inputs, count)
        # a tensor of its own: autograd holds what batch_norm was given, and refuses to see it
        # change
        assert self.running_var is not None and self.momentum is not None  # they may be in torch's own, not here
        variance = self.running_var * (count / (count - 1))
        outputs = functional.batch_norm(
            inputs, self.running_mean, variance, self.weight, self.bias, True, self.momentum, self.eps
        )
        torch.mul(variance, (count - 1) / count, out=self.running_var)
        return outputs

    def _synchronized(self, inputs: Array, count: int) -> Array:
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(inputs.ndim)]
        total = count * dist.get_world_size()
        mean = summed(inputs.sum(axes)) / total
        centred = inputs - mean.reshape(shape)
        variance = summed(centred.square().sum(axes)) / total
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        scale = (variance + self.eps).rsqrt() * self.weight
        return centred * scale.reshape(shape) + self.bias.reshape(shape)

    def _check_input_dim(self, input: Array) -> None:
        if input.ndim not in (2, 4) or input.shape[1] != self.num_features:
            raise ModelError(
                f"a batch norm gets the shape {tuple(input.shape)}; expected (batch, {self.num_features}) or "
                f"(batch, {self.num_features}, height, width)"
            )


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, which can be told what to keep.

    Attributes:
        kept: boolean, the shape of the inputs: the values to keep, in `eval` mode as well; None for
            torch's own ways. `mponet_torch.lower.dropping` sets it.
    """

    kept: Array | None = None

    def forward(self, inputs: Array) -> Array:
        """The values kept, divided by the share of them.

        Raises:
            ModelError: the mask has another shape.
        """
        if self.kept is None:
            return super().forward(inputs)
        if self.kept.shape != inputs.shape:
            raise ModelError(f"the mask of a dropout is {tuple(self.kept.shape)}; expected {tuple(inputs.shape)}")
        return inputs * (self.kept.to(inputs.dtype) / (1 - self.p))


class FlattenNHWC(nn.Module):
    """Flatten feature maps to vectors, channels fastest.

    ``(batch, channels, height, width)`` becomes ``(batch, height * width * channels)``.
    """

    def forward(self, inputs: Array) -> Array:
        """The feature maps as vectors, without a copy from channels-last memory.

        Vectors stay as they are.
        """
        return _rows(inputs)


class ReshapeNHWC(nn.Module):
    """`FlattenNHWC` backwards: vectors, channels fastest, to feature maps.

    Maps are flattened first.

    Args:
        shape: ``(height, width, channels)``.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, inputs: Array) -> Array:
        """Vectors to feature maps in channels-last memory, without a copy.

        ``(batch, height * width * channels)`` becomes ``(batch, channels, height, width)``.
        """
        maps: Array = _rows(inputs).unflatten(1, self.shape)
        return maps.permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        """The shape."""
        return str(self.shape)


class PadChannels(nn.Module):
    """Feature maps with ``channels`` channels of zeros behind their own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, inputs: Array) -> Array:
        """``(batch, n, height, width)`` to ``(batch, n + channels, height, width)``."""
        return functional.pad(inputs, (0, 0, 0, 0, 0, self.channels))

    def extra_repr(self) -> str:
        """Number of channels."""
        return str(self.channels)


class PaddedConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` behind the uneven padding that TensorFlow's SAME asks for.

    Args:
        *args: as for `torch.nn.Conv2d`.
        pads: zeros ``(left, right, top, bottom)``.
        **kwargs: as for `torch.nn.Conv2d`.
    """

    def __init__(self, *args: Any, pads: tuple[int, int, int, int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pads = pads

    def forward(self, inputs: Array) -> Array:
        """The cross-correlation of the padded maps."""
        return super().forward(functional.pad(inputs, self.pads))

    def extra_repr(self) -> str:
        """What torch says, and the padding."""
        return f"{super().extra_repr()}, pads={self.pads}"  # type: ignore[no-untyped-call]


class Residual(nn.Module):
    """``body(x) + shortcut(x)``; without a shortcut, ``body(x) + x``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, inputs: Array) -> Array:
        """The sum of both branches."""
        return self.body(inputs) + self.shortcut(inputs)  # type: ignore[no-any-return]


class Concat(nn.Module):
    """``x`` and behind it, along the channels, ``body(x)``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Array) -> Array:
        """``(batch, n, height, width)`` to ``(batch, n + k, height, width)``."""
        return torch.cat((inputs, self.body(inputs)), 1)


def _rows(inputs: Array) -> Array:
    return inputs.permute(0, 2, 3, 1).flatten(1) if inputs.ndim == 4 else inputs

"""Where the window of a convolution goes.

Strides, dilations and padding, and the convolution in numpy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mponet.errors import ShapeError

Array = NDArray[np.float64]
#: ``(before, after)`` along each spatial axis.
Pads = tuple[tuple[int, int], ...]
Mode = Literal["zeros", "reflect", "replicate", "circular"]
#: What `numpy.pad` calls the modes.
NUMPY_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@dataclass(frozen=True, slots=True)
class Window:
    """How a window moves over feature maps.

    Attributes:
        size: length along each spatial axis.
        stride: steps of the window.
        dilation: distance of neighbouring entries of the window.
        padding: pairs ``(before, after)``, or ``"same"``: as little as gives ``ceil(size /
            stride)`` outputs, one more after than before if it is odd (TensorFlow's SAME).
        mode: what the padding is filled with.

    Raises:
        ShapeError: lengths differ, a number is out of range, or a name is unknown.

    Example:
        >>> window = Window.of((3, 3), stride=2, padding="same")
        >>> window.pads((8, 9)), window.output_sizes((8, 9))
        (((0, 1), (1, 1)), (4, 5))
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Literal["same"] | Pads = "same"
    mode: Mode = "zeros"

    def __post_init__(self) -> None:
        for name in ("size", "stride", "dilation"):
            numbers = getattr(self, name)
            if len(numbers) != len(self.size) or any(number < 1 for number in numbers):
                raise ShapeError(f"{name} is {numbers}; expected {len(self.size)} whole numbers of at least 1")
        if self.padding != "same" and (
            isinstance(self.padding, str)
            or len(self.padding) != len(self.size)
            or any(len(pair) != 2 or min(pair) < 0 for pair in self.padding)
        ):
            raise ShapeError(
                f"padding is {self.padding!r}; expected 'same' or a pair of numbers of at least 0 for each of the "
                f"{len(self.size)} spatial axes"
            )
        if self.mode not in NUMPY_MODES:
            raise ShapeError(f"padding mode is {self.mode!r}; expected one of {', '.join(NUMPY_MODES)}")

    @classmethod
    def of(
        cls,
        size: Sequence[int],
        stride: int | Sequence[int] | None = 1,
        padding: str | int | Sequence[int | Sequence[int]] = "valid",
        dilation: int | Sequence[int] | None = 1,
        mode: Mode = "zeros",
    ) -> "Window":
        """The window from what the frameworks take.

        Args:
            size: length along each spatial axis.
            stride: one number for all axes or one for each.
            padding: ``"same"``, ``"valid"``, ``"causal"`` (all before, one axis), in capitals or
                not; a number for all axes; or for each axis a number or a pair.
            dilation: one number for all axes or one for each.
            mode: what the padding is filled with.

        Raises:
            ShapeError: see `Window`.
        """
        window = tuple(size)
        rank = len(window)
        steps, gaps = _each(stride, rank, "stride"), _each(dilation, rank, "dilation")
        spread = tuple(gap * (length - 1) for gap, length in zip(gaps, window, strict=True))
        return cls(window, steps, gaps, _padding(padding, steps, spread), mode)

    def pads(self, sizes: Sequence[int]) -> Pads:
        """``(before, after)`` along each axis, for maps of these sizes."""
        if self.padding != "same":
            return self.padding
        pads = []
        for size, length, stride, dilation in zip(sizes, self.size, self.stride, self.dilation, strict=True):
            total = max((-(-size // stride) - 1) * stride + dilation * (length - 1) + 1 - size, 0)
            pads.append((total // 2, total - total // 2))
        return tuple(pads)

    def output_sizes(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Sizes of the outputs for maps of these sizes.

        Raises:
            ShapeError: the window is larger than the padded maps.
        """
        spans = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.size, strict=True))
        outputs = tuple(
            (size + sum(pad) - span) // stride + 1
            for size, pad, span, stride in zip(sizes, self.pads(sizes), spans, self.stride, strict=True)
        )
        if min(outputs) < 1:
            raise ShapeError(f"maps are {tuple(sizes)}, smaller than the window {self.size}; expected larger maps")
        return outputs

    @property
    def unpadded(self) -> "Window":
        """The window on maps that are padded already."""
        return Window(self.size, self.stride, self.dilation, ((0, 0),) * len(self.size))

    def along(self, axes: Sequence[int]) -> "Window":
        """The window along these axes alone; along others it has length 1 and does nothing."""
        kept = [axis in axes for axis in range(len(self.size))]
        size, stride, dilation = (
            tuple(number if keep else 1 for number, keep in zip(numbers, kept, strict=True))
            for numbers in (self.size, self.stride, self.dilation)
        )
        padding = self.padding
        if padding != "same":
            padding = tuple(pair if keep else (0, 0) for pair, keep in zip(padding, kept, strict=True))
        return Window(size, stride, dilation, padding, self.mode)

    def __str__(self) -> str:
        parts = [f"stride={self.stride}", f"padding={self.padding!r}"]
        parts += [f"dilation={self.dilation}"] if max(self.dilation) > 1 else []
        parts += [f"mode={self.mode!r}"] if self.mode != "zeros" else []
        return ", ".join(parts)


def convolve(inputs: Array, kernel: Array, window: Window, groups: int = 1) -> Array:
    """The cross-correlation of feature maps with a kernel, in numpy.

    The reference of all frameworks.

    Args:
        inputs: ``(batch, *sizes, in_channels)``.
        kernel: ``(*window, in_channels / groups, out_channels)``.
        window: strides, dilations and padding.
        groups: number of groups.

    Returns:
        ``(batch, *output_sizes, out_channels)``.

    Raises:
        ShapeError: the window is larger than the padded maps.

    Example:
        >>> maps = np.arange(4.0).reshape(1, 4, 1)
        >>> convolve(maps, np.ones((2, 1, 1)), Window.of((2,))).ravel()
        array([1., 3., 5.])
    """
    sizes, rank = inputs.shape[1:-1], len(window.size)
    outputs = window.output_sizes(sizes)
    padded = np.pad(inputs, ((0, 0), *window.pads(sizes), (0, 0)), NUMPY_MODES[window.mode])  # type: ignore[call-overload]
    spans = tuple(d * (k - 1) + 1 for d, k in zip(window.dilation, window.size, strict=True))
    views = sliding_window_view(padded, spans, axis=tuple(range(1, rank + 1)))
    steps, gaps = ([slice(None, None, number) for number in numbers] for numbers in (window.stride, window.dilation))
    views = views[(slice(None), *steps, slice(None), *gaps)]
    summed = ((rank + 1, *range(rank + 2, 2 * rank + 2)), (rank, *range(rank)))
    pairs = zip(np.split(views, groups, axis=rank + 1), np.split(kernel, groups, axis=-1), strict=True)
    joined = np.concatenate([np.tensordot(seen, part, summed) for seen, part in pairs], axis=-1)
    return joined.reshape(len(inputs), *outputs, kernel.shape[-1])


def _each(value: int | Sequence[int] | None, rank: int, name: str) -> tuple[int, ...]:
    """One number for each axis; None is 1."""
    if value is None or isinstance(value, int):
        return (1 if value is None else value,) * rank
    numbers = tuple(value)
    if len(numbers) == 1:
        numbers *= rank
    if len(numbers) != rank or not all(isinstance(number, int) for number in numbers):
        raise ShapeError(f"{name} is {value!r}; expected one whole number, or {rank}: one for each spatial axis")
    return numbers


def _padding(padding: object, stride: tuple[int, ...], spread: tuple[int, ...]) -> Literal["same"] | Pads:
    """The padding as `Window` keeps it; "same" in numbers where they do not depend on the maps."""
    rank = len(stride)
    name = padding.lower() if isinstance(padding, str) else ""
    if name == "valid":
        return ((0, 0),) * rank
    if name == "same":
        return "same" if max(stride) > 1 else tuple((total // 2, total - total // 2) for total in spread)
    if name == "causal" and rank == 1:
        return ((spread[0], 0),)
    if isinstance(padding, int):
        return ((padding, padding),) * rank
    if isinstance(padding, Sequence) and not isinstance(padding, str):
        pairs = tuple((pad, pad) if isinstance(pad, int) else tuple(pad) for pad in padding)
        pairs = pairs * rank if len(pairs) == 1 else pairs
        if len(pairs) == rank:
            return cast(Pads, pairs)  # Window checks them
    raise ShapeError(
        f"padding is {padding!r}; expected 'same', 'valid', 'causal' for one axis, a number, or a number or pair for "
        f"each of the {rank} spatial axes"
    )

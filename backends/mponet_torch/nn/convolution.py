"""`MPOConv1d`, `MPOConv2d`: convolutions whose kernel is a chain of cores."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import nn
from torch.autograd import forward_ad
from torch.fx import Proxy
from torch.nn import functional

from mponet.errors import InputError, ShapeError
from mponet.layers.conv_choice import ConvPlanSet, conv_plans
from mponet.layers.conv_layer import ConvLayer, Maps, check_maps
from mponet.layers.conv_plan import ConvPlan, ConvStep, kernels, run
from mponet.layers.convolution import ConvShape
from mponet.layers.operator import DenseWeights
from mponet.layers.window import Pads, Window
from mponet_torch.nn.blocks import PaddedConv2d
from mponet_torch.nn.calls import autocast, check_inputs, known_size, leaf
from mponet_torch.nn.dense import check_weight
from mponet_torch.nn.parameters import ParameterAccess, dtype_name
from mponet_torch.ops.arrays import OPS, Array, is_mapped, to_numpy
from mponet_torch.ops.planning import planner

Sizes = int | Sequence[int]
_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d}
_DENSE: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d}


class _MPOConv(ParameterAccess, ConvLayer):
    """What `MPOConv1d` and `MPOConv2d` share."""

    _rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        bond: Sizes,
        stride: Sizes = 1,
        padding: str | int | Sequence[int | Sequence[int]] = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        structure: str = "separable",
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        initializer: str | float = "glorot",
        seed: int | None = None,
        memory: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.shape = ConvShape.from_sizes(
            in_channels,
            out_channels,
            (kernel_size,) * self._rank if isinstance(kernel_size, int) else kernel_size,
            bond,
            groups=groups,
            structure=structure,
            sites=sites,
            input_dims=input_dims,
            output_dims=output_dims,
        )
        if self.shape.rank != self._rank:
            raise ShapeError(f"kernel_size is {kernel_size}; expected {self._rank} numbers, or one for all axes")
        self.window = Window.of(self.shape.kernel_size, stride, padding, dilation, padding_mode)  # type: ignore[arg-type]
        self.stride, self.dilation, self.padding = self.window.stride, self.window.dilation, padding
        self.padding_mode = padding_mode
        self.initializer, self.seed, self.memory = initializer, seed, memory
        self._make_parameters(bias, device, dtype)

    @property
    def in_channels(self) -> int:
        """Channels of the inputs."""
        return self.shape.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of the outputs."""
        return self.shape.out_channels

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Length of the window along each spatial axis."""
        return self.shape.kernel_size

    @property
    def groups(self) -> int:
        """Number of groups of channels."""
        return self.shape.groups

    @classmethod
    def _new(cls, shape: ConvShape, bias: bool, **options: Any) -> Self:
        mpo = shape.mpo
        return cls(
            shape.in_channels,
            shape.out_channels,
            shape.kernel_size,
            mpo.bond_dims[1:-1],
            groups=shape.groups,
            bias=bias,
            structure=shape.structure,
            input_dims=mpo.input_dims,
            output_dims=mpo.output_dims,
            **{"seed": 0, **options},
        )

    @classmethod
    def _dense_weights(cls, dense: Any) -> DenseWeights:
        wanted = _DENSE[cls._rank]
        if not isinstance(dense, wanted):
            raise InputError(f"conv is a {type(dense).__name__}; expected a torch.nn.{wanted.__name__}")
        if isinstance(dense.weight, nn.UninitializedParameter):
            raise ShapeError("conv has no weight yet; expected known sizes; call it on maps first")
        check_weight(dense, dense.weight)
        if type(dense).forward not in (wanted.forward, PaddedConv2d.forward) or "forward" in vars(dense):
            _try(dense, wanted)
        kernel = to_numpy(dense.weight)
        bias = None if dense.bias is None else to_numpy(dense.bias)
        return DenseWeights(kernel.transpose(*range(2, kernel.ndim), 1, 0), bias, cls._dense_options(dense))

    @staticmethod
    def _dense_options(dense: Any) -> dict[str, Any]:
        """Constructor arguments that carry over from a dense layer."""
        options: dict[str, Any] = {
            "stride": dense.stride,
            "padding": dense.padding,
            "dilation": dense.dilation,
            "padding_mode": dense.padding_mode,
            "groups": dense.groups,
            "device": dense.weight.device,
            "dtype": dense.weight.dtype,
        }
        if isinstance(dense, PaddedConv2d):
            left, right, top, bottom = dense.pads
            options["padding"] = ((top, bottom), (left, right))
        return options

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> Any:
        first = self.tensors[0]
        sizes: tuple[Any, ...] = self.in_channels, self.out_channels, self.kernel_size, self.stride
        options: dict[str, Any] = {
            "dilation": self.dilation,
            "groups": self.groups,
            "bias": bias is not None,
            "padding_mode": self.padding_mode,
            "device": first.device,
            "dtype": first.dtype,
        }
        pads = self.window.padding
        if pads == "same":
            raise InputError("padding is 'same' with a stride above 1, which no convolution of torch has")
        if all(before == after for before, after in pads):
            dense = _DENSE[self._rank](*sizes, tuple(before for before, _ in pads), **options)
        elif isinstance(self.padding, str) and self.padding.lower() == "same":
            dense = _DENSE[self._rank](*sizes, "same", **options)
        elif self._rank == 2 and self.padding_mode == "zeros":
            dense = PaddedConv2d(*sizes, pads=_reversed(pads), **options)
        else:
            raise InputError(f"padding is {pads}, which no {_DENSE[self._rank].__name__} of torch has")
        return self._filled(dense, matrix.transpose(-1, -2, *range(self._rank)), bias)

    def forward(self, inputs: Array) -> Array:
        """The convolution of maps ``(batch, in_channels, *sizes)``, or of one without the batch.

        Raises:
            ShapeError: the inputs have other channels or axes, or are smaller than the window.
            InputError: the inputs are not a tensor, or complex, sparse or masked.
        """
        if isinstance(inputs, Proxy):
            return leaf(self, inputs)
        check_inputs(inputs)
        single = inputs.ndim == self._rank + 1
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not tracing:  # sizes are tensors then, and a comparison would be recorded as a constant
            check_maps(self.shape, inputs.shape, -1 - self._rank, batched=not single)
        maps, bias, cores = autocast(inputs.unsqueeze(0) if single else inputs, self.bias, self.cores)
        window = self.window
        if window.mode != "zeros":
            maps = functional.pad(maps, _reversed(window.pads(maps.shape[2:])), window.mode)
            window = window.unpadded
        sizes = (maps.shape[0], *inputs.shape[-self._rank :])
        known = None if None in map(known_size, sizes) else sizes
        plans = self.plans(known, maps.dtype)
        plan, kept = self._kernels(plans, maps, cores)

        def step(state: Array, kernel: Array, step: ConvStep, window: Window) -> Array:
            return _convolved(state, kernel, step, window, bias if step.side == "last" else None)

        outputs = run(plan, window, kept, maps, step)
        return outputs.squeeze(0) if single else outputs

    def plans(self, batch: Maps | int | None, dtype: torch.dtype | None = None) -> ConvPlanSet:  # type: ignore[override]
        """The plans in use for maps ``(batch, *sizes)``; None while tracing, where they may vary.

        Args:
            batch: number and sizes of the maps.
            dtype: of the computation, under autocast; None for that of the parameters.
        """
        if batch is None:
            return self._traced_plans  # type: ignore[no-any-return]
        maps = batch if isinstance(batch, tuple) else (batch, *(None,) * self._rank)
        name = dtype_name(dtype or self.tensors[0].dtype)
        context = planner(self.tensors[0].device)
        return conv_plans(self.shape, self.window, maps[0], maps[1:], name, context, self.memory)

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        *window, inputs, outputs = self.shape.kernel_shape
        return outputs, inputs, *window

    def _dense_weight(self) -> Array:
        (kernel,) = kernels(ConvPlan(self.shape, (self.shape.sites,)), self.cores, OPS)
        return _to_weight(kernel)

    def _prepare_plans(self) -> None:
        self._traced_plans: Any = self.plans((None,) * (self._rank + 1))

    def _kernels(self, plans: ConvPlanSet, maps: Array, cores: list[Array]) -> tuple[ConvPlan, list[Array]]:
        """The plan to run, and its kernels.

        Kept ones where nothing is recorded, traced or mapped.
        """
        if (frozen := self.frozen_weights) is not None:
            return frozen.plans, frozen.weights(0, maps.dtype)  # type: ignore[return-value]
        if torch.is_grad_enabled() and any(array.requires_grad for array in (maps, *cores)):
            return plans.training, kernels(plans.training, cores, OPS)
        tracing = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
        if tracing or is_mapped(maps, *cores) or forward_ad._current_level >= 0:
            return plans.forward, kernels(plans.forward, cores, OPS)
        if self.cache is None or not self.cache.keeps(cores):
            return plans.forward, kernels(plans.forward, cores, OPS)
        with torch.no_grad():
            return plans.inference, self.cache.weights(plans.inference, cores, _kernels)

    def extra_repr(self) -> str:
        """Sizes, shape, window, counts and the plan in use."""
        return f"{self._description()}, {self.window}"


class MPOConv1d(_MPOConv):
    """`torch.nn.Conv1d` with a kernel that is a chain of cores; arguments as for `MPOConv2d`.

    With one spatial axis ``separable`` is the matrix ``(k Cin) x Cout``, the same as ``kernel``.

    Example:
        >>> layer = MPOConv1d(8, 16, 5, bond=4, padding="same")
        >>> layer(torch.ones(2, 8, 10)).shape
        torch.Size([2, 16, 10])
    """

    _rank = 1


class MPOConv2d(_MPOConv):
    """`torch.nn.Conv2d` with a kernel that is a chain of cores.

    Attributes:
        shape: sizes, structure, factors and bonds (`mponet.layers.convolution.ConvShape`).
        core1, core2, ...: one parameter per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all
            of them.
        bias: ``(out_channels,)`` or None.
        weight: the dense weight, built when it is asked for.

    Args:
        in_channels: as for `torch.nn.Conv2d`.
        out_channels: as for `torch.nn.Conv2d`.
        kernel_size: as for `torch.nn.Conv2d`.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        stride: as for `torch.nn.Conv2d`.
        padding: as for `torch.nn.Conv2d`; also ``"same"`` with a stride, as TensorFlow pads, and a
            pair ``(before, after)`` for an axis.
        dilation: as for `torch.nn.Conv2d`.
        groups: as for `torch.nn.Conv2d`.
        bias: whether to have a bias.
        padding_mode: as for `torch.nn.Conv2d`.
        structure: how the kernel is a matrix (`mponet.layers.convolution`): ``separable``,
            ``kernel``, ``channel`` or ``spatial``.
        sites: number of factors where they are chosen; None takes the smallest chain of the
            structure.
        input_dims: factors of the rows of the matrix; None chooses.
        output_dims: factors of the columns; None chooses.
        initializer: variance of the entries of the kernel, met exactly: ``glorot``, ``he``,
            ``lecun`` or a number.
        seed: seed of the starting values; None draws one from torch's generator.
        memory: bytes that states between steps may take; None for what ``MPONET_MEMORY`` says, else
            for a limit by the size of the layer.
        device: as for `torch.nn.Conv2d`.
        dtype: as for `torch.nn.Conv2d`.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.

    Example:
        >>> layer = MPOConv2d(16, 32, 3, bond=8, padding=1)
        >>> layer(torch.ones(1, 16, 8, 8)).shape
        torch.Size([1, 32, 8, 8])
        >>> sum(p.numel() for p in layer.parameters())  # the dense layer has 4640
        1184
    """

    _rank = 2


def _convolved(state: Array, kernel: Array, step: ConvStep, window: Window, bias: Array | None) -> Array:
    """One step: the channels that are carried along are folded into the batch, and come back."""
    batch, sizes = state.shape[0], state.shape[2:]
    folded = step.prefix * step.suffix > 1
    if folded:
        apart = state.reshape(batch, step.prefix, step.groups * step.inner, step.suffix, *sizes).transpose(2, 3)
        state = apart.reshape(batch * step.prefix * step.suffix, step.groups * step.inner, *sizes)
    pads = window.pads(sizes)
    if all(before == after for before, after in pads):
        padding = tuple(before for before, _ in pads)
    else:
        state, padding = functional.pad(state, _reversed(pads)), (0,) * len(pads)
    convolve = _CONVOLVE[len(sizes)]
    fused = None if folded else bias
    result: Array = convolve(state, _to_weight(kernel), fused, window.stride, padding, window.dilation, step.groups)
    if folded:
        sizes = result.shape[2:]
        apart = result.reshape(batch, step.prefix, step.suffix, step.rows, *sizes).transpose(2, 3)
        result = apart.reshape(batch, step.out_channels, *sizes)
        if bias is not None:
            result = result + bias.reshape(-1, *(1 for _ in sizes))
    return result


def _kernels(plan: ConvPlan, cores: Sequence[Array]) -> list[Array]:
    return kernels(plan, cores, OPS)


def _to_weight(kernel: Array) -> Array:
    """HWIO to OIHW; ONNX has no negative axes."""
    rank = kernel.ndim - 2
    return kernel.permute(rank + 1, rank, *range(rank))


def _reversed(pads: Pads) -> Any:
    """Pads as `torch.nn.functional.pad` takes them: the last axis first."""
    return tuple(number for pair in reversed(pads) for number in pair)


def _try(dense: Any, kind: Any) -> None:
    """Refuse a subclass that does not compute what its kernel, bias and options say."""
    window = zip(dense.kernel_size, dense.dilation, dense.stride, strict=True)
    sides = [(size - 1) * gap + 1 + 2 * stride for size, gap, stride in window]
    maps = torch.randn(1, dense.in_channels, *sides, generator=torch.Generator().manual_seed(0))
    maps = maps.to(dense.weight.device, dense.weight.dtype)
    with torch.no_grad():
        found, expected = dense.forward(maps), kind.forward(dense, maps)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
        raise InputError(
            f"conv is a {type(dense).__name__}, which computes something else than its kernel and options say; "
            f"expected a plain torch.nn.{kind.__name__}"
        )

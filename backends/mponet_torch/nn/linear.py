"""`MPOLinear`: a linear layer whose weight is a matrix product operator."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from mponet.contraction.plan import Plan
from mponet.contraction.planner import PlanSet, plans_for
from mponet.display import NotebookRepr
from mponet.layers.linear import check_bias, check_operator, check_width, default_plan, weights_kept
from mponet.operators.decompose import from_matrix
from mponet.operators.initialize import exact_variance
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.shape import MPOShape
from mponet_torch.ops.arrays import Array, to_numpy
from mponet_torch.ops.chain import CachedWeights, apply_mpo, apply_weights, wanted
from mponet_torch.ops.planning import planner_of


class MPOLinear(NotebookRepr, nn.Module):
    """``y = x @ W + b`` with ``W`` a matrix product operator; takes and gives any leading dimensions.

    Attributes:
        shape: factors and bonds (`mponet.MPOShape`).
        core1, core2, ...: one parameter per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all
        of them.
        bias: ``(out_features,)`` or None.

    Args:
        in_features: number of inputs, or its factors.
        out_features: number of outputs, or its factors.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        bias: whether to have one.
        sites: number of factors where only sizes are given; None chooses.
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        seed: of the starting values; None draws one from torch's generator, so
            ``torch.manual_seed`` governs.
        device: as for `torch.nn.Linear`.
        dtype: as for `torch.nn.Linear`.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int | Sequence[int],
        bond: int | Sequence[int],
        bias: bool = True,
        *,
        sites: int | None = None,
        initializer: str | float = "glorot",
        seed: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.shape = MPOShape.from_sizes(in_features, out_features, bond, sites)
        seed = int(torch.randint(2**31 - 1, ())) if seed is None else seed
        mpo = exact_variance(self.shape, np.random.default_rng(seed), initializer)
        options: dict[str, Any] = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        self._names = tuple(f"core{k + 1}" for k in range(self.shape.sites))
        for name, core in zip(self._names, mpo.cores, strict=True):
            self.register_parameter(name, nn.Parameter(torch.tensor(core, **options)))
        self.bias = nn.Parameter(torch.zeros(self.out_features, **options)) if bias else None
        self._kept: CachedWeights | None = None
        self._plans: dict[tuple[int, torch.dtype, torch.device], PlanSet] = {}
        # a compiler makes kernels of its own
        planner = replace(planner_of(self.core1.device), fuses=False)
        self._traced = plans_for(self.shape, None, dtype_name(self.core1.dtype), planner)

    @property
    def cores(self) -> tuple[Array, ...]:
        """The cores, in the order of the sites."""
        own = self._parameters  # asking the module for each takes as long as a small product
        return tuple(own[name] if name in own else getattr(self, name) for name in self._names)

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return self.shape.in_features

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return self.shape.out_features

    @classmethod
    def from_mpo(cls, mpo: MPO, bias: ArrayLike | None = None, *, device: Any = None, dtype: Any = None) -> Self:
        """The layer of an operator and a bias ``(out_features,)``.

        Raises:
            ShapeError: the bias has another shape.
        """
        shape = mpo.shape
        layer = cls(
            shape.input_dims,
            shape.output_dims,
            shape.bond_dims[1:-1],
            bias is not None,
            seed=0,
            device=device,
            dtype=dtype,
        )
        layer.assign(mpo, bias)
        return layer

    @classmethod
    def from_matrix(
        cls,
        matrix: ArrayLike,
        input_dims: Sequence[int],
        output_dims: Sequence[int],
        *,
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
        bias: ArrayLike | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> Self:
        """The layer nearest to ``x @ matrix + bias``; see `mponet.from_matrix`."""
        kept = from_matrix(matrix, input_dims, output_dims, max_bond=max_bond, relative_error=relative_error)
        return cls.from_mpo(kept.mpo, bias, device=device, dtype=dtype)

    @classmethod
    def from_dense(
        cls,
        dense: nn.Linear,
        *,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        sites: int | None = None,
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
    ) -> Self:
        """The layer nearest to a trained `torch.nn.Linear`, on its device and in its dtype."""
        factors = MPOShape.from_sizes(input_dims or dense.in_features, output_dims or dense.out_features, 1, sites)
        return cls.from_matrix(
            to_numpy(dense.weight).T,
            factors.input_dims,
            factors.output_dims,
            max_bond=max_bond,
            relative_error=relative_error,
            bias=None if dense.bias is None else to_numpy(dense.bias),
            device=dense.weight.device,
            dtype=dense.weight.dtype,
        )

    def to_mpo(self) -> MPO:
        """The operator, float64 numpy."""
        return MPO(self.shape, tuple(to_numpy(core).astype(np.float64) for core in self.cores))

    def to_dense(self) -> nn.Linear:
        """The `torch.nn.Linear` with the same weight, on the same device and in the same dtype."""
        first = self.cores[0]
        dense = nn.Linear(
            self.in_features, self.out_features, self.bias is not None, device=first.device, dtype=first.dtype
        )
        with torch.no_grad():
            dense.weight.copy_(torch.tensor(to_matrix(self.to_mpo()).T))
            if self.bias is not None:
                dense.bias.copy_(self.bias)
        return dense

    def assign(self, mpo: MPO, bias: ArrayLike | None = None) -> None:
        """Overwrite the cores, and the bias if one is given.

        Raises:
            ShapeError: the operator or the bias has another shape, or there is no bias to
                overwrite.
        """
        check_operator(self.shape, mpo)
        values = None if bias is None else check_bias(bias, self.out_features, wanted=self.bias is not None)
        with torch.no_grad():
            for core, value in zip(self.cores, mpo.cores, strict=True):
                core.copy_(torch.tensor(value))
            if self.bias is not None and values is not None:
                self.bias.copy_(torch.tensor(values))

    def plans(self, batch: int | None, dtype: torch.dtype | None = None) -> PlanSet:
        """The plans in use for a batch of so many rows, of the dtype of the cores or (under autocast) another.

        None while tracing, where the batch may vary.
        """
        if batch is None:
            return self._traced
        first = self.core1
        key = batch, dtype or first.dtype, first.device
        if key not in self._plans:  # a lookup that hashes the shape takes as long as a small product
            self._plans[key] = plans_for(self.shape, batch, dtype_name(key[1]), planner_of(first.device))
        return self._plans[key]

    def forward(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
        """
        check_width(self.shape, inputs.shape)
        rows, bias, *cores = autocast(flattened(inputs), self.bias, *self.cores)
        compiling = torch.compiler.is_compiling()
        plans = self.plans(None if compiling else rows.shape[0], rows.dtype)
        if self.training or compiling or wanted(rows, bias, *cores):
            outputs = apply_mpo(plans, rows, cores, bias)
        else:
            outputs = apply_weights(plans.inference, rows, self._weights(plans.inference, cores), bias)
        return unflattened(outputs, inputs)

    def train(self, mode: bool = True) -> Self:
        """As ever; in training no weights are kept for inference."""
        if mode:
            self._kept = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """The module without what it keeps for inference."""
        return {**super().__getstate__(), "_kept": None}

    def _weights(self, plan: Plan, cores: Sequence[Array]) -> list[Array]:
        """The weights of ``plan``, kept until a core is another: compared number by number where that is cheap."""
        if self._kept is not None and self._kept.serves(plan, cores):
            return self._kept.weights
        self._kept = CachedWeights.of(plan, cores)
        return self._kept.weights

    def extra_repr(self) -> str:
        """Shape, counts, and the plan at the usual batch."""
        shape = self.shape
        return (
            f"{shape.in_features}, {shape.out_features}, {shape}, bias={self.bias is not None}, "
            f"weights={weights_kept(shape)}, plan='{default_plan(shape)}'"
        )


def flattened(inputs: Array) -> Array:
    """``(rows, features)``; the inputs themselves where they are that, or autograd would record a view."""
    return inputs if inputs.ndim == 2 else inputs.reshape(prod(inputs.shape[:-1]), inputs.shape[-1])


def unflattened(outputs: Array, inputs: Array) -> Array:
    """Rows of outputs with the leading dimensions of the inputs, after `flattened`."""
    return outputs if inputs.ndim == 2 else outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def autocast(inputs: Array, *arrays: Array | None) -> tuple[Any, ...]:
    """Under autocast, everything in its dtype; casts outside of our operation have torch's own gradients."""
    kind = inputs.device.type
    if not torch.is_autocast_enabled(kind):
        return inputs, *arrays
    dtype = torch.get_autocast_dtype(kind)
    return tuple(None if array is None else array.to(dtype) for array in (inputs, *arrays))

"""How PyTorch makes, reads and writes the parameters of the layers in `mponet.layers`."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mponet.contraction.planner import PlanningContext, PlanSet, plans_for
from mponet.errors import InputError
from mponet.layers.operator import DenseWeights, OperatorLayer
from mponet_torch.ops.arrays import Array, to_numpy
from mponet_torch.ops.kept import WeightCache
from mponet_torch.ops.planning import PlanCache, planner


class ParameterAccess(OperatorLayer):
    """The part of a layer that knows PyTorch.

    The bases of a layer are ``class MPOLinear(nn.Module, ParameterAccess, ChainLayer)``.
    `torch.nn.Module` comes first, because FSDP2 swaps the class of a module and needs its memory
    layout.
    """

    seed: int | None
    bias: nn.Parameter | None
    _parameters: dict[str, nn.Parameter | None]
    training: bool  # of `torch.nn.Module`

    def _make_parameters(self, bias: bool, device: Any, dtype: torch.dtype | None) -> None:
        """Register the parameters, with starting values unless they are on the meta device."""
        self._names = self.parameter_names
        options: dict[str, Any] = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        sizes = dict(zip(self._names, self.parameter_shapes, strict=True))
        for name, size in (*sizes.items(), ("bias", (self.out_features,))):
            made = nn.Parameter(torch.empty(size, **options)) if bias or name != "bias" else None
            self.register_parameter(name, made)  # type: ignore[attr-defined]
        self.reset_parameters()
        self._plans = PlanCache(self.shape)
        self._kept = WeightCache()
        # made now, because a compiler that traces the layer must not trace the search
        self._traced_plans = plans_for(self.shape, None, *self._planning())

    def reset_parameters(self) -> None:
        """Draw the starting values anew, by ``seed`` or else by torch's generator; the bias becomes zero."""
        if self.tensors[0].is_meta:
            return
        seed = int(torch.randint(2**31 - 1, (), device="cpu")) if self.seed is None else self.seed
        values = self.initial_values(np.random.default_rng(seed))
        for parameter, value in zip(self.tensors, values, strict=True):
            self._write(parameter, value)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def tensors(self) -> tuple[Array, ...]:
        """The parameters that make the operator, in order."""
        own = self._parameters  # asking the module for each takes as long as a small product
        return tuple(own[name] if name in own else getattr(self, name) for name in self._names)  # type: ignore[misc]

    def plans(self, batch: int | None, dtype: torch.dtype | None = None) -> PlanSet:
        """The plans in use for a batch of so many rows; None while tracing, where the batch may vary.

        Args:
            batch: number of rows.
            dtype: of the computation, under autocast; None for that of the parameters.
        """
        if batch is None:
            return self._traced_plans
        first = self.tensors[0]
        return self._plans.plans(batch, dtype or first.dtype, first.device)

    @property
    def _cache(self) -> WeightCache | None:
        """The weights kept for inference; None in training, where they change at every step."""
        return None if self.training else self._kept

    @staticmethod
    def _to_numpy(array: Any) -> NDArray[Any]:
        return to_numpy(array) if isinstance(array, torch.Tensor) else np.asarray(array)

    def _write(self, parameter: Array, values: NDArray[Any]) -> None:
        with torch.no_grad():
            parameter.copy_(torch.tensor(values))

    def _planning(self) -> tuple[str, PlanningContext]:
        first = self.tensors[0]
        return dtype_name(first.dtype), planner(first.device)

    @classmethod
    def _dense_weights(cls, dense: nn.Linear) -> DenseWeights:
        if not isinstance(dense, nn.Linear):
            raise InputError(f"dense is a {type(dense).__name__}; expected a torch.nn.Linear")
        bias = None if dense.bias is None else to_numpy(dense.bias)
        return DenseWeights(
            to_numpy(dense.weight).T, bias, {"device": dense.weight.device, "dtype": dense.weight.dtype}
        )

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> nn.Linear:
        first = self.tensors[0]
        dense = nn.Linear(self.in_features, self.out_features, bias is not None, device=first.device, dtype=first.dtype)
        self._write(dense.weight, matrix.T)
        if bias is not None:
            self._write(dense.bias, bias)
        return dense


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def flattened(inputs: Array) -> Array:
    """``(rows, features)``; the inputs themselves where they are that, or autograd would record a view."""
    return inputs if inputs.ndim == 2 else inputs.reshape(prod(inputs.shape[:-1]), inputs.shape[-1])


def unflattened(outputs: Array, inputs: Array) -> Array:
    """Rows of outputs with the leading dimensions of the inputs, after `flattened`."""
    return outputs if inputs.ndim == 2 else outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])


def autocast(inputs: Array, bias: Array | None, tensors: Sequence[Array]) -> tuple[Array, Array | None, list[Array]]:
    """Under autocast, everything in its dtype; casts outside of our operation have torch's own gradients."""
    kind = inputs.device.type
    if not torch.is_autocast_enabled(kind):
        return inputs, bias, list(tensors)
    dtype = torch.get_autocast_dtype(kind)
    return inputs.to(dtype), None if bias is None else bias.to(dtype), [tensor.to(dtype) for tensor in tensors]

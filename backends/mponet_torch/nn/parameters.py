"""How PyTorch makes, reads and writes the parameters of the layers in `mponet.layers`."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from mponet.contraction import execute
from mponet.contraction.planner import PlanningContext, PlanSet, plans_for
from mponet.errors import InputError
from mponet.layers.checks import check_real
from mponet.layers.operator import DenseWeights, OperatorLayer
from mponet.operators.shape import MPOShape
from mponet_torch.nn.dense import adopt, dense_weights
from mponet_torch.nn.frozen import FrozenWeights, unfreeze_layer
from mponet_torch.nn.weight import DenseWeight
from mponet_torch.ops.arrays import OPS, Array, from_numpy, to_numpy
from mponet_torch.ops.group import share_of
from mponet_torch.ops.kept import WeightCache
from mponet_torch.ops.planning import PlanCache, planner

#: The flag by which `transformers` marks modules that hold loaded or initialised numbers.
_INITIALIZED = "_is_hf_initialized"


class ParameterAccess(nn.Module, OperatorLayer):
    """The part of a layer that knows PyTorch.

    It comes first among the bases, then the kind of operator: ``class MPOLinear(ParameterAccess,
    ChainLayer)``.  `torch.nn.Module` comes before the framework-free classes, because FSDP2 swaps
    the class of a module and needs its memory layout.
    """

    seed: int | None
    bias: nn.Parameter | None
    #: What `mponet_torch.freeze` keeps; None in a layer that is not frozen.
    frozen: FrozenWeights | None

    def _make_parameters(self, bias: bool, device: Any, dtype: torch.dtype | None) -> None:
        """Register the parameters, with starting values unless they are on the meta device."""
        dtype = dtype or torch.get_default_dtype()
        check_real(dtype_name(dtype), "the layer")
        self._names = self.parameter_names
        sizes = dict(zip(self._names, self.parameter_shapes, strict=True))
        for name, size in (*sizes.items(), ("bias", (self.out_features,))):
            if name in self.fixed_names:  # no parameter, which `requires_grad_` of a model would train
                self.register_buffer(name, torch.empty(size, device=device, dtype=dtype))
                continue
            made = nn.Parameter(torch.empty(size, device=device, dtype=dtype)) if bias or name != "bias" else None
            self.register_parameter(name, made)
        self._deferred = self.tensors[0].is_meta
        self.reset_parameters()
        self._kept, self._rebuild, self.frozen = WeightCache(), self.dense_plan, None
        _ = self._rebuild.program
        self._prepare_plans()

    def _prepare_plans(self) -> None:
        """Make what `plans` gives while tracing.

        A compiler that traces the layer must not trace the search.
        """
        self._plans = PlanCache(self._planned_shape, self.memory)
        self._traced_plans = plans_for(self._planned_shape, None, *self._planning(), self.memory)

    def _plan_again(self) -> None:
        if hasattr(self, "_traced_plans"):
            self._prepare_plans()

    # ------------------------------------------------------------ starting values

    def reset_parameters(self) -> None:
        """Draw the starting values anew, by ``seed`` or else by torch's generator.

        The bias becomes zero.

        On the meta device, where there are no numbers, nothing happens.
        """
        self._reset(self.tensors)

    def _reset(self, wanted: Sequence[Array]) -> None:
        """Draw starting values for some of the parameters."""
        if any(tensor.is_meta or isinstance(tensor, FakeTensor) for tensor in self.tensors):
            return
        seed = int(torch.randint(2**31 - 1, (), device="cpu")) if self.seed is None else self.seed
        values = self.initial_values(np.random.default_rng(seed))
        for parameter, value in zip(self.tensors, values, strict=True):
            if any(parameter is other for other in wanted):
                self._write(parameter, value)
        if self.bias is not None and not getattr(self.bias, _INITIALIZED, False):
            nn.init.zeros_(self.bias)
        self._deferred = False

    @property
    def _is_hf_initialized(self) -> bool:
        """Whether `transformers` has loaded or initialised the layer.

        ``from_pretrained`` makes a model on the meta device, replaces what a checkpoint holds, and
        sets this flag on every module.  It does not know this class, so what was not in the
        checkpoint gets its starting values here; otherwise it would be whatever lay in memory.
        """
        return bool(self.__dict__.get(_INITIALIZED, False))

    @_is_hf_initialized.setter
    def _is_hf_initialized(self, value: bool) -> None:
        if value and self._deferred:
            missing = [tensor for tensor in self.tensors if not getattr(tensor, _INITIALIZED, False)]
            self._reset(missing)
        self.__dict__[_INITIALIZED] = value

    # ------------------------------------------------------------ what others read

    @property
    def tensors(self) -> tuple[Array, ...]:
        """The parameters that make the operator, in order."""
        own = self._parameters  # asking the module for each takes as long as a small product
        return tuple(own[name] if name in own else getattr(self, name) for name in self._names)  # type: ignore[misc]

    @property
    def weight(self) -> Array:
        """The weight of the same dense layer, ``(out_features, in_features)``; read-only.

        It is built each time it is used, with gradients that reach the parameters.  Shape, dtype
        and device are known without.
        """
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return self._dense_weight()
        wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.tensors)
        return DenseWeight(self.tensors[0], self._weight_shape, wanted, self._dense_weight)  # type: ignore[no-any-return]

    def plans(self, batch: int | None, dtype: torch.dtype | None = None) -> PlanSet:
        """The plans in use for a batch of so many rows.

        None while tracing, where the batch may vary.

        Args:
            batch: number of rows.
            dtype: of the computation, under autocast; None for that of the parameters.
        """
        if batch is None:
            return self._traced_plans
        first = self.tensors[0]
        return self._plans.plans(batch, dtype or first.dtype, first.device)

    @property
    def cache(self) -> WeightCache | None:
        """The weights kept for inference; None in training, where they change at every step."""
        return None if self.training else self._kept

    @property
    def frozen_weights(self) -> FrozenWeights | None:
        """What a frozen layer computes with; None where the layer is not frozen.

        A pass that autograd records for the layer's parameters trains them: it ends the freezing.
        """
        frozen = self.frozen
        if frozen is None or not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.tensors)):
            return frozen
        unfreeze_layer(self)
        return None

    def train(self, mode: bool = True) -> Self:
        """Set the mode as `torch.nn.Module.train` does.

        In training no weights are kept for inference, and a frozen layer is frozen no more.
        """
        if mode:
            self._kept.clear()
            unfreeze_layer(self)
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._prepare_plans()  # of the new dtype and device
        return self

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        """Shape of `weight`."""
        return self.out_features, self.in_features

    def _dense_weight(self) -> Array:
        """`weight`, with gradients that reach the parameters."""
        return self._trimmed(execute.dense_matrix(self._rebuild, self.tensors, OPS)).T  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Sizes, shape, counts and the plan in use."""
        return self._description()

    def __repr__(self) -> str:
        # a compiler that traces `torch.vmap` traces the repr of what is mapped, and cannot plan
        return type(self).__name__ if torch.compiler.is_compiling() else super().__repr__()

    # ------------------------------------------------------------ reading and writing

    def assign(self, operator: Any, bias: Any = None) -> None:
        """Overwrite the operator, and the bias if one is given.

        If anything does not fit, nothing changes.

        Args:
            operator: an `mponet.MPO`, or the tensors in the order of the parameters.
            bias: ``(out_features,)``; None leaves it as it is.

        Raises:
            ShapeError: the operator or the bias has another shape, or there is no bias to
                overwrite.
            InputError: a parameter is computed from others, by a parametrisation or by pruning.
        """
        own = {*self._parameters, *self._buffers}
        computed = [name for name in (*self._names, "bias") if name not in own]
        if computed:
            raise InputError(
                f"{', '.join(computed)} of the layer is computed from other parameters, by a parametrisation or by "
                "pruning; expected parameters that can be written to; remove the parametrisation first"
            )
        super().assign(operator, bias)

    def _resize(self, shape: MPOShape, values: Sequence[NDArray[Any]]) -> None:
        """Become the layer of a chain with other bonds and numbers, as truncation does."""
        self._set_chain_shape(shape)  # type: ignore[operator]
        for name, value in zip(self._names, values, strict=True):
            old = self._parameters[name]
            assert old is not None
            self._parameters[name] = nn.Parameter(from_numpy(value, old.dtype, old.device), old.requires_grad)
        self._kept.clear()
        unfreeze_layer(self)
        self._rebuild = self.dense_plan
        self._prepare_plans()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Add the sizes under the name ``weight``, where a dense layer has its matrix.

        A model with dense layers, into which the file does not belong, then refuses it because of
        the shape; `transformers` would give it random weights.
        """
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not self.tensors[0].is_meta:  # `transformers` asks a model on the meta device what it loads
            destination[f"{prefix}weight"] = torch.tensor([self.out_features, self.in_features])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        sizes = state_dict.pop(f"{prefix}weight", None)
        if sizes is not None and sizes.ndim > 1:
            state_dict[f"{prefix}weight"] = sizes  # of a dense layer: torch says that it is unexpected
        unfreeze_layer(self)  # other numbers come
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @staticmethod
    def _to_numpy(array: Any) -> NDArray[Any]:
        if not isinstance(array, torch.Tensor):
            return np.asarray(array)
        check_real(dtype_name(array.dtype), "the array")
        return to_numpy(array)

    def _write(self, parameter: Any, values: NDArray[Any]) -> None:
        with torch.no_grad():
            parameter.copy_(share_of(torch.tensor(values).to(parameter.device, parameter.dtype), parameter))

    def _planning(self) -> tuple[str, PlanningContext]:
        first = self.tensors[0]
        return dtype_name(first.dtype), planner(first.device)

    @classmethod
    def _dense_weights(cls, dense: nn.Module) -> DenseWeights:
        return dense_weights(dense)

    def _adopt(self, dense: nn.Module) -> None:
        adopt(self, self.tensors, dense)

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> Any:
        first = self.tensors[0]
        dense = nn.Linear(self.in_features, self.out_features, bias is not None, device=first.device, dtype=first.dtype)
        return self._filled(dense, matrix.T, bias)

    def _filled(self, dense: Any, weight: NDArray[Any], bias: NDArray[Any] | None) -> Any:
        """A dense layer with a weight and a bias, in the mode of this one, and trained if it is."""
        self._write(dense.weight, weight)
        dense.weight.requires_grad_(any(tensor.requires_grad for tensor in self.tensors))
        if bias is not None and self.bias is not None:
            self._write(dense.bias, bias)
            dense.bias.requires_grad_(self.bias.requires_grad)
        return dense.train(self.training)


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``."""
    return str(dtype).removeprefix("torch.")

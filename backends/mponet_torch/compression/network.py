"""`NativeNetwork`: a `torch.nn.Module` as `mponet.compress` sees it."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace as replaced
from typing import Any

import torch
from torch import nn

from mponet.compress.adapter import CompressAdapter, Functions
from mponet.compress.fitting import FittedLayer
from mponet.compress.target import Target
from mponet_torch.compression.modules import OPERATORS, ModuleKind, kind_of, type_name
from mponet_torch.compression.rise import loss_rise
from mponet_torch.compression.streaming import rows_per_example, stream
from mponet_torch.compression.timing import sample_inputs, speed_ratio
from mponet_torch.compression.upstream import cross_stream
from mponet_torch.nn.embedding import TiedHead

#: Why modules that share a weight in a way that no operator can are left alone.
TIED = "it shares its weight with a module of another kind; untie them first"


def build(module: nn.Module, fitted: FittedLayer) -> nn.Module:
    """The operator that replaces a module."""
    return _kind(module).build(module, fitted)


class NativeNetwork(CompressAdapter):
    """The two ends of compression for a module."""

    model: nn.Module
    kind = nn.Module
    functions = Functions(
        stream, rows_per_example, sample_inputs, speed_ratio, build, cross_stream, deepcopy, loss_rise
    )

    def module(self, name: str) -> nn.Module:
        """The module that a target names."""
        return self.model.get_submodule(name)

    def weights(self) -> int:
        """Number of parameters, shared ones once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def replace(self, fitted: FittedLayer) -> None:
        """Put an operator in the place of a module, and of those that share its weight."""
        module = self.module(fitted.name)
        built = build(module, fitted)
        others = [(self.module(use.name), use) for use in fitted.tied]
        self._put(module, built)
        for other, use in others:
            self._put(other, _kind(other).share(other, built, use.bias))

    def _put(self, module: nn.Module, built: nn.Module) -> None:
        """Put a built module wherever another is.

        It takes over the parameter of the bias, which other modules may share.
        """
        bias, made = module._parameters.get("bias"), built._parameters.get("bias")
        if bias is not None and made is not None:
            with torch.no_grad():
                bias.copy_(made)
            built.bias = bias
        for parent in self.model.modules():  # a module may be used in several places
            for name, child in list(parent._modules.items()):
                if child is module:
                    setattr(parent, name, built)

    def described(self) -> Iterable[Target]:
        """Every module that holds a matrix, in the order of the network; one used twice once."""
        found = [entry for entry in self.model.named_modules() if _holds_matrix(entry[1])]
        groups: dict[int, list[tuple[str, nn.Module]]] = {}
        for name, module in found:
            groups.setdefault(id(module.weight), []).append((name, module))
        for name, module in found:
            kind, owner = kind_of(module), _owner(groups[id(module.weight)])
            target = _foreign(name, module) if kind is None else kind.describe(name, module)
            yield target if owner[0] == name else _tied(target, module, *owner)


def _owner(group: list[tuple[str, nn.Module]]) -> tuple[str, nn.Module]:
    """Of modules that share a weight the one whose matrix is fitted, an embedding if any is."""
    return next((entry for entry in group if isinstance(entry[1], nn.Embedding)), group[0])


def _tied(target: Target, module: nn.Module, name: str, owner: nn.Module) -> Target:
    """A target that shares the weight of another module."""
    embedding = isinstance(owner, nn.Embedding)
    transposed = embedding and isinstance(module, nn.Linear)
    alike = transposed or any(
        isinstance(owner, kind) and isinstance(module, kind) for kind in (nn.Linear, nn.Embedding)
    )
    problem = target.unsupported or ("" if alike else TIED)
    return replaced(target, tied_to=name, transposed=transposed, unsupported=problem)


def _kind(module: nn.Module) -> ModuleKind:
    kind = kind_of(module)
    assert kind is not None
    return kind


def _holds_matrix(module: nn.Module) -> bool:
    """Whether a module is of a known kind, or has a parameter ``weight`` with two axes or more."""
    if kind_of(module) is not None:
        return True
    weight = module._parameters.get("weight")
    known = weight is not None and not isinstance(weight, nn.UninitializedParameter) and weight.ndim >= 2
    return known and not isinstance(module, OPERATORS)


def _foreign(name: str, module: Any) -> Target:
    """A module with a matrix that no kind recognises: listed with the reason."""
    weight = module.weight
    return Target(
        name=name,
        kind="convolution" if weight.ndim > 2 else "linear",
        type_name=type_name(module),
        in_features=weight[0].numel(),
        out_features=weight.shape[0],
        load=lambda: weight.detach().double().numpy(),
        itemsize=weight.element_size(),
        unsupported=f"{type_name(module)} is not supported",
    )


def owners(model: nn.Module) -> dict[str, Any]:
    """The layers of a model that own an operator, by name: of those that share one, the first."""
    found: dict[int, tuple[str, Any]] = {}
    for name, module in model.named_modules():
        if isinstance(module, OPERATORS) and not isinstance(module, TiedHead):
            found.setdefault(id(module.tensors[0]), (name, module))
    return dict(found.values())


def shares(module: nn.Module, owner: Any) -> bool:
    """Whether a layer other than ``owner`` has the same parameters as its operator."""
    own = isinstance(module, OPERATORS) and not isinstance(module, TiedHead)
    tensors: Any = module.tensors if own else None
    return own and module is not owner and tensors[0] is owner.tensors[0]

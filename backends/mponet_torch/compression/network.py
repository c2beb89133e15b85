"""`NativeNetwork`: a `torch.nn.Module` as `mponet.compress` sees it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace as replaced
from typing import Any

from torch import nn

from mponet.compress.calibrate import Calibration
from mponet.compress.fitting import FittedLayer
from mponet.compress.target import Target
from mponet_torch.compression.modules import OPERATORS, kind_of, type_name
from mponet_torch.compression.streaming import LossFunction, stream

#: Why a module that shares its weight is left alone.
TIED = "it shares its weight with another module; untie them first"


class NativeNetwork:
    """The two ends of compression for a module (`mponet.compress.adapter.CompressAdapter`).

    Attributes:
        model: the module, changed by `replace`.

    Args:
        model: the module.
        loss: the sum of the loss over rows; None chooses by the outputs.
    """

    def __init__(self, model: nn.Module, loss: LossFunction | None = None) -> None:
        self.model = model
        self._loss = loss
        self._targets: tuple[Target, ...] | None = None

    def targets(self) -> Sequence[Target]:
        """Every module that holds a matrix, in the order of the network.

        A module used twice is listed once.
        """
        if self._targets is None:
            self._targets = tuple(self._described())
        return self._targets

    def other_weights(self) -> int:
        """Number of parameters that belong to no target, tied ones once."""
        own = sum(target.weights for target in self.targets() if not target.tied_to)
        return sum(parameter.numel() for parameter in self.model.parameters()) - own

    def calibrate(
        self, targets: Sequence[Target], data: Iterable[Any], *, gradients: bool, products: bool
    ) -> Calibration:
        """Run the model on data, in eval mode, and gather sums over the inputs of the targets.

        Args:
            targets: those that sums are wanted of.
            data: batches of the model's own inputs.
            gradients: whether to run backward passes, too.
            products: whether they gather the products of gradients.
        """
        modules = {target.name: self.model.get_submodule(target.name) for target in targets}
        return stream(self.model, modules, data, self._loss, gradients=gradients, products=products)

    def replace(self, fitted: FittedLayer) -> None:
        """Put an operator in the place of a module."""
        module = self.model.get_submodule(fitted.name)
        kind = kind_of(module)
        assert kind is not None
        built = kind.build(module, fitted)
        for parent in self.model.modules():  # a module may be used in several places
            for name, child in list(parent._modules.items()):
                if child is module:
                    setattr(parent, name, built)

    def _described(self) -> Iterable[Target]:
        first: dict[int, str] = {}
        for name, module in self.model.named_modules():
            kind = kind_of(module)
            if kind is not None:
                target = kind.describe(name, module)
            elif isinstance(module, OPERATORS) or not _has_matrix(module):
                continue
            else:
                target = _foreign(name, module)
            weight = module.weight
            owner = first.setdefault(id(weight), name)
            yield target if owner == name else replaced(target, tied_to=owner, unsupported=TIED)


def _has_matrix(module: nn.Module) -> bool:
    """Whether a module of no known kind has a parameter ``weight`` with two axes or more."""
    weight = module._parameters.get("weight")
    return weight is not None and not isinstance(weight, nn.UninitializedParameter) and weight.ndim >= 2


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

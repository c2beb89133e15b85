"""`NativeNetwork`: a `torch.nn.Module` as `mponet.compress` sees it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace as replaced
from typing import Any

import torch
from torch import nn

from mponet.compress.calibrate import Calibration
from mponet.compress.fitting import FittedLayer, unfitted
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.target import Target
from mponet.compress.upstream import CrossSums
from mponet.errors import CompressionError
from mponet_torch.compression.modules import OPERATORS, ModuleKind, kind_of, type_name
from mponet_torch.compression.streaming import LossFunction, rows_per_example, stream
from mponet_torch.compression.timing import sample_inputs, speed_ratio
from mponet_torch.compression.upstream import cross_stream
from mponet_torch.nn.embedding import TiedHead

#: Why modules that share a weight in a way that no operator can are left alone.
TIED = "it shares its weight with a module of another kind; untie them first"


class NativeNetwork:
    """The two ends of compression for a module (`mponet.compress.adapter.CompressAdapter`).

    Attributes:
        model: the module, changed by `replace`.

    Args:
        model: the module.
        loss: the sum of the loss over rows; None chooses by the outputs.
        example: a batch of inputs that tells the rows per example of every layer; None takes those
            of the calibration, or one.
        reference: the module as it was, for `cross_sums`; None if ``model`` is not a copy.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction | None = None,
        example: Any = None,
        reference: nn.Module | None = None,
    ) -> None:
        self.model = model
        self._loss, self._example, self._reference = loss, example, reference
        self._targets: tuple[Target, ...] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}

    def targets(self) -> Sequence[Target]:
        """Every module that holds a matrix, in the order of the network.

        A module used twice is listed once.
        """
        if self._targets is None:
            described = tuple(self._described())
            counts: dict[str, int] = {}
            if self._example is not None:
                known = {t.name: self.model.get_submodule(t.name) for t in described}
                known = {name: module for name, module in known.items() if kind_of(module) is not None}
                counts = rows_per_example(self.model, known, self._example)
            self._targets = tuple(replaced(t, positions=counts.get(t.name, 1)) for t in described)
        return self._targets

    def other_weights(self) -> int:
        """Number of parameters that belong to no target, tied ones once."""
        own = sum(target.weights for target in self.targets() if not target.tied_to)
        return sum(parameter.numel() for parameter in self.model.parameters()) - own

    def calibrate(
        self,
        targets: Sequence[Target],
        data: Iterable[Any],
        *,
        gradients: bool,
        products: bool,
        sums: Calibration | None = None,
    ) -> Calibration:
        """Run the model on data, in eval mode, and gather sums over the inputs of the targets.

        Args:
            targets: those that sums are wanted of.
            data: batches of the model's own inputs.
            gradients: whether to run backward passes, too.
            products: whether they gather the products of gradients.
            sums: what earlier batches gave, to be added to; None begins anew.
        """
        modules = {target.name: self.model.get_submodule(target.name) for target in targets}
        return stream(
            self.model,
            modules,
            data,
            self._loss,
            gradients=gradients,
            products=products,
            sums=sums,
            shapes=self._shapes,
        )

    def measure(self, layer: LayerPlan, rows: int | None = None) -> float | None:
        """Time of a module over that of the operator that a plan names: above 1 it is faster.

        Args:
            layer: a row of a plan that replaces a module.
            rows: rows of the batch; None takes the shape of the calibration's last batch.

        Returns:
            The median ratio of interleaved calls; None if the inputs' shape is not known.
        """
        module = self.model.get_submodule(layer.name)
        kind = kind_of(module)
        assert kind is not None
        inputs = sample_inputs(module, self._shapes.get(layer.name), rows)
        if inputs is None:
            return None
        target = next(target for target in self.targets() if target.name == layer.name)
        return speed_ratio(module, kind.build(module, unfitted(target, layer)), inputs)

    def cross_sums(self, names: Sequence[str], data: Iterable[Any]) -> Mapping[str, CrossSums]:
        """Sums over the inputs of linear layers in the compressed and in the dense network.

        Args:
            names: of the layers, none of them replaced yet.
            data: batches of the model's own inputs.

        Raises:
            CompressionError: the dense network is gone, since the model is compressed in place.
        """
        if self._reference is None:
            raise CompressionError("upstream needs the dense model beside its copy; expected in_place=False")
        return cross_stream(self._reference, self.model, names, data)

    def replace(self, fitted: FittedLayer) -> None:
        """Put an operator in the place of a module, and of those that share its weight."""
        module = self.model.get_submodule(fitted.name)
        built = _kind(module).build(module, fitted)
        others = [(self.model.get_submodule(use.name), use) for use in fitted.tied]
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

    def _described(self) -> Iterable[Target]:
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

"""`NativeNetwork`: a `flax.nnx.Module` as `mponet.compress` sees it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace as replaced
from typing import Any

import jax
import numpy as np
from flax import nnx

from mponet.compress.calibrate import Calibration
from mponet.compress.fitting import FittedLayer, unfitted
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.target import Target
from mponet.compress.upstream import CrossSums
from mponet.errors import CompressionError
from mponet_jax.compression.describing import type_name, unsupported, weight_of
from mponet_jax.compression.modules import OPERATORS, Head, ModuleKind, kind_of
from mponet_jax.compression.streaming import LossFunction, named_modules, rows_per_example, stream
from mponet_jax.compression.timing import sample_inputs, speed_ratio
from mponet_jax.compression.upstream import cross_stream

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
        model: nnx.Module,
        loss: LossFunction | None = None,
        example: Any = None,
        reference: nnx.Module | None = None,
    ) -> None:
        self.model = model
        self._loss, self._example, self._reference = loss, example, reference
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._modules: dict[str, Any] = dict(_with_heads(model))
        self._targets: tuple[Target, ...] | None = None

    def targets(self) -> Sequence[Target]:
        """Every module that holds a matrix, in the order of nnx: names are sorted.

        A module used twice is listed once.  An embedding is followed by its use as a head, as
        ``embed.attend``; without data that call it, that does not count.
        """
        if self._targets is None:
            described = tuple(self._described())
            counts: dict[str, int] = {}
            if self._example is not None:
                known = {t.name: self._modules[t.name] for t in described if not t.unsupported}
                counts = rows_per_example(self.model, known, self._example)
            self._targets = tuple(replaced(t, positions=counts.get(t.name, 1)) for t in described)
        return self._targets

    def other_weights(self) -> int:
        """Number of parameters that belong to no target, tied ones once."""
        own = sum(target.weights for target in self.targets() if not target.tied_to)
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(self.model, nnx.Param))) - own

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
        modules = {target.name: self._modules[target.name] for target in targets}
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
        module = self._modules[layer.name]
        inputs = sample_inputs(module, self._shapes.get(layer.name), rows)
        if inputs is None:
            return None
        target = next(target for target in self.targets() if target.name == layer.name)
        return speed_ratio(module, _kind(module).build(module, unfitted(target, layer)), inputs)

    def cross_sums(self, names: Sequence[str], data: Iterable[Any]) -> Mapping[str, CrossSums]:
        """Sums over the inputs of linear layers in the compressed and in the dense network.

        Args:
            names: of the layers, none of them replaced yet.
            data: batches of the model's own inputs.

        Raises:
            CompressionError: the dense network is gone, since it is compressed in place.
        """
        if self._reference is None:
            raise CompressionError(
                "upstream is set and the model is compressed in place; expected in_place=False, which keeps the dense "
                "model that its layers are compared with"
            )
        return cross_stream(self._reference, self.model, names, data)

    def replace(self, fitted: FittedLayer) -> None:
        """Put an operator in the place of a module, and of those that share its weight."""
        built = _kind(self._modules[fitted.name]).build(self._modules[fitted.name], fitted)
        self._put(fitted.name, built)
        for use in fitted.tied:
            module = self._modules[use.name]
            if not isinstance(module, Head):  # an embedding is its own head
                self._put(use.name, _kind(module).share(module, built, use.bias))

    def _put(self, name: str, built: nnx.Module) -> None:
        """Put a built module wherever another is."""
        exchange(self.model, self._modules[name], built)
        self._modules[name] = built

    def _described(self) -> Iterator[Target]:
        first: dict[int, str] = {}
        scanned = [name for name, module in self._modules.items() if isinstance(module, nnx.RNN)]
        for name, module in self._modules.items():
            kind = kind_of(module)
            weight = None if isinstance(module, Head) else weight_of(module) if kind else _own_matrix(module)
            if kind is None and weight is None:
                continue
            target = (
                unsupported(name, module, weight, "linear", f"{type_name(module)} is not supported")
                if kind is None
                else kind.describe(name, module)
            )
            if not name or name == "attend":
                target = replaced(target, unsupported="it is the whole model; put it into an nnx.Sequential")
            if any(name.startswith(f"{outer}.") for outer in scanned):
                target = replaced(target, unsupported="it runs inside the scan of nnx.RNN, where it cannot be observed")
            owner = name if weight is None else first.setdefault(id(weight), name)
            yield target if owner == name else self._tied(target, owner)

    def _tied(self, target: Target, owner: str) -> Target:
        """A target that shares the weight of another module."""
        kinds = {kind_of(self._modules[name]) for name in (target.name, owner)}
        alike = len(kinds) == 1 and isinstance(self._modules[owner], nnx.Linear | nnx.Embed)
        return replaced(target, tied_to=owner, unsupported=target.unsupported or ("" if alike else TIED))


def _with_heads(model: nnx.Module) -> Iterator[tuple[str, Any]]:
    """Names and modules; after each embedding its second use, ``attend``."""
    for name, module in named_modules(model):
        yield name, module
        if isinstance(module, nnx.Embed):
            yield f"{name}.attend".lstrip("."), Head(module)


def _kind(module: Any) -> ModuleKind:
    kind = kind_of(module)
    assert kind is not None
    return kind


def _own_matrix(module: nnx.Module) -> Any:
    """The largest parameter with two axes or more of a module that is no operator, or None."""
    if isinstance(module, OPERATORS):
        return None
    own = [value for value in vars(module).values() if isinstance(value, nnx.Param) and len(np.shape(value[...])) >= 2]
    return max(own, key=lambda value: int(np.prod(value.shape)), default=None)


def exchange(model: nnx.Module, old: nnx.Module, new: nnx.Module) -> None:
    """Put a module wherever another one is in a model: in attributes, lists and dictionaries."""
    for parent in [parent for _, parent in nnx.iter_modules(model)]:
        for attribute, value in list(vars(parent).items()):
            if value is old:
                setattr(parent, attribute, new)
            elif any(leaf is old for leaf in jax.tree.leaves(value, is_leaf=_is_module)):
                setattr(parent, attribute, nnx.data(_exchanged(value, old, new)))


def _is_module(value: Any) -> bool:
    return isinstance(value, nnx.Module)


def _exchanged(value: Any, old: nnx.Module, new: nnx.Module) -> Any:
    """A list, tuple or dictionary with one module exchanged."""
    return jax.tree.map(lambda leaf: new if leaf is old else leaf, value, is_leaf=_is_module)

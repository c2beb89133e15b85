"""`NativeNetwork`: a `flax.nnx.Module` as `mponet.compress` sees it."""

from collections.abc import Iterator
from dataclasses import replace as replaced
from typing import Any

import jax
import numpy as np
from flax import nnx

from mponet.compress.adapter import CompressAdapter, Functions
from mponet.compress.fitting import FittedLayer
from mponet.compress.target import Target
from mponet_jax.compression.describing import type_name, unsupported, weight_of
from mponet_jax.compression.modules import OPERATORS, Head, ModuleKind, kind_of
from mponet_jax.compression.rise import loss_rise
from mponet_jax.compression.streaming import named_modules, rows_per_example, stream
from mponet_jax.compression.timing import sample_inputs, speed_ratio
from mponet_jax.compression.upstream import cross_stream

#: Why modules that share a weight in a way that no operator can are left alone.
TIED = "it shares its weight with a module of another kind; untie them first"


def build(module: Any, fitted: FittedLayer) -> nnx.Module:
    """The operator that replaces a module."""
    return _kind(module).build(module, fitted)


class NativeNetwork(CompressAdapter):
    """The two ends of compression for a module."""

    model: nnx.Module
    kind = nnx.Module
    functions = Functions(
        stream, rows_per_example, sample_inputs, speed_ratio, build, cross_stream, nnx.clone, loss_rise
    )

    def __init__(self, model: nnx.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        self._modules: dict[str, Any] = dict(_with_heads(model))

    def module(self, name: str) -> Any:
        """The module that a target names."""
        return self._modules[name]

    def weights(self) -> int:
        """Number of parameters, shared ones once."""
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(self.model, nnx.Param)))

    def replace(self, fitted: FittedLayer) -> None:
        """Put an operator in the place of a module, and of those that share its weight."""
        built = build(self._modules[fitted.name], fitted)
        self._put(fitted.name, built)
        for use in fitted.tied:
            module = self._modules[use.name]
            if not isinstance(module, Head):  # an embedding is its own head
                self._put(use.name, _kind(module).share(module, built, use.bias))

    def _put(self, name: str, built: nnx.Module) -> None:
        """Put a built module wherever another is."""
        exchange(self.model, self._modules[name], built)
        self._modules[name] = built

    def described(self) -> Iterator[Target]:
        """Every module that holds a matrix, in the order of nnx: names are sorted.

        A module used twice is listed once.  An embedding is followed by its use as a head, as
        ``embed.attend``; without data that call it, that does not count.
        """
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
    """The largest parameter with two axes or more of a module that is not an operator, or None."""
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

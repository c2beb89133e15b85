"""The layers inside a Keras model: what they are called, and how another takes a layer's place.

Keras has no ``named_modules``.  A name is made of the attributes that lead to a layer, without
leading underscores, and in sequential and functional models of the layers' own names.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mponet_tensorflow.ops.arrays import keras

#: Attributes in which Keras itself lists the layers of a layer.
LISTS = {"_layers", "_functional", "_operations", "_operations_by_depth", "_tracker", "_inbound_nodes"}


def children(parent: Any) -> Iterator[tuple[str, Any]]:
    """Names and layers that a layer holds itself, each layer once."""
    seen: set[int] = set()
    for name, child in _held(parent):
        if id(child) not in seen:
            seen.add(id(child))
            yield name, child


def named_layers(model: Any) -> dict[str, Any]:
    """Every layer inside a model by its dotted name, a layer before those that it holds.

    A layer that is held in several places is listed once.
    """
    found: dict[str, Any] = {}
    _collect(model, "", found, {id(model)})
    return found


def own_variables(layer: Any) -> list[Any]:
    """The variables of a layer that belong to none of the layers inside it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def named_variables(model: Any, *, trained: bool | None = None) -> dict[str, Any]:
    """Variables once, under the name of their layer and their own; random streams are left out.

    Args:
        model: the model.
        trained: True for parameters, frozen ones included, False for running statistics and the
            like, None for both.
    """
    found: dict[str, Any] = {}
    names: dict[int, str] = {}
    for prefix, layer in {"": model, **named_layers(model)}.items():
        parameters = {id(v) for v in layer._trainable_variables if v.name not in getattr(layer, "fixed_names", ())}
        for variable in own_variables(layer):
            if id(variable) in names:
                continue
            name = f"{prefix}.{variable.name}" if prefix else variable.name
            while name in names.values():
                name += "_"
            names[id(variable)] = name
            if trained is None or trained == (id(variable) in parameters):
                found[name] = variable
    return found


@contextmanager
def shadowed(layers: Mapping[str, Any], attribute: str, wrap: Callable[[str, Any], Any]) -> Iterator[None]:
    """Layers with another method or function within the block, as they were afterwards.

    Keras has no hooks.  It calls ``layer.call`` wherever a layer is called from: the graph of a
    functional model, the code of a subclassed one, or a wrapper; so a function in the instance is
    called in the place of the method.

    Args:
        layers: by name.
        attribute: ``call`` or ``activation``; layers without it are left alone.
        wrap: gives the new function from the name of a layer and the old function.
    """
    missing = object()
    there = {name: layer for name, layer in layers.items() if hasattr(layer, attribute)}
    before = {name: vars(layer).get(attribute, missing) for name, layer in there.items()}
    try:
        for name, layer in there.items():
            vars(layer)[attribute] = wrap(name, getattr(layer, attribute))
        yield
    finally:
        for name, layer in there.items():
            vars(layer).pop(attribute, None)
            if before[name] is not missing:
                vars(layer)[attribute] = before[name]


def put(model: Any, old: Any, new: Any) -> None:
    """Put a layer in the place of another, wherever the model holds it."""
    for node in old._inbound_nodes:
        node.operation = new
        for tensor in node.outputs:
            tensor._keras_history = tensor._keras_history._replace(operation=new)
    new._inbound_nodes, new._outbound_nodes = list(old._inbound_nodes), list(old._outbound_nodes)
    old._inbound_nodes, old._outbound_nodes = [], []
    for parent in (model, *named_layers(model).values()):
        _put_inside(parent, old, new)


def _held(parent: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(parent, keras.Function | keras.Sequential):
        yield from ((child.name, child) for child in parent.layers)
    for attribute, value in vars(parent).items():
        if not _is_list(attribute):
            yield from _layers_in(attribute.lstrip("_"), value)


def _is_list(attribute: str) -> bool:
    """Whether Keras or TensorFlow, not the user, keeps layers in an attribute."""
    return attribute in LISTS or attribute.startswith("_self_")


def _layers_in(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Names and layers in an attribute: a layer, or lists and dictionaries of them."""
    if isinstance(value, keras.layers.Layer):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _layers_in(f"{name}.{key}", item)


def _collect(parent: Any, prefix: str, found: dict[str, Any], seen: set[int]) -> None:
    for name, child in children(parent):
        if id(child) in seen:
            continue
        seen.add(id(child))
        full = prefix + name
        while full in found:  # an attribute of a functional model may be called as one of its layers
            full += "_"
        found[full] = child
        _collect(child, f"{full}.", found, seen)


def _put_inside(parent: Any, old: Any, new: Any) -> None:
    """Put a layer in the place of another in what one layer holds."""
    if isinstance(parent, keras.Function):
        _put_in_graph(parent, old, new)
    if isinstance(parent, keras.Sequential) and parent._functional is not None:
        _put_inside(parent._functional, old, new)
    tracker = parent._tracker
    tracked = tracker.config["layers"][1]
    for place, layer in enumerate(tracked):
        if layer is old:  # keeps its place, and with it the order of the weights
            tracked[place] = new
            tracker.stored_ids["layers"] = {id(item) for item in tracked}
    for attribute, value in list(vars(parent).items()):
        if value is not tracked and (attribute == "_layers" or not _is_list(attribute)):
            changed = _exchanged(value, old, new)
            if changed is not value:
                setattr(parent, attribute, changed)


def _put_in_graph(function: Any, old: Any, new: Any) -> None:
    """Put a layer in the place of another in the lists of a functional model's graph."""
    # new lists: TensorFlow saves no list of layers in which one was exchanged
    function._operations = _exchanged(list(function._operations), old, new)
    function._operations_by_depth = {
        depth: _exchanged(list(operations), old, new) for depth, operations in function._operations_by_depth.items()
    }
    before, after = f"{id(old)}_", f"{id(new)}_"
    function._nodes = {after + key[len(before) :] if key.startswith(before) else key for key in function._nodes}


def _exchanged(value: Any, old: Any, new: Any) -> Any:
    """An attribute's value with one layer exchanged; the value itself if it is not in there."""
    if value is old:
        return new
    if isinstance(value, dict):
        changed = {key: _exchanged(item, old, new) for key, item in value.items()}
        return changed if any(changed[key] is not value[key] for key in changed) else value
    if isinstance(value, list | tuple):
        items = [_exchanged(item, old, new) for item in value]
        if all(item is before for item, before in zip(items, value, strict=True)):
            return value
        if isinstance(value, list):
            return items
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value

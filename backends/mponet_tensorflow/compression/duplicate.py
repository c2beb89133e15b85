"""A copy of a Keras model that shares nothing with it.

Keras copies models by their configs, which subclassed models seldom have, and which do not tell
what was changed after construction.  Here layers are copied attribute by attribute, and the graphs
of functional models are rebuilt on the copies.
"""

import sys
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from mponet.errors import CompressionError
from mponet_tensorflow.compression.graph import own_variables
from mponet_tensorflow.ops.arrays import keras

#: State that every layer has and a copy takes over; the rest of it belongs to the instance.
BASE_STATE = (
    *("_auto_config", "_dtype_policy", "activity_regularizer", "_path", "_parent_path", "built", "autocast"),
    *("_input_spec", "_called", "supports_jit", "_trainable", "_supports_masking", "_convert_input_args"),
    *("_allow_non_tensor_positional_args", "_build_shapes_dict"),
)
#: What `keras.Model.compile` and `keras.Model.fit` leave on a model.
TRAINING_STATE = (
    *("_compile_config", "_compiled_trainable_state", "_eval_epoch_iterator", "_epoch_iterator"),
    *("history", "optimizer", "stop_predicting", "stop_training"),
)
Memo = dict[int, Any]


def copied(model: Any) -> Any:
    """A copy of a built model, compiled as it is, with an optimiser that has seen nothing.

    Raises:
        CompressionError: an attribute cannot be copied.
    """
    # modules, which some layers hold, cannot be copied and need not be
    twin = _copy(model, {id(module): module for module in sys.modules.values()})
    compile_as(twin, model)
    return twin


def compile_as(model: Any, other: Any) -> None:
    """Compile a model as another is compiled; the optimiser starts anew.

    Classes that compile in a way of their own are left to their users.
    """
    if getattr(other, "compiled", False) and type(other).compile is keras.Model.compile:
        model.compile(**{name: _renewed(value) for name, value in other._compile_config.config.items()})


def _copy(part: Any, memo: Memo) -> Any:
    """The copy of a layer, or of an operation in a graph."""
    if id(part) in memo:
        return memo[id(part)]
    twin = memo[id(part)] = type(part).__new__(type(part))
    if not isinstance(part, keras.layers.Layer):
        vars(twin).update(vars(part), _inbound_nodes=[], _outbound_nodes=[])
        return twin
    if isinstance(part, keras.Function):
        _start_graph(twin, part, memo)
    elif isinstance(part, keras.Sequential):
        _start_sequence(twin, part, memo)
    else:
        base = keras.Model if isinstance(part, keras.Model) else keras.layers.Layer
        base.__init__(twin, name=part.name)
    memo[id(part._tracker)] = twin._tracker
    _copy_state(twin, part, memo)
    return twin


def _start_graph(twin: Any, model: Any, memo: Memo) -> None:
    """Rebuild the graph of a functional model on copies of its layers."""

    def start(tensor: Any) -> Any:
        optional = getattr(tensor._keras_history.operation, "optional", False)
        options = {"name": tensor.name, "sparse": tensor.sparse, "optional": optional}
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, **options)

    inputs = keras.tree.map_structure(start, model.input)
    outputs = model._run_through_graph(inputs, operation_fn=lambda part: _copy(part, memo))
    base = next(cls for cls in type(model).__mro__ if cls.__name__ == "Functional")
    base.__init__(twin, inputs, outputs, name=model.name)  # type: ignore[misc]


def _start_sequence(twin: Any, model: Any, memo: Memo) -> None:
    first = model._layers[0] if model._layers else None
    start = []
    if isinstance(first, keras.layers.InputLayer):
        start = [keras.Input(batch_shape=first.batch_shape, dtype=first.dtype, name=first.name)]
    keras.Sequential.__init__(twin, [*start, *(_copy(layer, memo) for layer in model.layers)], name=model.name)


def _copy_state(twin: Any, part: Any, memo: Memo) -> None:
    """Variables and attributes, in their order, so that weights keep theirs."""
    for variable in (*own_variables(part), *(seeds.state for seeds in part._seed_generators)):
        memo.setdefault(id(variable), _copied_variable(variable))
    for store in ("trainable_variables", "non_trainable_variables"):
        for variable in part._tracker.config[store][1]:
            twin._tracker.add_to_store(store, memo[id(variable)])
    for layer in part._layers:
        if not isinstance(part, keras.Function | keras.Sequential):
            twin._tracker.track(_copy(layer, memo))
    fresh = {*vars(keras.Model()), *vars(twin), *TRAINING_STATE} - {*BASE_STATE}
    for name, value in vars(part).items():
        if name not in fresh and not name.startswith("_self_"):
            setattr(twin, name, _copied_value(value, f"{part.name}.{name}", memo))
    for variable in own_variables(part):
        new = memo[id(variable)]
        new.regularizer, new.constraint = (deepcopy(x, memo) for x in (variable.regularizer, variable.constraint))
    if part._tracker.locked:
        twin._tracker.lock(part._tracker._lock_violation_msg)


def _copied_variable(variable: Any) -> Any:
    twin = keras.Variable(
        keras.ops.copy(variable.value),
        dtype=variable.dtype,
        trainable=variable.trainable,
        autocast=variable._autocast,
        aggregation=variable.aggregation,
        name=variable.name,
    )
    twin._path = variable.path
    return twin


def _copied_value(value: Any, place: str, memo: Memo) -> Any:
    for item in _parts_of(value):
        if isinstance(item, keras.layers.Layer):
            _copy(item, memo)
        elif id(item) not in memo and type(item).__module__.startswith("keras.src."):
            memo[id(item)] = _copied_object(item, memo)
    try:
        return deepcopy(value, memo)
    except Exception as error:  # whatever a user's object raises
        reason = str(error).split("\n")[0][:200]
        raise CompressionError(
            f"{place} is a {type(value).__name__} that cannot be copied ({type(error).__name__}: {reason}); "
            "use in_place=True to compress the model itself"
        ) from error


def _copied_object(item: Any, memo: Memo) -> Any:
    """The copy of an object of Keras that is not a layer; what has no state is shared."""
    if isinstance(item, keras.Variable):
        return _copied_variable(item)
    if isinstance(item, keras.random.SeedGenerator):
        if id(item.state) not in memo:
            memo[id(item.state)] = _copied_variable(item.state)
        twin = object.__new__(type(item))
        vars(twin).update(vars(item), state=memo[id(item.state)])
        return twin
    return _renewed(item)


def _parts_of(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple | set):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _parts_of(item)
    else:
        yield value


def _renewed(value: Any) -> Any:
    """An object of Keras as it was made, lists of them likewise; other values as they are."""
    if isinstance(value, list | tuple):
        return [_renewed(item) for item in value]
    if isinstance(value, dict):
        return {name: _renewed(item) for name, item in value.items()}
    known = keras.metrics.Metric | keras.optimizers.Optimizer | keras.losses.Loss
    return type(value).from_config(value.get_config()) if isinstance(value, known) else value

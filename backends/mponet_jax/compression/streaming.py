"""One pass of data through a module.

Sums over the inputs of its layers, and gradients at their outputs.

A module of nnx has no hooks.  So a copy of the model runs, whose layers are of classes that extend
their own by two calls that nnx has for this: ``sow`` hands out the inputs, and ``perturb`` adds a
zero to the outputs whose gradient is the one wanted.  What they record travels in variables, so it
comes out of ``nnx.jit`` and ``nnx.remat`` inside the model, as what a Python list holds would not.
The pass is one compiled function for each shape of a batch.  The model itself is never touched.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.errors import TraceContextError

from mponet.compress.calibrate import MAX_PRODUCT_OUTPUTS, Calibration, InputSums
from mponet.errors import CompressionError
from mponet_jax.compression.modules import kind_of, products
from mponet_jax.ops.arrays import Array

#: The loss summed over rows, from the outputs of the model and the batch.
LossFunction = Callable[[Any, Any], Array]
#: Rows at the first layer after which no more backward passes are run.
GRADIENT_ROWS = 4096
#: What of a batch is compiled into a pass: its structure, and what is not an array, by place.
Fixed = tuple[Any, tuple[tuple[int, Any], ...]]


def stream(
    model: nnx.Module,
    modules: Mapping[str, Any],
    data: Iterable[Any],
    loss: LossFunction | None,
    *,
    gradients: bool,
    products: bool = False,
    sums: Calibration | None = None,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> Calibration:
    """Run a model on data and gather what compression needs.

    Args:
        model: the model; neither its mode nor its state changes.
        modules: the layers that sums are wanted of, by name.
        data: batches: an array, a tuple of arguments, or a mapping of keyword arguments.
        loss: the summed loss; None takes `default_loss`.
        gradients: whether to run backward passes.
        products: whether they gather the products of gradients.
        sums: what earlier batches gave, to be added to; None begins anew.
        shapes: gets the shape of each module's input; None keeps none.

    Raises:
        CompressionError: there are no data, values are not finite, or a layer runs inside a
            transformation that hides it.
    """
    watch = Watch(model, modules, loss, products, sums=sums, shapes=shapes)
    batches = 0
    for batch in data:
        batches += 1
        watch.calibration.examples += examples_in(batch)
        watch.add(batch, backward=gradients and watch.gradient_rows < GRADIENT_ROWS)
    if not batches:
        raise CompressionError("calibration holds no batch; expected at least one; a generator can be read once only")
    return watch.calibration


def call(model: Any, batch: Any) -> Any:
    """The outputs of a model for one batch."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        return model(*batch)
    return model(batch)


def examples_in(batch: Any) -> int:
    """Number of examples in a batch: the length of the first axis of its first array."""
    return next((len(leaf) for leaf in jax.tree.leaves(batch) if np.ndim(leaf)), 1)


def rows_per_example(model: nnx.Module, modules: Mapping[str, Any], example: Any) -> dict[str, int]:
    """How many rows each module makes for one example, from one forward pass.

    Args:
        model: the model.
        modules: those that are counted, by name.
        example: a batch of the model's own inputs.
    """
    counts = {}
    for name, calls in Watch(model, modules).outputs(example).items():
        kind = kind_of(modules[name])
        assert kind is not None
        rows = sum(len(kind.gradient_rows(modules[name], outputs)) for outputs in calls)
        counts[name] = max(round(rows / examples_in(example)), 1)
    return counts


def default_loss(outputs: Any, batch: Any) -> Array:
    """A loss for models that come without.

    The summed loss of labels drawn from the model's own predictions.

    Outputs with ``logits`` (Hugging Face) are read as logits of classes, and one label is drawn for
    each row, so that squared gradients are those of the Fisher information; no labels are needed.
    Other outputs are projected on random signs, so that squared gradients measure how far the
    outputs themselves move.
    """
    logits = getattr(outputs, "logits", None)
    if isinstance(logits, jax.Array):
        rows = jax.nn.log_softmax(logits.reshape(-1, logits.shape[-1]).astype(jnp.float32))
        drawn = jax.random.categorical(jax.random.key(0), jax.lax.stop_gradient(rows))
        return -jnp.take_along_axis(rows, drawn[:, None], 1).sum()
    value = first_array(outputs)
    signs = np.random.default_rng(0).integers(0, 2, value.shape) * 2 - 1
    return (value * jnp.asarray(signs, value.dtype)).sum()


def first_array(outputs: Any) -> Array:
    """The first array of real numbers in the outputs of a model."""
    for value in jax.tree.leaves(outputs):
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating):
            return value
    raise CompressionError(f"the model gives {type(outputs).__name__}; expected an array in it; pass loss=")


def named_modules(model: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """Dotted names and modules, each once."""
    for path, module in nnx.iter_modules(model):
        yield ".".join(map(str, path)), module


def apart(batch: Any) -> tuple[list[Array], Fixed]:
    """The arrays of a batch, and everything else in it: flags and words, which are compiled in."""
    leaves, structure = jax.tree.flatten(batch)
    arrays = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    others = tuple((place, leaf) for place, leaf in enumerate(leaves) if not arrays[place])
    return [leaf for leaf, array in zip(leaves, arrays, strict=True) if array], (structure, others)


def joined(arrays: Sequence[Array], fixed: Fixed) -> Any:
    """The batch again, from what `apart` gave."""
    structure, others = fixed
    leaves = list(arrays)
    for place, leaf in others:
        leaves.insert(place, leaf)
    return jax.tree.unflatten(structure, leaves)


class Watch:
    """A copy of a model whose layers hand out their inputs and the gradients at their outputs.

    Attributes:
        modules: the layers that are watched, by name, as they are in the model.
        calibration: the sums so far.
        shapes: of their inputs.

    Args:
        model: the model; it is not changed.
        modules: the layers to watch.
        loss: the summed loss; None takes `default_loss`.
        products: whether the products of gradients are gathered.
        sums: what earlier batches gave, to be added to; None begins anew.
        shapes: gets the shapes of inputs.
        share: whether layers that read the same array hand it out once.
    """

    def __init__(
        self,
        model: nnx.Module,
        modules: Mapping[str, Any],
        loss: LossFunction | None = None,
        products: bool = False,
        *,
        sums: Calibration | None = None,
        shapes: dict[str, tuple[int, ...]] | None = None,
        share: bool = True,
    ) -> None:
        self.modules = modules
        self._loss, self._products = loss or default_loss, products
        self.calibration = Calibration() if sums is None else sums
        self.shapes = {} if shapes is None else shapes
        self._share = share
        self._readers: list[tuple[Any, Any, str]] = []
        copy = nnx.clone(model)
        copy.eval()
        for name, module in list(named_modules(copy)):
            used = name in modules, f"{name}.attend" in modules
            if any(used):
                module.__class__ = _recording(type(module), *used)
                module._mponet_watch = (name, self)  # type: ignore[attr-defined]
        self._graph, self._state = nnx.split(copy)
        self._forward = jax.jit(self._inputs, static_argnums=2)
        self._backward = jax.jit(self._inputs_and_gradients, static_argnums=2)

    @property
    def gradient_rows(self) -> int:
        """Rows of which gradients were seen, at the layer that saw the fewest."""
        return min(self.calibration.gradient_rows.values(), default=0)

    def add(self, batch: Any, *, backward: bool) -> None:
        """Run one batch and add what it gives."""
        inputs, gradients = self._called(self._backward if backward else self._forward, batch)
        for name, calls in inputs.items():
            for array in calls:
                if array is not None:  # the sums are those of another layer
                    self._add_inputs(name, array)
        for name, gradient in gradients.items():
            self._add_gradient(name.rpartition("/")[0], gradient)

    def inputs(self, batch: Any) -> dict[str, tuple[Array, ...]]:
        """What the layers read in one batch, an array for each call."""
        return self._called(self._forward, batch)[0]  # type: ignore[no-any-return]

    def outputs(self, batch: Any) -> dict[str, list[Array]]:
        """Zeros of the shapes of what the layers give for one batch."""
        found: dict[str, list[Array]] = {}
        for name, zeros in self._called(jax.jit(self._zeros, static_argnums=2), batch).items():
            found.setdefault(name.rpartition("/")[0], []).append(zeros)
        return found

    def _called(self, run: Callable[..., Any], batch: Any) -> Any:
        """A compiled pass over one batch.

        Raises:
            CompressionError: a layer runs where it cannot be observed.
        """
        arrays, fixed = apart(batch)
        try:
            return run(self._state, arrays, fixed)
        except (TypeError, TraceContextError) as error:
            if "captures__" not in str(error) and not isinstance(error, TraceContextError):
                raise
            reason = " ".join(str(error).split())[:300]
            raise CompressionError(
                f"a layer runs inside a scan or another transformation, where it cannot be observed ({reason}); "
                "exclude it"
            ) from error
        finally:
            self._readers.clear()

    def own_inputs(self, name: str, inputs: Array) -> bool:
        """Whether the sums over a layer's inputs are its own, and not those of another layer."""
        self.shapes[name] = tuple(inputs.shape)
        if not self._share:
            return True
        known = self.calibration.inputs
        if name not in known:  # the first pass tells which layers read the same array
            rows = self._rows_read(name)
            shared = (key for array, reading, key in self._readers if array is inputs and reading == rows)
            known[name] = next(shared, name)
            self._readers.append((inputs, rows, known[name]))
        return known[name] == name

    def _rows_read(self, name: str) -> Any:
        """What rows a layer makes of an array: layers that agree in it may share sums."""
        kind = kind_of(self.modules[name])
        assert kind is not None
        return kind.reading(self.modules[name])

    # ------------------------------------------------------------ the compiled pass

    def _run(self, state: Any, arrays: list[Array], fixed: Fixed, captured: Any, **init: Any) -> tuple[Any, Any, Any]:
        """Outputs, batch, and what was captured."""
        batch = joined(arrays, fixed)
        model = nnx.merge(self._graph, state, copy=True)
        outputs, *found = nnx.capture(call, *captured, **init)(model, batch)
        return outputs, batch, found

    def _inputs(self, state: Any, arrays: list[Array], fixed: Fixed) -> tuple[Any, Any]:
        *_, (inputs,) = self._run(state, arrays, fixed, (nnx.Intermediate,))
        return _by_name(inputs), {}

    def _zeros(self, state: Any, arrays: list[Array], fixed: Fixed) -> Any:
        # every Perturbation is an Intermediate, too: it has to be asked for first
        *_, (zeros, _) = self._run(state, arrays, fixed, (nnx.Perturbation, nnx.Intermediate))
        return _by_name(zeros)

    def _inputs_and_gradients(self, state: Any, arrays: list[Array], fixed: Fixed) -> tuple[Any, Any]:
        # every Perturbation is an Intermediate, too: it has to be asked for first
        *_, (zeros, _) = self._run(state, arrays, fixed, (nnx.Perturbation, nnx.Intermediate))

        def loss(zeros: Any) -> tuple[Array, Any]:
            outputs, batch, (inputs,) = self._run(state, arrays, fixed, (nnx.Intermediate,), init=zeros)
            return self._loss(outputs, batch), _by_name(inputs)

        gradients, inputs = jax.grad(loss, has_aux=True)(zeros)
        return inputs, _by_name(gradients)

    # ------------------------------------------------------------ the sums

    def _add_inputs(self, name: str, inputs: Array) -> None:
        kind = kind_of(self.modules[name])
        assert kind is not None
        sums, total, count = kind.sums(self.modules[name], inputs)
        if name not in self.calibration.sums:
            self.calibration.sums[name] = InputSums.zeros(len(total), diagonal=sums.ndim == 1)
        self.calibration.sums[name].add_sums(sums, total, count)

    def _add_gradient(self, name: str, gradient: Array) -> None:
        kind = kind_of(self.modules[name])
        assert kind is not None
        rows = kind.gradient_rows(self.modules[name], gradient)
        wide = rows.shape[1] > MAX_PRODUCT_OUTPUTS
        sums, _ = products(rows, diagonal=wide or not self._products)
        squares = sums if sums.ndim == 1 else np.diagonal(sums)
        mean_square = float(squares.sum()) / rows.size
        self.calibration.add_gradient(name, mean_square, len(rows), sums if self._products else None)


@cache
def _recording(cls: type[nnx.Module], called: bool, attends: bool) -> type[nnx.Module]:
    """The class with methods that hand out their inputs and add zeros to their outputs.

    Args:
        cls: of the layer.
        called: whether the forward pass is watched.
        attends: whether ``attend`` is.
    """

    def recording(method: Callable[..., Any], suffix: str) -> Callable[..., Any]:
        def run(self: Any, inputs: Array, *args: Any, **kwargs: Any) -> Any:
            name, watch = self._mponet_watch[0] + suffix, self._mponet_watch[1]
            outputs = method(self, inputs, *args, **kwargs)
            before = 0

            def append(seen: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
                nonlocal before
                before = len(seen)
                return (*seen, value)

            self.sow(nnx.Intermediate, name, inputs if watch.own_inputs(name, inputs) else None, append, tuple)
            return self.perturb(f"{name}/{before}", outputs)

        return run

    methods = {"__call__": (called, ""), "attend": (attends, ".attend")}
    own = {name: recording(getattr(cls, name), suffix) for name, (wanted, suffix) in methods.items() if wanted}
    return type(f"Recording{cls.__name__}", (cls,), own)


def _by_name(state: Any) -> dict[str, Any]:
    """What was captured, by the name under which a layer handed it out."""
    return {str(path[-1]): variable.get_value() for path, variable in nnx.to_flat_state(state)}

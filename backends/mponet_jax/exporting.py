"""`export`: a module as a file that runs without mponet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export as jax_export
from numpy.typing import NDArray

from mponet.export import TOLERANCE, Exported, Exporter, write_checked
from mponet.export.formats import format_for
from mponet.files import write_atomically
from mponet_jax.compression.merging import merge as merge_operators
from mponet_jax.ops.arrays import to_numpy

Arrays = Sequence[NDArray[Any]]


def export(
    model: nnx.Module,
    path: str | Path,
    inputs: Any,
    *,
    to: str,
    merge: bool = False,
    dynamic: Sequence[int] = (0,),
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write a module to a file, run the file, and compare.

    Args:
        model: a module with operators or without, in any mode; the file computes what ``eval``
            does.
        path: the file to be made.
        inputs: an example: an array, or a tuple of the module's positional arguments.
        to: ``jax-export`` (`mponet.export.FORMATS`).
        merge: whether operators are multiplied out first.  The file is larger then, and faster
            where dense layers are.
        dynamic: axes of every input that have any length in the file.
        tolerance: largest deviation that is accepted, relative to the largest output.

    Returns:
        What was written, and how far its outputs deviate.

    Raises:
        InputError: there is no such format, or the name of the file does not fit it.
        BackendError: a package is missing.
        CheckpointError: the file exists or cannot be written.
        ExportError: the module cannot be exported, or the file gives other outputs.

    Example:
        >>> import tempfile
        >>> from mponet_jax import MPOLinear
        >>> layer = MPOLinear(64, 64, 4, rngs=nnx.Rngs(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = export(layer, f"{folder}/m.jax", jnp.ones((2, 64)), to="jax-export")
        >>> written.deviation < 1e-5
        True
    """
    format_for(to, "jax")
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    arrays = [to_numpy(value) if isinstance(value, jax.Array) else np.asarray(value) for value in given]
    own = nnx.clone(model)
    own.eval()
    if merge:
        own = merge_operators(own, in_place=True)[0]

    def call(values: Arrays) -> Arrays:
        return _arrays(own(*map(jnp.asarray, values)))

    options: dict[str, Any] = {"to": to, "framework": "jax", "dynamic": tuple(dynamic), "tolerance": tolerance}
    return write_checked(EXPORTERS[to], call, own, Path(path), arrays, **options)


def _arrays(outputs: Any) -> Arrays:
    return [to_numpy(value) for value in jax.tree.leaves(outputs)]


class _Program:
    """``jax.export``: StableHLO and the weights, serialised."""

    def write(self, model: Any, inputs: Arrays, dynamic: tuple[int, ...], path: Path) -> None:
        scope = jax_export.SymbolicScope()
        lengths = {axis: jax_export.symbolic_shape(f"axis{axis}", scope=scope)[0] for axis in dynamic}
        shapes = [tuple(lengths.get(axis, size) for axis, size in enumerate(value.shape)) for value in inputs]
        examples = [jnp.asarray(value) for value in inputs]  # jax may have other dtypes than numpy
        specs = [jax.ShapeDtypeStruct(shape, x.dtype) for shape, x in zip(shapes, examples, strict=True)]
        graph, state = nnx.split(model)
        program = jax_export.export(jax.jit(lambda *values: nnx.merge(graph, state)(*values)))(*specs)
        write_atomically(path, bytes(program.serialize()))

    def run(self, path: Path, inputs: Arrays) -> Arrays:
        program = jax_export.deserialize(bytearray(path.read_bytes()))
        return _arrays(program.call(*map(jnp.asarray, inputs)))


def image_inputs(native: nnx.Module, images: NDArray[Any]) -> NDArray[Any]:
    """Images NHWC as a lowered model takes them."""
    return np.asarray(images, np.float32)


def native_state(native: nnx.Module) -> dict[str, NDArray[Any]]:
    """The variables of a lowered model as arrays, by their paths; without random streams."""
    return {name: to_numpy(variable[...]) for name, variable in _variables(native).items()}


def load_native_state(native: nnx.Module, state: Mapping[str, NDArray[Any]]) -> None:
    """Overwrite a lowered model with what `native_state` gave.

    Raises:
        ValueError: names or shapes do not fit.
    """
    own = _variables(native)
    shapes = [{name: value.shape for name, value in values.items()} for values in (own, state)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"variables {sorted(shapes[1].items())}; expected {sorted(shapes[0].items())}")
    for name, variable in own.items():
        variable[...] = jnp.asarray(state[name])


def _variables(native: nnx.Module) -> dict[str, Any]:
    found = {
        "/".join(map(str, path)): value for path, value in nnx.iter_graph(native) if isinstance(value, nnx.Variable)
    }
    return {name: value for name, value in found.items() if not isinstance(value, nnx.RngState)}


#: What writes and runs each format.
EXPORTERS: Mapping[str, Exporter] = {"jax-export": _Program()}

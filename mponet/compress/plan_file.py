"""Plans as JSON: written and read with every field checked."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from mponet.compress.layer_plan import LayerPlan
from mponet.compress.structures import Layout
from mponet.errors import CheckpointError, CompressionError, MPONetError
from mponet.files import write_atomically, writing

FORMAT = "mponet-compression-plan-1"
TUPLES = {"bonds", "input_dims", "output_dims", "input_axes", "input_order"}


def serialize(fields_of_plan: dict[str, Any]) -> str:
    """The fields of a plan as JSON text."""
    return json.dumps({"format": FORMAT, **fields_of_plan}, indent=1, allow_nan=False) + "\n"


def parse(text: str, names: set[str]) -> dict[str, Any]:
    """The fields of a plan from JSON text.

    Args:
        text: what `serialize` gave.
        names: the fields besides ``layers``.

    Raises:
        CompressionError: the text is no plan, or a field is missing, unknown or of another type.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CompressionError(f"the text is no JSON ({error}); expected what to_json gave") from error
    if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
        raise CompressionError(f"the text is no plan of the format {FORMAT}; expected what to_json gave")
    if set(value) != {"layers", *names}:
        raise CompressionError(
            f"the plan has the fields {', '.join(value)}; expected layers, {', '.join(sorted(names))}"
        )
    try:
        layers = tuple(_layer(layer) for layer in value["layers"])
        if any(type(value[name]) is not int for name in ("rows", "other_weights") if name in names):
            raise TypeError("rows and other_weights are whole numbers")
        return {**value, "layers": layers, "config": dict(value["config"]), "notes": tuple(map(str, value["notes"]))}
    except MPONetError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CompressionError(f"the plan is damaged ({error}); expected what to_json gave") from error


def write(path: Path, text: str) -> None:
    """Write text, atomically.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with writing(path):
        write_atomically(path, text.encode())


def read(path: Path) -> str:
    """Read text.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); expected a plan that was saved") from error


def _layer(value: dict[str, Any]) -> LayerPlan:
    layout = value.get("layout")
    value = {**value, "layout": None if layout is None else Layout(**_typed(Layout, layout))}
    return LayerPlan(**_typed(LayerPlan, value))


def _typed(cls: type, value: dict[str, Any]) -> dict[str, Any]:
    """The fields of a class, tuples made of lists, and each of the type that the class names."""
    kinds = {f.name: f.type for f in fields(cls)}
    checked: dict[str, Any] = {}
    for name, item in value.items():
        if name in TUPLES:
            if not isinstance(item, list) or any(isinstance(n, bool) or not isinstance(n, int) for n in item):
                raise CompressionError(f"{name} is {item!r}; expected whole numbers")
            item = tuple(item)
        elif not _fits(item, kinds.get(name)):
            raise CompressionError(
                f"{name} is {item!r}; expected {getattr(kinds.get(name), '__name__', kinds.get(name))}"
            )
        checked[name] = item
    return checked


def _fits(item: Any, kind: Any) -> bool:
    if kind in (str, bool, int):
        return type(item) is kind
    if kind == float | None:
        return item is None or (isinstance(item, int | float) and not isinstance(item, bool))
    return bool(kind == Layout | None)

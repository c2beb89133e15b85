"""Plans as JSON: written and read with every field checked."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mponet.compress.layer_plan import LayerPlan
from mponet.errors import CheckpointError, CompressionError, MPONetError
from mponet.files import MAX_LINES, parse_json, read_bytes, write_atomically, writing
from mponet.training.schema import convert_exactly

FORMAT = "mponet-compression-plan-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """A plan as JSON has it: the fields of `CompressionPlan`, and the format."""

    format: Literal["mponet-compression-plan-1"]
    layers: tuple[LayerPlan, ...]
    other_weights: int
    config: dict[str, Any]
    rows: int
    notes: tuple[str, ...]


def serialize(fields_of_plan: dict[str, Any]) -> str:
    """The fields of a plan as JSON text."""
    return json.dumps({"format": FORMAT, **fields_of_plan}, indent=1, allow_nan=False) + "\n"


def parse(text: str) -> dict[str, Any]:
    """The fields of a plan from JSON text.

    Args:
        text: what `serialize` gave.

    Raises:
        CompressionError: the text is not a plan, or a field is missing, unknown or of another type.
    """
    try:
        values = parse_json(text, dict)
        if values.get("format") != FORMAT:
            raise CompressionError(f"the text is not a plan of the format {FORMAT}; expected what to_json gave")
        document = convert_exactly(values, _Document)
    except MPONetError:
        raise
    except ValueError as error:
        raise CompressionError(f"the plan is damaged ({error}); expected what to_json gave") from error
    return {name: getattr(document, name) for name in _Document.__slots__ if name != "format"}


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
        return read_bytes(path, MAX_LINES).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} cannot be read ({error}); expected a plan that was saved") from error

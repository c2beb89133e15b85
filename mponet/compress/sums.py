"""The file of a calibration: safetensors whose metadata holds one JSON object."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.compress.stream.header import read_header
from mponet.compress.stream.sources import read_bytes
from mponet.compress.stream.writing import Piece, write_safetensors
from mponet.errors import CheckpointError

Array = NDArray[np.float64]
FORMAT = "mponet-calibration-2"
FIELDS = {"counts", "inputs", "gradients", "gradient_rows", "gradient_products", "diagonal"}


def write_sums(path: Path, tensors: Mapping[str, Array], details: dict[str, Any]) -> None:
    """Write atomically; no copy of the tensors is made.

    Raises:
        CheckpointError: the file cannot be written.
    """
    pieces = [Piece(name, "F64", value.shape, value) for name, value in tensors.items()]
    write_safetensors(Path(path), pieces, {"format": FORMAT, "details": json.dumps(details, allow_nan=False)})


def read_sums(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and details of a file that `write_sums` wrote.

    Raises:
        CheckpointError: it is no such file.
    """
    header = read_header(Path(path))
    try:
        details = json.loads(header.metadata.get("details", "null"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); expected a file that Calibration.save wrote") from error
    if header.metadata.get("format") != FORMAT or not isinstance(details, dict) or not details.keys() >= FIELDS:
        raise CheckpointError(
            f"{path} is not a calibration of the format {FORMAT}; expected a file that Calibration.save wrote; "
            "calibrate again"
        )
    names = {f"{key}/{part}" for key in details["counts"] for part in ("products", "total")}
    names |= {f"{name}/gradients" for name in details["gradient_products"]}
    if names != set(header.entries) or any(entry.dtype != "F64" for entry in header.entries.values()):
        raise CheckpointError(f"{path} is damaged: its sums are incomplete; calibrate again")
    tensors = {name: read_bytes(entry) for name, entry in header.entries.items()}
    if not all(np.isfinite(value).all() for value in tensors.values()):
        raise CheckpointError(f"{path} is damaged: its sums are not finite; calibrate again")
    return tensors, details

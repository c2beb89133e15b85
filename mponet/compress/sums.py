"""The file of a calibration: safetensors whose metadata holds one JSON object."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.errors import CheckpointError
from mponet.files import write_atomically, writing

Array = NDArray[np.float64]
FORMAT = "mponet-calibration-1"
FIELDS = {"counts", "inputs", "gradients", "gradient_rows"}


def write_sums(path: Path, tensors: dict[str, Array], details: dict[str, Any]) -> None:
    """Write atomically.

    Raises:
        CheckpointError: the file cannot be written.
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    payload = save(arrays, {"format": FORMAT, "details": json.dumps(details, allow_nan=False)})
    with writing(path):
        write_atomically(Path(path), payload)


def read_sums(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Tensors and details of a file that `write_sums` wrote.

    Raises:
        CheckpointError: it is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        details = json.loads(metadata.get("details", "null"))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected a file that Calibration.save wrote"
        ) from error
    if metadata.get("format") != FORMAT or not isinstance(details, dict) or not details.keys() >= FIELDS:
        raise CheckpointError(f"{path} is no calibration; expected a file that Calibration.save wrote")
    names = {f"{key}/{part}" for key in details["counts"] for part in ("products", "total")}
    names |= {f"{name}/gradients" for name in details.setdefault("gradient_products", [])}
    if names != set(tensors) or not all(np.isfinite(value).all() for value in tensors.values()):
        raise CheckpointError(f"{path} is damaged: its sums are incomplete or not finite; calibrate again")
    return tensors, details

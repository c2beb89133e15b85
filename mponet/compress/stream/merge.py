"""A compressed checkpoint back to dense matrices, one at a time, in float64."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mponet.compress.layer_plan import LayerPlan
from mponet.compress.plan import CompressionPlan
from mponet.compress.stream.output import DESCRIPTION, SINGLE, carry, write_index
from mponet.compress.stream.rules import WEIGHT, is_transposed
from mponet.compress.stream.sources import Source, open_source, read_json
from mponet.compress.stream.writing import Piece, encoded, write_safetensors
from mponet.errors import CheckpointError
from mponet.files import writing
from mponet.operators.mpo import MPO, to_matrix


def description(source: Source) -> CompressionPlan:
    """What was done to a compressed checkpoint.

    Raises:
        CheckpointError: it is not a compressed one, or its description is damaged.
        CompressionError: likewise.
    """
    carried = {file.name: file for file in source.carried}
    if DESCRIPTION in carried:
        return CompressionPlan.load(carried[DESCRIPTION])
    if "mponet" in source.metadata:
        return CompressionPlan.from_json(source.metadata["mponet"])
    raise CheckpointError(f"{source.path} holds no compressed network; expected {DESCRIPTION}; take another folder")


def merge(path: Path, out: Path) -> CompressionPlan:
    """Write the dense checkpoint of a compressed one.

    Args:
        path: what `mponet.compress.stream.job.run_job` wrote.
        out: a new folder.

    Returns:
        The plan that had been carried out.

    Raises:
        CheckpointError: the checkpoint is not usable, ``out`` exists, or a file cannot be written.
    """
    source = open_source(path)
    plan = description(source)
    if out.exists():
        raise CheckpointError(f"{out} exists; expected a new folder; choose another")
    carried = {file.name: file for file in source.carried if file.name != DESCRIPTION}
    config = read_json(carried["config.json"]) if "config.json" in carried else {}
    shards: dict[str, list[Piece]] = {}
    cores = {f"{row.name}.core1": row for row in plan.replaced}
    dropped = {f"{row.name}.core{k}" for row in plan.replaced for k in range(1, _sites(row) + 1)}
    for name, entry in source.entries.items():
        pieces = shards.setdefault(entry.file.name if entry.file.suffix == ".safetensors" else SINGLE, [])
        if name in cores:
            row = cores[name]
            matrix = _matrix(source, row)
            weight = matrix.T if is_transposed(row.name, config) else matrix
            pieces.append(Piece(row.name + WEIGHT, entry.dtype, weight.shape, encoded(weight, entry.dtype)))
        elif name not in dropped:
            pieces.append(Piece(name, entry.dtype, entry.shape, entry))
    with writing(out):
        out.mkdir(parents=True)
    metadata = {name: value for name, value in source.metadata.items() if name != "mponet"}
    for shard, pieces in sorted(shards.items()):
        write_safetensors(out / shard, pieces, metadata)
    if len(shards) > 1:
        write_index(out, shards)
    for file in carried.values():
        carry(file, out, None)
    return plan


def _sites(row: LayerPlan) -> int:
    assert row.shape is not None
    return row.shape.sites


def _matrix(source: Source, row: LayerPlan) -> NDArray[np.float64]:
    names = [f"{row.name}.core{k}" for k in range(1, _sites(row) + 1)]
    if missing := [name for name in names if name not in source.entries]:
        raise CheckpointError(f"{source.path} lacks {missing[0]}; expected the cores of {row.name}; copy it again")
    assert row.shape is not None
    shapes = [source.entries[name].shape for name in names]
    if tuple(shapes) != row.shape.core_shapes:
        raise CheckpointError(
            f"the cores of {row.name} have the shapes {shapes}; expected {row.shape.core_shapes}; copy the folder again"
        )
    return to_matrix(MPO(row.shape, tuple(source.read(name) for name in names)))

"""The files of a compressed or merged checkpoint."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mponet.compress.plan import CompressionPlan
from mponet.compress.pretrained import ENTRY, config_entry, is_entry, operator_entry
from mponet.compress.stream.header import Entry, read_header
from mponet.compress.stream.rules import Matrix
from mponet.compress.stream.sources import INDEX, Source, read_json
from mponet.compress.stream.writing import Piece, write_safetensors
from mponet.files import write_json, writing

DESCRIPTION = "mponet.json"
SINGLE = "model.safetensors"


def write_files(
    source: Source, out: Path, plan: CompressionPlan, parts: Mapping[str, Path], found: Sequence[Matrix]
) -> None:
    """Write the new files, the index, what is carried over, and the description last.

    Args:
        source: the dense checkpoint.
        out: folder of the result.
        plan: what was compressed.
        parts: files of cores and biases, by name of a module.
        found: the matrices of the checkpoint.
    """
    described = plan.to_json()
    fitted = {name: read_header(path).entries for name, path in parts.items()}
    replaced = {matrix.tensor: fitted[matrix.module] for matrix in found if matrix.module in fitted}
    dropped = {f"{name}.bias" for name, entries in fitted.items() if f"{name}.bias" in entries}
    shards: dict[str, list[Piece]] = {}
    for name, entry in source.entries.items():
        file = entry.file.name if entry.file.suffix == ".safetensors" else SINGLE
        pieces = shards.setdefault(file, [])
        if name in replaced:
            pieces += [_piece(core) for core in replaced[name].values()]
        elif name not in dropped:
            pieces.append(_copied(source, entry))
    single = len(shards) == 1
    metadata = {**source.metadata, **({"mponet": described} if single else {})}
    for name, pieces in sorted(shards.items()):
        write_safetensors(out / name, pieces, metadata)
    if not single:
        write_index(out, shards)
    for carried in source.carried:
        carry(carried, out, plan)
    write_json(out / DESCRIPTION, json.loads(described))


def _piece(entry: Entry) -> Piece:
    return Piece(entry.name, entry.dtype, entry.shape, entry)


def _copied(source: Source, entry: Entry) -> Piece:
    """A tensor that stays: its bytes from a safetensors file, its values from any other."""
    if entry.file.suffix == ".safetensors":
        return _piece(entry)
    return Piece(entry.name, entry.dtype, entry.shape, source.raw(entry.name))


def write_index(out: Path, shards: Mapping[str, list[Piece]]) -> None:
    """Write which file holds which tensor."""
    places = {piece.name: file for file, pieces in shards.items() for piece in pieces}
    total = sum(piece.nbytes for pieces in shards.values() for piece in pieces)
    write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})


def carry(file: Path, out: Path, plan: CompressionPlan | None) -> None:
    """Copy a configuration or tokenizer file; ``config.json`` also gets the operators of a plan."""
    with writing(out / file.name):
        if file.name == "config.json":
            settings = {name: value for name, value in read_json(file).items() if not is_entry(value)}
            operators = {} if plan is None else {row.name: operator_entry(row, row.bonds) for row in plan.replaced}
            write_json(out / file.name, settings | ({ENTRY: config_entry(operators)} if operators else {}))
        else:
            shutil.copyfile(file, out / file.name)

"""Damaged checkpoints of every format, given to what compresses, shows and merges them.

Each is used, or refused by one error of ours in one line; nothing else is left in the folder, and
no more memory is taken than a small multiple of the file.
"""

import json
import random
import shutil
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from core.faults.mutate import mutated
from mponet.compress import CompressConfig
from mponet.compress.stream.job import open_job, run_job
from mponet.compress.stream.merge import merge
from mponet.compress.stream.rules import matrices
from mponet.compress.stream.sources import INDEX, open_source
from mponet.errors import MPONetError

CONFIG = CompressConfig(keep=0.5, structures=("low-rank",), min_weights=100)
SECONDS = 5.0
#: Bytes of memory that any file may take, and how many times its own size on top.
FLOOR, TIMES = 4 << 20, 40


@dataclass(frozen=True)
class Case:
    """A good checkpoint, the file of it that is mutated, and what is done with it.

    Attributes:
        name: for messages.
        path: the checkpoint.
        file: what is mutated.
        use: reads ``path`` and may write a folder.
        change: a mutation of the file's bytes.
    """

    name: str
    path: Path
    file: Path
    use: Callable[[Path, Path], object]
    change: Callable[[bytes, random.Random], bytes]


def cases(folder: Path) -> list[Case]:
    """One case for each format and each file of it."""
    rng = np.random.default_rng(0)
    tensors = {f"l{k}.weight": rng.normal(size=(24, 16)).astype(np.float32) for k in range(2)}
    tensors |= {"l0.bias": np.ones(24, np.float32), "norm.weight": np.ones(16, np.float16)}
    folder.mkdir(parents=True, exist_ok=True)
    single = folder / "single.safetensors"
    single.write_bytes(save(tensors, {"format": "pt"}))
    npz = folder / "tensors.npz"
    np.savez(npz, **tensors)
    packed = folder / "packed.npz"
    np.savez_compressed(packed, **tensors)
    home = folder / "sharded"
    home.mkdir()
    for number, names in enumerate((("l0.weight", "l0.bias"), ("l1.weight", "norm.weight"))):
        (home / f"{number}.safetensors").write_bytes(save({name: tensors[name] for name in names}))
    places = {"l0.weight": 0, "l0.bias": 0, "l1.weight": 1, "norm.weight": 1}
    (home / INDEX).write_text(json.dumps({"weight_map": {k: f"{v}.safetensors" for k, v in places.items()}}))
    (home / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": True}))
    small = folder / "small"
    run_job(open_job(home, small, CONFIG))
    return [
        Case("safetensors", single, single, compressed, damaged),
        Case("shown", single, single, shown, damaged),
        Case("npz", npz, npz, compressed, scratched),
        Case("compressed npz", packed, packed, compressed, scratched),
        Case("shard", home, home / "0.safetensors", compressed, damaged),
        Case("index", home, home / INDEX, compressed, mutated),
        Case("config", home, home / "config.json", compressed, mutated),
        Case("cores", small, small / "0.safetensors", merge, damaged),
        Case("description", small, small / "mponet.json", merge, mutated),
        Case("compressed config", small, small / "config.json", merge, mutated),
    ]


def compressed(path: Path, out: Path) -> None:
    """Compress a checkpoint."""
    run_job(open_job(path, out, CONFIG))


def shown(path: Path, out: Path) -> None:
    """Read everything that `mponet inspect` reads."""
    source = open_source(path)
    for matrix in matrices(source, {}):
        if not matrix.why_not:
            source.read(matrix.tensor)


def damaged(document: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, another length of it, or other bytes anywhere."""
    if rng.random() < 0.3:
        return mutated(document, rng)
    size = int.from_bytes(document[:8], "little")
    header = mutated(document[8 : 8 + size], rng)
    length = rng.choice((len(header), len(header), len(header), 0, 2**63, size))
    return length.to_bytes(8, "little") + header + document[8 + size :]


def scratched(document: bytes, rng: random.Random) -> bytes:
    """Bytes of an archive that are changed, removed or doubled."""
    data = bytearray(document)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data))
        kind = rng.randrange(3)
        if kind == 0:
            data[place] = rng.randrange(256)
        elif kind == 1:
            del data[place : place + rng.randint(1, 64)]
        else:
            data[place:place] = rng.randbytes(rng.randint(1, 64))
        if not data:
            return b"\0"
    return bytes(data)


def fuzz(folder: Path, count: int, rng: random.Random, tell: Callable[..., None] | None = None) -> dict[str, object]:
    """Mutate ``count`` files in all, a share for each case.

    Returns:
        Counts, the slowest call, the largest memory beyond the file's multiple, and the faults.
    """
    shutil.rmtree(folder, ignore_errors=True)
    every, faults = cases(folder), []
    total = {"files": 0, "used": 0, "refused": 0, "slowest": 0.0, "most_memory": 0}
    for case in every:
        good, before = case.file.read_bytes(), sorted(folder.rglob("*"))
        for _ in range(-(-count // len(every))):
            payload = case.change(good, rng)
            case.file.write_bytes(payload)
            out, fault = folder / "out", ""
            tracemalloc.start()
            began = time.perf_counter()
            try:
                case.use(case.path, out)
                total["used"] += 1
                shutil.rmtree(out, ignore_errors=True)
            except MPONetError as error:
                total["refused"] += 1
                if "\n" in str(error):
                    fault = f"more than one line: {error!r}"
            except Exception as error:
                fault = f"{type(error).__name__}: {error}"
            seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            left = sorted(folder.rglob("*"))
            if left != before:
                fault = fault or f"left {sorted(set(left) - set(before))[:3]}"
                shutil.rmtree(out, ignore_errors=True)
            if peak > FLOOR + TIMES * len(payload) or seconds > SECONDS:
                fault = fault or f"{peak} bytes of memory, {seconds:.1f} s for a file of {len(payload)}"
            if fault:
                faults.append(f"{case.name}: {fault[:300]} of {payload[:200]!r}")
            total["files"] += 1
            total["slowest"] = max(total["slowest"], round(seconds, 3))
            total["most_memory"] = max(total["most_memory"], peak)
        case.file.write_bytes(good)
        if tell is not None:
            tell(case=case.name, faults=len(faults))
    return total | {"faults": faults[:20]}

"""Every file that is read back, with a good example of each and the reader that judges it.

A reader may answer, or raise an error of ours; anything else is a fault.
"""

import json
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.faults.mutate import mutated
from core.folders import checked, fill, fill_suite
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.plan import CompressionPlan
from mponet.compress.structures import Layout
from mponet.contraction.machine import DEFAULT_COSTS, _measured, machine_of, path, save
from mponet.errors import MPONetError
from mponet.files import parse_json, read_bytes
from mponet.models.init import start
from mponet.report import agreement, speed
from mponet.report.experiments import experiments
from mponet.report.sources import Document, find
from mponet.training import checkpoint
from mponet.training.run import RunFolder, metrics, resolve, spectra
from mponet.training.suite import read as read_suite
from mponet.training.suite import states


@dataclass(frozen=True)
class Door:
    """A file, and what reads it."""

    name: str
    file: Path
    read: Callable[[], object]
    change: Callable[[bytes, random.Random], bytes] = mutated


@dataclass
class Counts:
    """What happened to mutated documents."""

    documents: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    faults: tuple[str, ...] = ()


def doors(folder: Path) -> list[Door]:
    """Good files in ``folder`` and their readers.

    The caller sets MPONET_CACHE to a folder of its own.
    """
    run, suite = folder / "run", folder / "suite"
    settings = resolve("fc2", data="digits", images=1437, steps=200, bond=2)
    fill(run, settings, "mpo", 0.95)
    fill_suite(suite, ["fc2:2"], seeds=1)
    plan = read_suite(suite)
    training = plan.trainings()[1].run_folder(suite)
    (training / "failed.json").write_text(json.dumps({"message": "no room", "traceback": ["a", "b"]}))
    (training / "result.json").unlink()
    save("made-up", {"x": "1"}, DEFAULT_COSTS)
    checkpoint.save(run / "mpo" / checkpoint.NAME, _checkpoint(settings))
    check, bench = folder / "crosscheck.json", folder / "bench.json"
    check.write_text(json.dumps(checked()))
    rows = [{"kind": kind, "step": {"median": 0.5}, "versions": {}} for kind in ("dense", "ours", "peer")]
    bench.write_text(
        json.dumps({"rows": [{"backend": "torch", "row": "a", "targets": {"step": 1}, "contenders": rows}]})
    )
    existing = RunFolder(run, settings)
    compression = folder / "compression_plan.json"
    _compression_plan().save(compression)
    return [
        Door("config", run / "config.json", lambda: RunFolder.existing(run)),
        Door("result", run / "result.json", existing.results),
        Door("metrics", existing.metrics("mpo"), lambda: metrics.read(existing.metrics("mpo"))),
        Door("spectra", existing.spectra("mpo"), lambda: spectra.read(existing.spectra("mpo"))),
        Door("suite", suite / "suite.json", lambda: read_suite(suite).trainings()),
        Door("failed", training / "failed.json", lambda: states(plan, suite)),
        Door("folder", run / "config.json", lambda: experiments(find(run))),
        Door("crosscheck", check, lambda: _used(check)),
        Door("bench", bench, lambda: _used(bench)),
        Door("tuning", path("made-up"), _tuned),
        Door("compression plan", compression, lambda: str(CompressionPlan.load(compression))),
        Door("checkpoint", existing.checkpoint("mpo"), lambda: existing.load("mpo"), _changed_header),
    ]


def fuzz(door: Door, count: int, rng) -> Counts:
    """Mutate a file ``count`` times and read it; the good file is put back at the end."""
    good, counts = door.file.read_bytes(), Counts()
    for _ in range(count):
        payload = door.change(good, rng)
        door.file.write_bytes(payload)
        began = time.perf_counter()
        try:
            door.read()
            counts.accepted += 1
        except MPONetError as error:
            counts.refused += 1
            if "\n" in str(error):
                counts.faults += (f"{door.name}: more than one line: {error!r}"[:300],)
        except Exception as error:
            counts.faults += (f"{door.name}: {type(error).__name__}: {error} of {payload[:300]!r}"[:600],)
        counts.documents += 1
        counts.slowest = max(counts.slowest, time.perf_counter() - began)
    door.file.write_bytes(good)
    return counts


def _compression_plan() -> CompressionPlan:
    sizes = {"kind": "linear", "type_name": "Linear", "dense_weights": 6144, "dense_multiplications": 6144}
    layers = (
        LayerPlan(name="a", layout=Layout("mpo", (8, 8), (8, 12)), bonds=(5,), output_error=0.25, **sizes),
        LayerPlan(name="b", reason="smaller than min_weights", **sizes),
    )
    return CompressionPlan(layers=layers, other_weights=3, config={"metric": "kfac"}, rows=4, notes=("few rows",))


def _checkpoint(settings) -> checkpoint.Checkpoint:
    model = settings.networks["mpo"]
    values = start(model, 0)
    velocities = {f"velocity/{name}": value for name, value in values.items()} if settings.recipe.momentum else {}
    averages = {f"average/{name}": value for name, value in values.items()} if settings.recipe.average else {}
    return checkpoint.Checkpoint(model, values, velocities | averages, settings.recipe, "digits", 0, 200)


def _changed_header(document: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header, or with other bytes in all of it."""
    if rng.random() < 0.3:
        return mutated(document, rng)
    (size,) = struct.unpack("<Q", document[:8])
    header = mutated(document[8 : 8 + size], rng)
    length = rng.choice((len(header), len(header), len(header), 0, 2**63, size))
    return struct.pack("<Q", length) + header + document[8 + size :]


def _used(file: Path) -> None:
    """As a report uses a document that it was given."""
    try:
        document = Document(file.name, parse_json(read_bytes(file), object))
    except ValueError as error:
        raise MPONetError(str(error).replace("\n", " ")) from error
    if agreement.is_crosscheck(document):
        agreement.maps(document)
    for ratio in speed.ratios(document):
        assert 0 < ratio.value < float("inf")


def _tuned() -> None:
    _measured.cache_clear()
    machine_of("made-up", {"x": "1"}).moving(10**6)

"""Several processes that train one model: equal results, the bytes they exchange, and their pace.

    python benchmarks/cluster.py --backends torch --processes 1,2,4     a few minutes on two cores
    python benchmarks/cluster.py --bytes                                only the bytes, in seconds

Three tables.  *Results*: the largest difference of parameters, losses and statistics from those of
one process after 50 steps in float64, for FC2 and a small VGG, dense and MPO.  *Pace*: steps per
second over those of one process; with more processes than cores nothing can be gained.  *Bytes*:
what a step sums over all processes, which is the gradient of every parameter, dense over MPO, and
the time that a ring of ``n`` processes takes for it, ``2 (n - 1) / n`` of the bytes over the
bandwidth of a link.  Tests count what the frameworks really sum (tests/backends/test_groups.py and
test_jax_sharding.py).
"""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import group_run
from mponet.models import build
from mponet.models.shapes import parameter_count

NETWORKS = ("fc2", "lenet5", "vgg16", "vgg19", "resnet20", "densenet40-12")
BANDWIDTH = 10e9 / 8  # bytes a second, of a link of 10 Gbit/s
WORKERS = (2, 8, 64)
FLOAT32 = 4
TITLES = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow"}


def results(backend: str, counts: list[int], steps: int) -> list[dict[str, object]]:
    """Differences from one process, and paces."""
    rows, expected = [], {}
    with TemporaryDirectory() as folder:
        for count in counts:
            file, began = Path(folder) / f"{count}.npz", perf_counter()
            command = [str(Path(group_run.__file__)), backend, str(file), str(steps), "time"]
            running = group_run.processes(backend, count, command)
            said = [process.communicate()[0] for process in running]
            for process, output in zip(running, said, strict=True):
                if process.returncode:
                    raise SystemExit(
                        f"a process of {count} of {backend} ended with {process.returncode}:\n{output[-2000:]}"
                    )
            found = dict(np.load(file))
            seconds = {name: value for name, value in found.items() if name.endswith(":seconds")}
            numbers = {name: value for name, value in found.items() if name not in seconds}
            expected = expected or (numbers, seconds)
            worst = max(float(np.abs(numbers[name] - value).max()) for name, value in expected[0].items())
            pace = {name[:-8]: float(expected[1][name] / value) for name, value in seconds.items()}
            rows.append({"backend": backend, "processes": count, "difference": worst, "pace": pace})
            print(
                f"{backend:10}  {count} processes  largest difference {worst:.1e}  steps per second over one process: "
                + ", ".join(f"{name} {value:.2f}" for name, value in pace.items())
                + f"  ({perf_counter() - began:.0f} s)",
                flush=True,
            )
    return rows


def exchanged() -> list[dict[str, object]]:
    """Bytes of a step and the modelled time of their sum, dense and MPO."""
    rows = []
    heads = "".join(f"  {f'{n} processes':>21}" for n in WORKERS)
    print(f"{'network':14}  {'dense MB':>9}  {'mpo MB':>8}  {'factor':>6}{heads}")
    for name in NETWORKS:
        dense, mpo = (FLOAT32 * parameter_count(build(name, variant)) for variant in ("dense", "mpo"))
        times = {n: [2 * (n - 1) / n * size / BANDWIDTH for size in (dense, mpo)] for n in WORKERS}
        row = {"network": name, "dense": dense, "mpo": mpo, "factor": dense / mpo, "seconds": times}
        shown = "".join(f"  {f'{1e3 * a:.2f} / {1e3 * b:.3f} ms':>21}" for a, b in times.values())
        print(f"{name:14}  {dense / 1e6:9.3f}  {mpo / 1e6:8.3f}  {dense / mpo:6.1f}{shown}")
        rows.append(row)
    return rows


def tables(found: dict[str, Any]) -> Iterator[str]:
    """The tables of docs/cluster.md."""
    rows = found["results"]
    names = list(rows[0]["pace"])
    yield f"| framework | processes | largest difference | {' | '.join(names)} |"
    yield f"| --- | --- | --- |{' --- |' * len(names)}"
    for row in rows:
        paces = (f"{row['pace'][name]:.2f}" for name in names)
        difference = "" if row["processes"] == 1 else f"{row['difference']:.0e}"
        yield f"| {TITLES[row['backend']]} | {row['processes']} | {difference} | {' | '.join(paces)} |"
    yield ""
    yield f"| network | dense | MPO | factor | {' | '.join(f'{n} processes, ms' for n in WORKERS)} |"
    yield f"| --- | --- | --- | --- |{' --- |' * len(WORKERS)}"
    for row in found["bytes"]:
        times = (" / ".join(f"{1e3 * t:.2f}" for t in row["seconds"][str(n)]) for n in WORKERS)
        sizes = f"{row['dense'] / 1e6:.2f} MB | {row['mpo'] / 1e6:.2f} MB | {row['factor']:.1f}"
        yield f"| {row['network']} | {sizes} | {' | '.join(times)} |"


def main() -> None:
    """Print the tables, and write them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--backends", default="torch,jax,tensorflow")
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--bytes", action="store_true", help="only the bytes")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--show", type=Path, help="print the tables of a file; nothing is measured")
    given = parser.parse_args()
    if given.show:
        print("\n".join(tables(json.loads(given.show.read_text(encoding="utf-8")))))
        return
    counts = [int(count) for count in given.processes.split(",")]
    if counts[0] != 1 or any(a >= b for a, b in pairwise(counts)):
        parser.error(f"--processes is {given.processes}; expected rising numbers that begin with 1")
    found: dict[str, object] = {"bytes": exchanged()}
    if not given.bytes:
        found["results"] = [row for name in given.backends.split(",") for row in results(name, counts, given.steps)]
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Time layers on a GPU: ours, dense and other packages, by width, bond, batch and dtype.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --dtypes bfloat16 --widths 4096 --batches 4096

Every pass is captured in a CUDA graph and replayed, so that what is compared is the work of the
device; the last columns are the same passes called eagerly, where Python and launches count.
Outputs are checked against float64.
"""

import argparse
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from mponet.bench.growth import square
from mponet.bench.rows import Row
from mponet.contraction import execute
from mponet.operators.initialize import exact_variance
from mponet.operators.mpo import MPO
from mponet_torch.bench.peers import PEERS
from mponet_torch.nn.linear import MPOLinear
from mponet_torch.ops.arrays import OPS

#: Milliseconds that one sample of a contender should take at least: short passes are repeated.
SAMPLE = 0.5
#: Rows of the outputs that are compared with float64, and the largest relative error (norms) for
#: each dtype: a few roundings of the states and of the result, ``2^-9`` each in bfloat16.
FEW, CLOSE = 64, {"bfloat16": 2e-2, "float16": 3e-3, "float32": 1e-5}


def main() -> None:
    """Measure, print, write."""
    options = _options()
    where = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "sites": options.sites}
    print(f"{where['gpu']}, torch {where['torch']}", flush=True)
    print(f"{'layer':<26}{'contender':<24}{'forward':>9}{'step':>9}{'eager':>9}{'step':>9}{'MB':>9}  plan", flush=True)
    found = []
    for dtype in options.dtypes:
        for batch in options.batches:
            for width in options.widths:
                for bond in options.bonds:
                    row = square(width, bond, batch, options.sites)
                    found += measure(row, dtype, options.rounds, peers=batch in options.peers)
                    if options.json:
                        options.json.write_text(json.dumps(where | {"rows": found}, indent=1), encoding="utf-8")


def measure(row: Row, dtype: str, rounds: int, *, peers: bool) -> list[dict[str, Any]]:
    """All contenders at one layer: milliseconds, and megabytes of a step."""
    mpo = exact_variance(row.shape, np.random.default_rng(0))
    kind = getattr(torch, dtype)
    inputs = torch.randn(row.batch, row.shape.in_features, device="cuda").to(kind).requires_grad_()
    slopes = torch.randn(row.batch, row.shape.out_features, device="cuda").to(kind)
    passes: dict[str, Callable[[], object]] = {}
    entries = {}
    for name, make in contenders(mpo, peers=peers).items():
        entry = {"row": row.name, "shape": str(row.shape), "dtype": dtype, "contender": name}
        try:
            layer = make().to("cuda", kind)
            entry |= {"error": _error(layer, mpo, inputs, dtype, name), "bytes": _memory(layer, inputs, slopes)}
            passes |= _passes(name, layer, inputs, slopes)
        except (RuntimeError, ValueError, torch.OutOfMemoryError, ImportError) as error:
            entry["cannot"] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            passes = {key: run for key, run in passes.items() if not key.startswith(f"{name}|")}
            torch.cuda.empty_cache()
        if isinstance(make, _Ours):
            entry["plan"] = str(layer.plans(row.batch).training)
        entries[name] = entry
    for key, times in interleaved(passes, rounds).items():
        name, which = key.split("|")
        entries[name][which] = {"median": median(times), "minimum": min(times)}
    for entry in entries.values():
        _show(row, dtype, entry)
    return list(entries.values())


class _Ours:
    """Our layer, with or without kernels."""

    def __init__(self, mpo: MPO) -> None:
        self.mpo = mpo

    def __call__(self) -> MPOLinear:
        return MPOLinear.from_mpo(self.mpo, np.zeros(self.mpo.shape.out_features), dtype=torch.float32)


def contenders(mpo: MPO, *, peers: bool) -> dict[str, Callable[[], nn.Module]]:
    """By name, each makes a layer."""
    shape, bias = mpo.shape, np.zeros(mpo.shape.out_features)
    found: dict[str, Callable[[], nn.Module]] = {
        "dense": lambda: nn.Linear(shape.in_features, shape.out_features),
        "ours": _Ours(mpo),
    }
    if peers:
        for one in PEERS:
            if not one.absent and one.kind == "peer":
                found[one.name] = lambda one=one: one.make(mpo, bias)
    return found


def interleaved(passes: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, in turns."""
    repeats = {key: max(1, min(20, int(SAMPLE / max(_milliseconds(run, 1), 1e-3)))) for key, run in passes.items()}
    found: dict[str, list[float]] = {key: [] for key in passes}
    for _ in range(rounds):
        for key, run in passes.items():
            if len(found[key]) < 5 or sum(found[key]) < 100:  # milliseconds: those that are slow take fewer rounds
                found[key].append(_milliseconds(run, repeats[key]))
    return found


def _passes(name: str, layer: nn.Module, inputs: torch.Tensor, slopes: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Forward and step, replayed and eager."""

    def forward() -> object:
        with torch.no_grad():
            return layer(inputs)

    def step() -> object:
        return _step(layer, inputs, slopes)

    passes = {"forward": _graph(forward), "step": _graph(step)}
    if name in ("dense", "ours"):
        passes |= {"eager forward": forward, "eager step": step}
    return {f"{name}|{which}": run for which, run in passes.items()}


def _step(layer: nn.Module, inputs: torch.Tensor, slopes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(layer(inputs), [inputs, *layer.parameters()], slopes)


def _graph(run: Callable[[], object]) -> Callable[[], object]:
    """What replays a run; a host that waits for the device makes this fail."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()

    def replay(kept: object = kept) -> None:
        graph.replay()

    return replay


def _milliseconds(run: Callable[[], object], repeats: int) -> float:
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    began.record()
    for _ in range(repeats):
        run()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / repeats


def _memory(layer: nn.Module, inputs: torch.Tensor, slopes: torch.Tensor) -> int:
    """Bytes of a step at its peak, results included."""
    _step(layer, inputs, slopes)
    gc.collect()  # or what an earlier layer held is freed while this one is measured
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    _step(layer, inputs, slopes)
    return int(torch.cuda.max_memory_allocated() - before)


def _error(layer: nn.Module, mpo: MPO, inputs: torch.Tensor, dtype: str, name: str) -> float | None:
    """Relative error of the first rows; None for the dense layer, which holds another matrix."""
    if name == "dense":
        return None
    kind = getattr(torch, dtype)
    cores = [torch.tensor(core).to("cuda", kind).double() for core in mpo.cores]
    plan = MPOLinear.from_mpo(mpo).plans(FEW).forward
    right = execute.forward(plan, cores, inputs[:FEW].detach().double(), OPS)
    with torch.no_grad():
        found = layer(inputs)[:FEW].double()
    error = float((found - right).norm() / right.norm())
    if not error <= CLOSE[dtype]:
        raise ValueError(f"computes something else: error {error:.1e}; expected at most {CLOSE[dtype]:.0e}")
    return error


def _show(row: Row, dtype: str, entry: dict[str, Any]) -> None:
    label = f"{row.name} {dtype}" if entry["contender"] == "dense" else ""
    if "cannot" in entry:
        print(f"{label:<26}{entry['contender']:<24}{entry['cannot']}", flush=True)
        return
    times = (entry.get(which) for which in ("forward", "step", "eager forward", "eager step"))
    columns = "".join(f"{time['median']:>9.3f}" if time else f"{'':>9}" for time in times)
    print(
        f"{label:<26}{entry['contender']:<24}{columns}{entry['bytes'] / 1e6:>9.1f}  {entry.get('plan', '')}", flush=True
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"], choices=sorted(CLOSE))
    parser.add_argument("--widths", nargs="+", type=int, default=[1024, 2048, 4096, 8192])
    parser.add_argument("--bonds", nargs="+", type=int, default=[4, 16, 64])
    parser.add_argument("--batches", nargs="+", type=int, default=[512, 4096, 16384])
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--peers", nargs="*", type=int, default=[4096], help="batches at which peers take part")
    parser.add_argument("--rounds", type=int, default=15, help="samples of each contender")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device; expected one")
    return options


if __name__ == "__main__":
    main()

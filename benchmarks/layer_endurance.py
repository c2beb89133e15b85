"""Call layers of PyTorch very often, and print what went wrong and what memory grew.

    python benchmarks/layer_endurance.py                 everything, half an hour on two cores
    python benchmarks/layer_endurance.py --share 0.01    the same in a minute

For every kind of layer of the contract (tests/contract/torch_uses.py): eight threads call one layer
100 000 times with batches of any size, and every result is compared with the dense layer's.  Then
one layer sees 20 000 sizes of batch, and 2 000 layers are made and called; the resident memory is
printed after each quarter.  Exit status 1 if a result was wrong, a call raised, or memory grew by
more than 20 MB between the first quarter and the last.
"""

import argparse
import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import torch

from contract.torch_uses import kinds

THREADS, CALLS, SIZES, LAYERS, MEGABYTES = 8, 100_000, 20_000, 2_000, 20.0


def called(kind: Any, calls: int) -> list[str]:
    """What went wrong in so many calls of one layer by all threads."""
    layer, faults = kind.make().eval(), []
    reference = kind.reference(layer)
    with torch.no_grad():
        batches = [kind.inputs(layer, batch) for batch in (1, 2, 3, 5, 17, 33)]
        expected = [reference(x) for x in batches]

    def work(number: int) -> None:
        try:
            with torch.no_grad():
                for call in range(calls // THREADS):
                    place = (call * 7 + number) % len(batches)
                    if not torch.allclose(layer(batches[place]), expected[place], rtol=1e-10, atol=1e-10):
                        faults.append("wrong outputs")
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")

    workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return faults


def batches(kind: Any, count: int) -> Iterator[float]:
    """Resident memory after each quarter of so many sizes of batch through one layer."""
    layer = kind.make().eval()
    whole = kind.inputs(layer, 64)
    for quarter in range(4):
        with torch.no_grad():
            for size in range(quarter * count // 4, (quarter + 1) * count // 4):
                x = whole[: 1 + size % 64]
                layer(x)
                getattr(layer, "embedding", layer).plans(1 + size)
        yield resident()


def layers(kind: Any, count: int) -> Iterator[float]:
    """Resident memory after each quarter of so many layers, each made, called and dropped."""
    for _ in range(4):
        for seed in range(count // 4):
            layer = kind.make(seed=seed)
            layer(kind.inputs(layer, 3)).sum().backward()
            layer.eval()
            with torch.no_grad():
                layer(kind.inputs(layer, 3))
        yield resident()


def resident() -> float:
    """Resident memory in MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    """Print a line for every kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="Share of the full numbers, 0 to 1.")
    parser.add_argument("--only", default="", help="Kinds of layers, by name and separated by commas; all by default.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    total = 0
    for kind in kinds():
        if options.only and kind.layer not in options.only.split(","):
            continue
        calls = max(int(options.share * CALLS), THREADS)
        faults = called(kind, calls)
        sizes = list(batches(kind, max(int(options.share * SIZES), 4)))
        made = list(layers(kind, max(int(options.share * LAYERS), 4)))
        grown = [sizes[-1] - sizes[0], made[-1] - made[0]]
        total += len(faults) + sum(more > MEGABYTES for more in grown)
        print(
            f"{kind.name}: {calls} calls by {THREADS} threads, {len(faults)} faults; MB over "
            f"{max(int(options.share * SIZES), 4)} sizes of batch {' '.join(f'{mb:.0f}' for mb in sizes)}; over "
            f"{max(int(options.share * LAYERS), 4)} layers {' '.join(f'{mb:.0f}' for mb in made)}",
            flush=True,
        )
        for fault in list(dict.fromkeys(faults))[:5]:
            print(f"  {fault}")
    print(f"faults: {total}")
    sys.exit(total > 0)


if __name__ == "__main__":
    main()

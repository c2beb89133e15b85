"""Inject faults by the hundred thousand, and print what happened.

    python benchmarks/robustness.py                    everything, about an hour on two cores
    python benchmarks/robustness.py --share 0.02       the same in a minute
    python benchmarks/robustness.py --only documents,crashes

Mutated documents at every file that is read back, argument lists, folders that hold something else,
pairs of processes that start together in one folder, a kill at every file operation of a run and of
a suite, and threads that share a layer.  Exit status 1 if anything was a fault: an exception that
is not mponet's own, a message of several lines, more than five seconds, other bytes in the end, a
leftover, a wrong number, or more than 400 MB.  The harness is in tests/core/faults.
"""

import argparse
import logging
import os
import random
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from core.faults import arguments, crash, doors, folders, toys
from mponet.backend import installed
from mponet.errors import MPONetError
from mponet.report import report
from mponet.training.suite import read, states

DOCUMENTS, ARGUMENTS, PAIRS, CALLS, EXTREMES = 100_000, 600, 60, 1_000_000, 100
SECONDS, MEGABYTES, THREADS = 5.0, 400, 8
Outcome = tuple[str, list[str]]  # a line of counts, and the faults


def documents(share: float, folder: Path, seed: int) -> Iterator[Outcome]:
    """Mutations of every document that is read back."""
    every = doors.doors(folder)
    for number, door in enumerate(every):
        counts = doors.fuzz(door, max(int(share * DOCUMENTS / len(every)), 10), random.Random(seed + number))
        yield _line(f"document {door.name}", counts)


def argument_lists(share: float, folder: Path, seed: int) -> Iterator[Outcome]:
    """Argument lists of commands that stop before they train or measure."""
    yield _line("argument lists", arguments.fuzz(max(int(share * ARGUMENTS), 20), random.Random(seed), folder))


def odd_folders(share: float, folder: Path, seed: int) -> Iterator[Outcome]:
    """Folders that hold something else in place of a file, and numbers at their limits."""
    good = folder / "good"
    files = folders.targets(good)
    report(good)  # matplotlib takes seconds, once
    pairs = [(target, kind) for target in files for kind in folders.KINDS]
    rng, faults, slowest = random.Random(seed), [], 0.0
    rng.shuffle(pairs)
    chosen = pairs[: max(int(share * len(pairs)), 10)]
    for number, (target, kind) in enumerate(chosen):
        home = folder / str(number)
        shutil.copytree(good, home)
        folders.replaced(home / target.relative_to(good), kind)
        for call in (lambda home=home: report(home), lambda home=home: states(read(home / "suite"), home / "suite")):
            slowest = max(slowest, _tried(call, f"{target.name} is {kind}", faults))
    count = max(int(share * EXTREMES), 3)
    for number in range(count):
        home = folder / f"extreme{number}"
        home.mkdir()
        folders.extreme(home, rng)
        slowest = max(slowest, _tried(lambda home=home: report(home), f"extreme numbers {number}", faults))
    yield f"folders: {len(chosen)} with another file, {count} with extreme numbers; slowest {slowest:.2f} s", faults


def owners(share: float, folder: Path, seed: int) -> Iterator[Outcome]:
    """Two processes that start together in one folder."""
    for name, make in (("runs", toys.run_in), ("suites", toys.suite_in)):
        crash.finished(make(folder / name))
        whole, faults = crash.content(folder / name), []
        count = max(int(share * PAIRS / 2), 3)
        for number in range(count):
            home = folder / f"{name}{number}"
            statuses = crash.together(make(home), 2)
            if 0 not in statuses or set(statuses) - {0, 3} or crash.content(home) != whole:
                faults.append(f"pair {number} of {name}: statuses {statuses}")
        yield f"pairs of {name} in one folder: {count}", faults


def crashes(share: float, folder: Path, seed: int) -> Iterator[Outcome]:
    """A kill at every file operation, and what the next process makes of it."""
    for name, make in (("run", toys.run_in), ("suite", toys.suite_in)):
        crash.finished(make(folder / name))
        whole, faults = crash.content(folder / name), []
        points = crash.count_points(make(folder / f"{name}-counted"), folder / f"{name}-counted")
        chosen = range(0, points, max(round(1 / share), 1))
        for point in chosen:
            home = folder / f"{name}{point}"
            if not crash.killed_at(make(home), home, point):
                faults.append(f"point {point} of a {name} was not reached")
            crash.finished(make(home))
            if crash.content(home) != whole:
                faults.append(f"point {point} of a {name} leaves other files")
        yield f"crash points of a {name}: {len(chosen)} of {points}", faults


def threads(share: float, folder: Path, seed: int) -> Iterator[Outcome]:
    """Threads that call one layer in inference mode while others switch it to training and back."""
    if not installed("torch"):
        yield "threads: torch is not installed", []
        return
    import torch

    from mponet_torch import MPOLinear

    torch.manual_seed(seed)
    layer = MPOLinear((16, 16, 16), (16, 16, 16), 1).eval()
    inputs = torch.randn(4, 4096)
    with torch.no_grad():
        expected = layer(inputs)
    calls, faults = max(int(share * CALLS / THREADS), 100), []

    def work(number: int) -> None:
        try:
            with torch.no_grad():
                for call in range(calls):
                    if number == 0 and call % 50 == 0:
                        layer.train(call % 100 == 0)
                    if not torch.allclose(layer(inputs), expected, rtol=1e-4, atol=1e-4):
                        faults.append(f"thread {number}: wrong outputs")
        except Exception as error:
            faults.append(f"thread {number}: {type(error).__name__}: {error}")

    workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    yield f"threads: {THREADS} on one layer, {calls * THREADS} calls", faults


SECTIONS = {
    "documents": documents,
    "arguments": argument_lists,
    "folders": odd_folders,
    "owners": owners,
    "crashes": crashes,
    "threads": threads,
}


def _line(name: str, counts: doors.Counts) -> Outcome:
    faults = list(counts.faults)
    if counts.slowest > SECONDS:
        faults.append(f"{name}: {counts.slowest:.1f} s")
    told = f"{counts.documents}, accepted {counts.accepted}, refused {counts.refused}, slowest {counts.slowest:.2f} s"
    return f"{name}: {told}", faults


def _tried(call: Callable[[], object], what: str, faults: list[str]) -> float:
    """Seconds of a call that may only succeed, or fail with an error of ours in one line."""
    began = time.perf_counter()
    try:
        call()
    except MPONetError as error:
        if "\n" in str(error):
            faults.append(f"{what}: more than one line")
    except Exception as error:
        faults.append(f"{what}: {type(error).__name__}: {error}")
    seconds = time.perf_counter() - began
    if seconds > SECONDS:
        faults.append(f"{what}: {seconds:.1f} s")
    return seconds


def main() -> None:
    """Run the sections, and print a line for each with its faults below."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="Share of the full numbers, 0 to 1.")
    parser.add_argument("--only", default=",".join(SECTIONS), help="Sections, of %(default)s.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what is left out of a report is a warning each
    toys.known()
    total = 0
    with TemporaryDirectory(prefix="mponet-robustness-") as root:
        os.environ["MPONET_CACHE"] = f"{root}/cache"
        for name in options.only.split(","):
            folder = Path(root) / name
            folder.mkdir()
            for line, faults in SECTIONS[name](min(options.share, 1.0), folder, options.seed):
                total += len(faults)
                print(f"{line}; faults {len(faults)}", flush=True)
                for fault in list(dict.fromkeys(faults))[:10]:
                    print(f"  {fault}")
            if name != "threads":  # torch alone takes more
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
                total += peak > MEGABYTES
                print(f"peak memory so far: {peak:.0f} MB{' (too much)' if peak > MEGABYTES else ''}", flush=True)
    print(f"faults: {total}")
    sys.exit(total > 0)


if __name__ == "__main__":
    main()

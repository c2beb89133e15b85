"""Workers on this machine: processes that share a suite, each with its share of the processors."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import sleep

from mponet.contraction.machine import cores
from mponet.errors import RecipeError

MOST = 256  # processes that one machine starts
POLL = 0.2  # seconds
PATIENCE = 20.0  # seconds for a process to end when it is told to


def run_processes(command: Sequence[str], count: int, ended: Callable[[int, int], None]) -> list[int]:
    """Run the same command several times at once, and wait for all.

    Each process has its own processors where the system can say so, and ``OMP_NUM_THREADS`` is
    their number unless it is set.

    Args:
        command: arguments of ``mponet``.
        count: number of processes.
        ended: called with the number of a process, from 1, and its exit status.

    Returns:
        The exit statuses.

    Raises:
        RecipeError: ``count`` is out of range.
    """
    if not 1 <= count <= MOST:
        raise RecipeError(f"workers is {count}; expected 1 to {MOST}; choose another number")
    threads = max(cores() // count, 1)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    running: dict[int, subprocess.Popen[bytes]] = {}
    statuses = [0] * count
    try:
        for number in range(1, count + 1):
            running[number] = subprocess.Popen([sys.executable, "-P", "-m", "mponet", *command], env=environment)
            _pin(running[number].pid, number - 1, threads)
        while running:
            sleep(POLL)
            for number, process in list(running.items()):
                if (status := process.poll()) is not None:
                    del running[number]
                    statuses[number - 1] = status
                    ended(number, status)
    finally:
        _stop(list(running.values()))
    return statuses


def _pin(process: int, place: int, threads: int) -> None:
    """Give a process its share of the processors; threads that it starts later inherit it."""
    if hasattr(os, "sched_setaffinity"):
        ours = sorted(os.sched_getaffinity(0))
        share = {ours[(place * threads + k) % len(ours)] for k in range(threads)}
        with suppress(OSError):
            os.sched_setaffinity(process, share)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, which then leave their folders in order; kill those that stay."""
    for process in processes:
        with suppress(OSError):
            process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

"""Processes on this machine: workers of a suite, or a group that trains one model together."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import sleep

from mponet.contraction.machine import cores
from mponet.errors import RecipeError

MOST = 256  # processes that one machine starts
POLL = 0.2  # seconds
PATIENCE = 20.0  # seconds for a process to end when it is told to
Process = subprocess.Popen[bytes]


def run_processes(
    command: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    ended: Callable[[int, int], None],
    *,
    together: bool = False,
) -> list[int]:
    """Run the same command several times at once, and wait for all.

    Each process has its own processors where the system can say so, and ``OMP_NUM_THREADS`` is
    their number unless it is set.

    Args:
        command: arguments of ``mponet``.
        environments: the variables of each process, besides those of this one.
        ended: called with the number of a process, from 0, and its exit status.
        together: whether no process goes on without the others: all are stopped when one fails.

    Returns:
        The exit statuses.

    Raises:
        RecipeError: there are too many.
    """
    count = len(environments)
    if not 1 <= count <= MOST:
        raise RecipeError(f"the number of processes is {count}; expected 1 to {MOST}; choose another number")
    threads = max(cores() // count, 1)
    running: dict[int, Process] = {}
    statuses = [0] * count
    try:
        for number, own in enumerate(environments):
            variables = {"OMP_NUM_THREADS": str(threads), **os.environ, **own}
            running[number] = subprocess.Popen([sys.executable, "-P", "-m", "mponet", *command], env=variables)
            _pin(running[number].pid, number, threads)
        while running:
            sleep(POLL)
            for number, process in list(running.items()):
                if (status := process.poll()) is not None:
                    del running[number]
                    statuses[number] = status
                    ended(number, status)
                    if status and together:
                        return statuses
    finally:
        _stop(list(running.values()))
    return statuses


def group_environments(backend: str, count: int) -> list[dict[str, str]]:
    """The variables that make processes on this machine train together, one mapping for each.

    They are those of the frameworks: what ``torchrun`` sets for PyTorch, the coordinator of
    `jax.distributed`, and ``TF_CONFIG``.
    """
    ports = _free_ports(count)
    workers = [f"127.0.0.1:{port}" for port in ports]
    match backend:
        case "torch":
            common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(ports[0]), "WORLD_SIZE": str(count)}
            return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
        case "jax":
            common = {"JAX_COORDINATOR_ADDRESS": workers[0], "JAX_NUM_PROCESSES": str(count)}
            return [{**common, "JAX_PROCESS_ID": str(rank)} for rank in range(count)]
        case "tensorflow":
            tasks = [{"cluster": {"worker": workers}, "task": {"type": "worker", "index": k}} for k in range(count)]
            return [{"TF_CONFIG": json.dumps(task)} for task in tasks]
    raise RecipeError(f"backend is {backend!r}, which trains in one process; expected torch, jax or tensorflow")


def _free_ports(count: int) -> list[int]:
    """Ports that nothing uses, all held until the last is found so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def _pin(process: int, place: int, threads: int) -> None:
    """Give a process its share of the processors; threads that it starts later inherit it."""
    if hasattr(os, "sched_setaffinity"):
        ours = sorted(os.sched_getaffinity(0))
        share = {ours[(place * threads + k) % len(ours)] for k in range(threads)}
        with suppress(OSError):
            os.sched_setaffinity(process, share)


def _stop(processes: Sequence[Process]) -> None:
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

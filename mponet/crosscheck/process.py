"""Every backend in a process of its own.

So import order and thread libraries cannot interfere.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mponet.errors import BackendError

AT_A_TIME = 2
#: One thread each: threads that wait for one another on a busy machine make small networks many
#: times slower.  No TF32, which keeps 10 of the 23 bits of float32.  TensorFlow logs less.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "NVIDIA_TF32_OVERRIDE": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
#: Time limit of a job, and of each network of a worker.
SECONDS = 600
LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Job:
    """A Python command line.

    Attributes:
        backend: name of the framework that it starts, for messages.
        arguments: arguments of ``python``.
        environment: variables to set.
        seconds: time limit.
    """

    backend: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    seconds: float = SECONDS


def worker(backend: str, folders: Sequence[Path], dtype: str) -> Job:
    """The job that computes the tasks in ``folders``, all of one dtype."""
    wide = (("JAX_ENABLE_X64", "1"),) if dtype == "float64" else ()
    arguments = ("-m", "mponet.crosscheck.worker", backend, *map(str, folders))
    return Job(backend, arguments, wide, SECONDS * max(len(folders), 1))


def devices(backend: str) -> Job:
    """The job that prints a backend's devices as a JSON list."""
    return Job(
        backend, ("-c", "import json, sys, mponet; print(json.dumps(mponet.load(sys.argv[1]).devices()))", backend)
    )


def run(jobs: Sequence[Job]) -> list[str]:
    """Run all jobs and return their standard output, in order.

    Raises:
        BackendError: a job failed (with its last lines of output) or took too long.
    """
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(_run_job, jobs))


def _run_job(job: Job) -> str:
    # -P: files of the current folder, such as a random.py, must not be imported
    command = [sys.executable, "-P", *job.arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=job.seconds, env=_environment(job), check=False
        )
    except subprocess.TimeoutExpired:
        raise BackendError(
            f"backend {job.backend!r} gave no answer for {job.seconds:g} seconds; expected one by then; try a smaller "
            "model or batch"
        ) from None
    if done.returncode:
        output = " / ".join([line.strip() for line in done.stderr.splitlines() if line.strip()][-LAST_LINES:])
        raise BackendError(
            f"backend {job.backend!r} stopped with status {done.returncode}; expected an answer; it said: "
            f"{output or 'nothing'}"
        )
    return done.stdout


def _environment(job: Job) -> dict[str, str]:
    """This process's environment with its import path, `ENVIRONMENT` and the job's variables."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, **ENVIRONMENT, **dict(job.environment)}

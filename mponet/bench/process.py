"""Every measurement in a process of its own, one after another.

Nothing else may run while time is measured.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mponet.errors import BackendError
from mponet.files import read_json

#: Limit of one process, which includes compiling, checking and warming up.
SECONDS = 3600
LAST_LINES = 3
#: TensorFlow logs less when it starts.  The number of threads is the default of the framework.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3"}
#: Further variables by job.  On a CPU TensorFlow counts memory only with this allocator, which
#: would change times.
OF_JOB = {"memory": {"TF_CPU_ALLOCATOR_USE_BFC": "true"}}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the process writes."""

    answer: Any


def run(task: dict[str, Any], seconds: float = SECONDS) -> Any:
    """Run `mponet.bench.worker` with a task and return its answer.

    Args:
        task: the task, which must be serialisable as JSON.
        seconds: the process is stopped after this time.

    Raises:
        BackendError: the process failed (with its last lines of output) or took too long.
    """
    with TemporaryDirectory(prefix="mponet-bench-") as folder:
        answer = Path(folder) / "answer.json"
        # -P: files of the current folder, such as a random.py, must not be imported
        command = [sys.executable, "-P", "-m", "mponet.bench.worker", str(answer), json.dumps(task)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds,
                env=_environment(task["job"]),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BackendError(
                f"measuring {task['backend']} took more than {seconds:g} seconds; expected an answer by then; "
                "measure fewer rounds or rows"
            ) from None
        if done.returncode or not answer.exists():
            output = " / ".join([line.strip() for line in done.stderr.splitlines() if line.strip()][-LAST_LINES:])
            raise BackendError(
                f"measuring {task['backend']} stopped with status {done.returncode}; expected an answer; it said: "
                f"{output or 'nothing'}"
            )
        return read_json(answer, Answer).answer


def _environment(job: str) -> dict[str, str]:
    """The environment of this process with its import path and the variables of the job."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, **ENVIRONMENT, **OF_JOB.get(job, {})}

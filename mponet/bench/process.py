"""Every measurement in a process of its own, one after the other: nothing else may run while the clock does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mponet.errors import BackendError

#: Compiling, checking and warming up included.
SECONDS = 3600
LAST_LINES = 3
#: TensorFlow says less at its start.  Threads are as many as the framework takes by itself.
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3"}
#: For some jobs more.  TensorFlow counts every block on a CPU by another allocator only, which
#: times are not to have.
OF_JOB = {"memory": {"TF_CPU_ALLOCATOR_USE_BFC": "true"}}


def run(task: dict[str, Any], seconds: float = SECONDS) -> Any:
    """The answer of `mponet.bench.worker` to a task.

    Args:
        task: what it is to do; JSON.
        seconds: it is ended after so many.

    Raises:
        BackendError: the process failed, with the last lines that it said, or took too long.
    """
    with TemporaryDirectory(prefix="mponet-bench-") as folder:
        answer = Path(folder) / "answer.json"
        # -P: a file called random.py where the user stands must not be imported
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
            said = " / ".join([line.strip() for line in done.stderr.splitlines() if line.strip()][-LAST_LINES:])
            raise BackendError(
                f"measuring {task['backend']} stopped with status {done.returncode}; expected an answer; it said: "
                f"{said or 'nothing'}"
            )
        return json.loads(answer.read_text(encoding="utf-8"))["answer"]


def _environment(job: str) -> dict[str, str]:
    """Ours, with our own import path."""
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, **ENVIRONMENT, **OF_JOB.get(job, {})}

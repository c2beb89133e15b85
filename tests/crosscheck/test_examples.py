"""Each example is run as its reader would run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example(path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MPONET_BACKEND": "torch"}
    result = subprocess.run(
        [sys.executable, "-W", "default", path], capture_output=True, text=True, timeout=280, env=env
    )
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) >= 3

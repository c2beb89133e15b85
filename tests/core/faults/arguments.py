"""Argument lists that nobody would type, for commands that stop before they train or measure."""

import random
import time
from contextlib import ExitStack, chdir
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from unittest.mock import patch

from click.testing import CliRunner

from core.faults.doors import Counts
from mponet.cli.group import mponet
from mponet.errors import BackendError
from mponet.training.data import load

#: Words in place of any value.
WORDS = (
    *("", "0", "-1", "1", "3", "9" * 400, "9" * 5000, "nan", "inf", "1e400", "0x10", "٣", "\udce9", "a\tb", "--", "-"),
    *("x" * 300, "x" * 5000, "../../..", "/dev/null", "/dev/zero", "/proc/self/mem", "~nosuchuser", "/no/where", "."),
    *("fc2", "fc2:4", "fc2:" + "9" * 400, "fc2," * 3000, "resnet20-k2", "resnet600000002", "resnet" + "9" * 5000),
    *("densenet3000004-12", "densenet40-999999999", "vgg16", "toy", "4,7,7,4", ",".join("2" * 24), ",", "2,,2", "1,1"),
    *("mnist", "digits", "dense", "mpo", "both", "short", "paper", "torch", "numpy", "x.svg", "x.html", "float32"),
)
USUAL = ("fc2", "lenet5", "resnet20", "4,7,7,4")
COMMANDS = {
    "info": ((0, 1), ("--bond", "--batch", "--variant", "--k")),
    "draw": ((1,), ("--bond", "--variant", "--layer", "--colour", "--cut", "--theme", "-o")),
    "plan": ((2,), ("--bond", "--batch", "--top", "--dtype", "--purpose")),
    "run": ((1,), ("--bond", "--data", "--preset", "--epochs", "--steps", "--seed", "--variant", "--out", "--k")),
    "suite": (
        (0,),
        (
            "--models",
            "--seeds",
            "--data",
            "--preset",
            "--epochs",
            "--steps",
            "--out",
            "--status",
            "--sweep",
            "--engine",
        ),
    ),
    "report": ((1,), ("-o", "--with")),
    "spectrum": ((1,), ("--calibration", "--include", "--structure", "--min-weights", "-o")),
    "evaluate": ((1,), ("--data", "--device")),
    "tune": ((0,), ("--backend",)),
}
STOPPED = ("run", "engines", "evaluate", "tune")


def fuzz(count: int, rng: random.Random, folder: Path) -> Counts:
    """Call the command with ``count`` argument lists in ``folder``, an empty one."""
    counts, runner = Counts(), CliRunner()
    load("digits")  # scikit-learn takes seconds, once
    with ExitStack() as stack:
        for name in STOPPED:  # all checks of arguments come before a framework is loaded
            module = import_module(f"mponet.cli.{name}")
            stack.enter_context(patch.object(module, "load", side_effect=BackendError("this is as far as it goes")))
        for _ in range(count):
            arguments = _arguments(rng)
            began = time.perf_counter()
            with chdir(mkdtemp(dir=folder)):
                result = runner.invoke(mponet, arguments, prog_name="mponet")
            counts.documents += 1
            counts.slowest = max(counts.slowest, time.perf_counter() - began)
            counts.accepted += result.exit_code == 0
            counts.refused += result.exit_code in (1, 2)
            shown = [argument[:40] for argument in arguments]
            if result.exit_code not in (0, 1, 2) or (result.exception and not isinstance(result.exception, SystemExit)):
                counts.faults += (f"{shown}: {type(result.exception).__name__}: {result.exception}"[:500],)
            elif time.perf_counter() - began > 5:
                counts.faults += (f"{shown}: {time.perf_counter() - began:.1f} s",)
    return counts


def _arguments(rng: random.Random) -> list[str]:
    command = rng.choice(list(COMMANDS))
    places, options = COMMANDS[command]
    words = [rng.choice(USUAL if rng.random() < 0.6 else WORDS) for _ in range(rng.choice(places))]
    for option in rng.sample(options, rng.randint(0, min(3, len(options)))):
        words += [option, rng.choice(("2", "3") if rng.random() < 0.3 else WORDS)]
    backend = ["--backend", "numpy"] if command in ("run", "suite", "evaluate", "plan") else []
    return [command, *words, *backend, *(["--json"] if rng.random() < 0.3 else [])]

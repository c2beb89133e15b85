"""Folders whose files are something else than files of ours."""

import json
import os
import socket
from pathlib import Path

from core.folders import fill, fill_suite
from mponet.training.run import RunFolder, resolve
from mponet.training.suite import read as read_suite

#: What stands in place of a file, by name; a function of the path.
KINDS = {
    "pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "folder": lambda path: path.mkdir(),
    "empty": lambda path: path.write_bytes(b""),
    "huge": lambda path: _sparse(path, 3 << 30),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "foreign": lambda path: path.write_text('{"architectures": ["GPT2"], "n_layer": 12}'),
    "deep": lambda path: path.write_text("[" * 200_000),
    "locked": lambda path: (path.write_text("{}"), path.chmod(0)),
    "socket": lambda path: _socket(path),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
}


def targets(folder: Path) -> list[Path]:
    """A run and a suite in ``folder``; the files that are replaced, one at a time."""
    settings = resolve("fc2", data="digits", images=1437, steps=200, bond=2)
    run = RunFolder(folder / "run", settings)
    fill(folder / "run", settings, "mpo", 0.95)
    fill(folder / "other", settings, "mpo", 0.95)
    fill_suite(folder / "suite", ["fc2:2"], seeds=1)
    inner = read_suite(folder / "suite").trainings()[0].run_folder(folder / "suite")
    return [
        *(folder / "run" / name for name in ("config.json", "result.json")),
        *(run.metrics("mpo"), run.spectra("mpo")),
        *(folder / "suite" / name for name in ("suite.json", "check.json")),
        *(inner / name for name in ("config.json", "result.json", "failed.json")),
    ]


def replaced(target: Path, kind: str) -> None:
    """Put something of this kind where a file was."""
    if target.exists():
        target.unlink()
    KINDS[kind](target)


def extreme(folder: Path, rng) -> None:
    """Numbers that are legal in a run's files, and as far out as they may be."""
    settings = resolve("fc2", data="digits", images=1437, steps=200, bond=2)
    fill(folder, settings, "mpo", 0.95)
    for file, names in (
        ("mpo/metrics.jsonl", ("epoch", "loss", "learning_rate", "images_per_s", "seconds")),
        ("mpo/spectra.jsonl", ("epoch",)),
    ):
        lines = [json.loads(line) for line in (folder / file).read_text().splitlines()]
        for line in lines:
            for name in names:
                line[name] = rng.choice((0, 1e-308, 1e29, 5e-324, 1.0, 1e-15, 3e8, line[name]))
            if "loss" in line:
                line["loss"] = rng.choice((None, 1e308, -1e308, 5e-324, 0.0, line["loss"]))
            for bonds in line.get("operators", {}).values():
                bonds["entropy"] = [rng.choice((0.0, -1e29, 1e29, value)) for value in bonds["entropy"]]
                bonds["singular_values"] = [
                    [rng.choice((0.0, 1e300, 5e-324, value)) for value in values] for values in bonds["singular_values"]
                ]
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = json.loads((folder / "result.json").read_text())
    for name in ("rho", "parameter_ratio", "step_ms", "seconds"):
        result["variants"]["mpo"][name] = rng.choice((0, 1e30, 1e-300, 1.0))
    result["variants"]["mpo"]["loss"] = rng.choice((1e308, -1e308, 5e-324))
    (folder / "result.json").write_text(json.dumps(result))


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as stream:
        stream.truncate(size)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)

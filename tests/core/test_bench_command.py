"""``mponet bench`` as people call it; nothing is measured here.  Needs click and rich."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.command import failing, run
from core.timed import measured, timed
from mponet.bench.rows import NETWORKS, ROWS
from mponet.cli import bench
from mponet.errors import BackendError


@pytest.fixture(autouse=True)
def _a_screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(bench, "installed", lambda name: name == "torch")


@pytest.fixture
def tasks(monkeypatch):
    """The tasks of the processes: layers take 2 seconds, dense layers 4, a peer 5."""
    found = []

    def answer(task, **_):
        found.append(task)
        if task["job"] == "implementations":
            return {
                "names": ["dense", "ours"],
                "environment": {"versions": {"toy": "1"}, "device": "cpu", "threads": 2},
            }
        if task["job"] == "memory":
            return {"name": task["implementation"], "kind": "ours", "versions": {}, "step": 10**6, "parameters": 0}
        if task["job"] == "network":
            sides = {"dense": timed(0.002), "mpo": timed(0.003)}
            times = {**sides, "ratio": 1.5, "ratio_of_minima": 1.25, "mark": "✗", "spread": 0.1}
            targets = {"step": task["network"]["step"], "inference": task["network"]["inference"]}
            facts = {"versions": {"toy": "1"}, "device": "cpu", "threads": 2, "batch": 3, "targets": targets}
            return {"backend": "torch", "network": task["network"]["name"], "step": times, "inference": times, **facts}
        return [
            measured(row["name"], ours=2.0, **({"dense": 4.0} if row["compared"] else {}), peer=5.0, odd="no [way]")
            | {"batch": row["batch"]}
            for row in task["rows"]
        ]

    monkeypatch.setattr(bench, "run", answer)
    return found


def test_layers_tells_ratios_targets_peers_and_writes_all_figures(tasks, tmp_path):
    file = tmp_path / "bench.json"
    result = run("bench", "layers", "--rounds", "16", "--json", str(file))
    assert result.exit_code == 0, result.output
    assert [row["name"] for task in tasks for row in task["rows"]] == [row.name for row in ROWS]
    assert {(task["backend"], task["rounds"], task["peers"]) for task in tasks} == {("torch", 16, True)}
    assert "toy: " not in result.stdout
    assert "torch: toy 1, cpu, 2 threads, float32" in result.stdout
    assert "geometric mean 2.50; target 3.0" in result.stdout
    assert "odd cannot take" in result.stdout
    assert "no [way]" in result.stdout
    assert "resnet-unit: no dense layer of this size is measured; ours runs at 0.0 GFLOP/s" in result.stdout
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["bench"] == "layers"
    assert len(found["rows"]) == len(ROWS)
    assert found["over_peers"]["torch"]["step"]["mean"] == pytest.approx(2.5)


def test_rows_and_peers_are_chosen(tasks):
    result = run("bench", "layers", "--rows", "fc2-d16, fc2-d4", "--no-peers", "--backend", "pytorch")
    assert result.exit_code == 0, result.output
    assert [row["name"] for task in tasks for row in task["rows"]] == ["fc2-d4", "fc2-d16"]
    assert not any(task["peers"] for task in tasks)
    assert "peer" not in result.stdout


def test_memory_gives_every_implementation_a_process(tasks, tmp_path):
    result = run("bench", "memory", "--rows", "fc2-d4")
    assert result.exit_code == 0, result.output
    assert [task.get("implementation") for task in tasks] == [None, "dense", "ours"]
    assert "1.42" in result.stdout  # a megabyte, inputs, and the gradient of the outputs


def test_models_are_timed(tasks):
    result = run("bench", "models", "--rows", "lenet5")
    assert result.exit_code == 0, result.output
    assert [(task["job"], task["network"]["model"], task["rounds"]) for task in tasks] == [("network", "lenet5", 15)]
    headings, _, *lines = [line.split() for line in result.stdout.splitlines() if line][1:5]
    assert headings[:3] == ["network", "pass", "batch"]
    assert lines[0] == ["lenet5", "step", "3", "2", "3", "1.50", "1.25", "1.10", "✗", "10%"]
    assert lines[1] == ["inference", "3", "2", "3", "1.50", "1.25", "1.02", "✗", "10%"]


@pytest.mark.parametrize("columns", [20, 80, 200])
@pytest.mark.parametrize("command", ["layers", "memory", "models", "growth", "crossover"])
def test_no_name_is_cut_on_any_terminal(tasks, command, columns):
    result = run("bench", command, COLUMNS=str(columns))
    assert result.exit_code == 0, result.output
    assert "…" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= columns
    names = {
        "layers": {*(row.name for row in ROWS), "of minima", "best peer", "peer/ours", "spread"},
        "memory": {*(row.name for row in ROWS), "limit", "ours", "dense"},
        "models": {*(row.name for row in NETWORKS), "mpo/dense", "inference", "target"},
        "growth": {"ours forward", "dense step", "of products", "8192"},
        "crossover": {"width 256", "width 4096", "bond"},
    }[command]
    assert not {name for name in names if name not in result.stdout}


def test_growth_and_crossover_print_tables_and_draw(tasks, tmp_path):
    pytest.importorskip("matplotlib")
    for command in ("growth", "crossover"):
        chart, file = tmp_path / f"{command}.svg", tmp_path / f"{command}.json"
        result = run("bench", command, "--chart", str(chart), "--json", str(file))
        assert result.exit_code == 0, result.output
        assert chart.read_text(encoding="utf-8").startswith("<?xml")
        assert json.loads(file.read_text(encoding="utf-8"))["bench"] == command


def test_an_unknown_row_or_framework_is_one_clear_line():
    failing(run("bench", "layers", "--rows", "fc2-d4,nonsense"), "--rows names nonsense", "expected some of", "fc2-d16")
    failing(run("bench", "layers", "--rows", ","), "--rows names nothing")
    failing(run("bench", "layers", "--backends", "jax"), "jax cannot be measured", "pip install")
    failing(run("bench", "layers", "--backends", "numpy"), "numpy cannot be measured")


def test_a_process_that_fails_stops_no_other(tasks, monkeypatch, tmp_path):
    answer = bench.run

    def failing_for_one(task, **options):
        if task["rows"][0]["name"] == "fc2-d4":
            raise BackendError("measuring torch stopped with status -9")
        return answer(task, **options)

    monkeypatch.setattr(bench, "run", failing_for_one)
    file = tmp_path / "bench.json"
    result = run("bench", "layers", "--rows", "fc2-d4,fc2-d16", "--json", str(file))
    assert result.exit_code == 1
    assert "error: measuring torch stopped with status -9" in result.stderr
    assert [row["row"] for row in json.loads(file.read_text(encoding="utf-8"))["rows"]] == ["fc2-d16"]


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tasks, tmp_path):
    for option in ("--json", "--chart"):
        result = run("bench", "growth", option, str(tmp_path / "absent" / "x"))
        assert result.exit_code == 2
        assert "cannot be written" in result.stderr
    assert not tasks


def test_markdown_tables_come_from_the_files(tasks, tmp_path):
    files = [tmp_path / f"{command}.json" for command in ("layers", "memory", "models", "growth", "crossover")]
    for file in files:
        assert run("bench", file.stem, "--json", str(file)).exit_code == 0
    page = markdown(*files)
    assert page.returncode == 0, page.stderr
    assert "| `fc2-d4` | `M" in page.stdout
    assert "the best peer takes 2.50 times as long" in page.stdout
    assert "- odd cannot take `4096-n2-d4`, " in page.stdout
    headings = [line for line in page.stdout.splitlines() if line.startswith("## ")]
    assert headings == [f"## {file.stem.capitalize()}" for file in files]
    widths = {line.count("|") for line in page.stdout.splitlines() if line.startswith("| `lenet5`")}
    assert widths == {10}


def test_markdown_of_networks_lowered_and_by_hand(tmp_path):
    both = {"plain": 80.0, "lowered": 40.0}
    row = {"backend": "torch", "model": "vgg16", "batch": 16, "versions": {"torch": "2.13"}, "device": "cpu"}
    row |= {"ratio": 2.0, "ratio_of_minima": 1.5, "ratio_of_processor": 1.25}
    row |= {
        "images_per_second": both,
        "spread": {"plain": 0.02, "lowered": 0.05},
        "memory": {"plain": 6e8, "lowered": 7e8},
    }
    file = tmp_path / "plumbing.json"
    file.write_text(json.dumps([row]), encoding="utf-8")
    page = markdown(file)
    assert page.returncode == 0, page.stderr
    assert "16 images a step; torch 2.13; on cpu." in page.stdout
    assert "| torch | `vgg16` | 2.000 | 1.500 | 1.250 | 40.0 | 80.0 | 5% | 700 | 600 |" in page.stdout


def test_markdown_of_something_else_is_refused(tmp_path):
    file = tmp_path / "other.json"
    file.write_text("{}", encoding="utf-8")
    refused = markdown(file)
    assert refused.returncode == 1 and "other.json was not written by mponet bench" in refused.stderr


def markdown(*files):
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    script = Path(__file__).parents[2] / "docs" / "performance.py"
    return subprocess.run([sys.executable, script, *files], capture_output=True, encoding="utf-8", env=environment)

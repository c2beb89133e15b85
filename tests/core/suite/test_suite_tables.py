"""What a suite tells: its status while it runs, and its tables."""

import csv
import json
from io import StringIO

import numpy as np
import pytest

from core.suites import CELLS, STEPS, Breaking, make
from core.toy import Killed, ToyBackend
from mponet.training.suite import execute, plan, read, report, run_suite, states
from mponet.training.suite.published import Figure
from mponet.training.suite.table import figure
from mponet.training.suite.write import comma_separated, markdown, percent

# ---------------------------------------------------------------- status


class Spy(execute.NullObserver):
    """Looks at the status whenever a cell is finished, and in the middle of the third."""

    def __init__(self, suite, home):
        self.suite, self.home, self.seen = suite, home, []

    def watching(self, cell, number, count):
        from contextlib import nullcontext

        return nullcontext(self if number == 3 else None)

    def started(self, variant, steps, per_epoch, earlier):
        self.seen.append(states(self.suite, self.home))

    def advanced(self, record):
        self.seen.append(states(self.suite, self.home))

    def finished(self, *_):
        pass


def test_the_status_of_a_suite_at_work(tmp_path, digits, suite):
    spy = Spy(suite, tmp_path)
    run_suite(suite, ToyBackend(), digits, tmp_path, observer=spy)
    begin, first = spy.seen[0], spy.seen[1]
    assert [state.state for state in begin] == ["done", "done", "running", *["waiting"] * 3]
    assert [(state.step, state.steps) for state in first][1:4] == [(60, 60), (20, 60), (0, 60)]
    running, waiting = first[2], first[3]
    assert running.accuracy == running.best_accuracy > 0 and running.age >= 0
    assert running.left == pytest.approx(running.seconds / 20 * 40)
    assert waiting.left == pytest.approx(first[0].seconds)  # as long as the same network took with seed 0
    assert first[0].left == 0.0
    assert {state.state for state in states(suite, tmp_path)} == {"done"}


def test_the_status_of_a_suite_that_was_killed_writes_nothing(tmp_path, digits, suite):
    with pytest.raises(Killed):
        run_suite(suite, ToyBackend(kill_at=2 * STEPS + 25), digits, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    found = states(suite, tmp_path)
    assert [state.state for state in found] == ["done", "done", "stopped", *["waiting"] * 3]
    assert found[2].step == 20 and found[2].age >= 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_status_says_what_failed(tmp_path, digits, suite):
    run_suite(suite, Breaking(), digits, tmp_path)
    found = {state.name: state for state in states(suite, tmp_path)}
    assert found["toy-mpo-D1-seed1"].state == "failed"
    assert "ZeroDivisionError" in found["toy-mpo-D1-seed1"].message
    (tmp_path / "toy-mpo-D1-seed0" / "failed.json").write_text("{")
    (tmp_path / "toy-dense-seed0" / "result.json").write_text("{")
    found = {state.name: state for state in states(suite, tmp_path)}
    for name, file in (("toy-mpo-D1-seed0", "failed.json"), ("toy-dense-seed0", "result.json")):
        assert found[name].state == "failed" and file in found[name].message


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("count", [2, 3, 5])
def test_means_and_deviations_are_those_of_numpy(count):
    values = np.random.default_rng(count).random(count).tolist()
    found = figure(values)
    # Sums of at most 5 numbers below 1 are right to a few units in the last place, below 1e-15, and
    # so are differences from the mean; the root of the mean of their squares is as right as they
    # are.
    assert found.mean == pytest.approx(np.mean(values), abs=1e-14)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-14)


def test_one_value_has_no_deviation_and_none_no_mean():
    assert (figure([0.5]), figure([])) == (Figure(0.5, None), None)
    assert [percent(one) for one in (Figure(0.98351, 0.002), figure([0.5]), None)] == ["98.35 ± 0.20", "50.00", "-"]


def test_the_tables_hold_the_figures_of_the_runs(tmp_path, digits, suite):
    made = run_suite(suite, ToyBackend(), digits, tmp_path)
    results = {
        name: json.loads((tmp_path / name / "result.json").read_text())["variants"] for name in CELLS if "mpo" in name
    }
    for bond, row in (("", made.rows[0]), ("-D1", made.rows[1])):
        ours = [results[f"toy-mpo{bond}-seed{seed}"]["mpo"] for seed in (0, 1)]
        assert row.mpo.best.mean == pytest.approx(np.mean([one["best_accuracy"] for one in ours]), abs=1e-14)
        assert row.mpo.last.deviation == pytest.approx(np.std([one["accuracy"] for one in ours], ddof=1), abs=1e-14)
        assert (row.rho, row.parameter_ratio) == (ours[0]["rho"], ours[0]["parameter_ratio"])
    written = json.loads((tmp_path / "tables.json").read_text())
    assert written["rows"][1]["mpo"]["last"]["mean"] == made.rows[1].mpo.last.mean


def test_markdown_and_csv_can_be_read_back(tmp_path, digits, suite):
    made = run_suite(suite, ToyBackend(), digits, tmp_path)
    head, rule, *lines = markdown(made).split("\n\n")[0].splitlines()
    assert {line.count("|") for line in (head, rule, *lines)} == {15}
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[:3] for line in cells] == [["toy", "published", "digits"], ["toy", "1", "digits"]]
    assert cells[1][4] == percent(made.rows[1].mpo.best) and " ± " in cells[1][4]
    parsed = list(csv.DictReader(StringIO(comma_separated(made))))
    assert [row["bond"] for row in parsed] == ["", "1"]
    assert float(parsed[1]["mpo_best_deviation"]) == made.rows[1].mpo.best.deviation
    assert parsed[0]["paper_mpo"] == ""
    assert "The paper's figures are the best over all evaluations on the test set" in markdown(made)


def test_low_rank_is_a_column_where_the_suite_trains_it(tmp_path, digits):
    suite = make(("toy", "toy:1"), variants=("mpo", "low-rank"), seeds=1)
    made = run_suite(suite, ToyBackend(), digits, tmp_path)
    names = ["toy-mpo-seed0", "toy-low-rank-seed0", "toy-mpo-D1-seed0", "toy-low-rank-D1-seed0"]
    assert [str(training) for training in suite.trainings()] == names
    assert read(tmp_path) == suite
    for row, name in zip(made.rows, names[1::2], strict=True):
        result = json.loads((tmp_path / name / "result.json").read_text())["variants"]["low-rank"]
        assert (row.low_rank.last.mean, row.low_rank_rho) == (result["accuracy"], result["rho"])
    head, _, line, _ = markdown(made).split("\n\n")[0].splitlines()
    cells = dict(zip(*([cell.strip() for cell in one.strip("|").split("|")] for one in (head, line)), strict=True))
    assert cells["low-rank last"] == percent(made.rows[0].low_rank.last)
    assert (cells["seeds"], cells["dense best"]) == ("0, 1, 1", "-")
    parsed = list(csv.DictReader(StringIO(comma_separated(made))))
    assert float(parsed[1]["low_rank_best"]) == made.rows[1].low_rank.best.mean


def test_the_tables_are_there_while_cells_wait(tmp_path, digits, suite):
    with pytest.raises(Killed):
        run_suite(suite, ToyBackend(kill_at=2 * STEPS + 5), digits, tmp_path)
    written = json.loads((tmp_path / "tables.json").read_text())
    assert written["waiting"] == CELLS[2:]
    assert (written["rows"][0]["mpo"]["seeds"], written["rows"][1]["mpo"]["best"]) == (1, None)
    assert f"Not finished: {', '.join(CELLS[2:])}." in (tmp_path / "tables.md").read_text()


def test_the_figures_of_the_paper_stand_beside_ours(tmp_path):
    images = {"mnist": 60_000, "cifar10": 50_000}
    text = markdown(report(plan(("fc2:4", "resnet56-unit"), backend="toy", images=images), tmp_path))
    assert "| 98.35 ± 0.20 | 97.80 ± 0.34 | 0.0087 | PRR 2, 023300 (2020), Fig. 2 |" in text
    assert "| 94.33 ± 0.49 | the same accuracy | - |" in text

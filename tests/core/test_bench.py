"""``mponet bench`` without a framework or clock: orders, statistics, verdicts, checks, charts."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest
from pytest import approx

from core.timed import measured
from mponet.bench import chart, growth, implementation, layers, memory, rows, verdict, worker
from mponet.bench.implementation import Implementation
from mponet.bench.rounds import SAMPLE, interleave
from mponet.bench.rows import NETWORKS, ROWS, Row
from mponet.bench.statistics import Summary, exponent, geometric_mean, typical_spread
from mponet.errors import BackendError, InputError
from mponet.models import build
from mponet.operators.initialize import exact_variance
from mponet.operators.mpo import to_matrix
from mponet.operators.shape import MPOShape

SHAPES = (
    MPOShape.from_factors((4, 6), (3, 5), 7),
    MPOShape.from_factors((2, 3, 4), (5, 2, 3), 4),
    MPOShape.from_factors((2, 3, 2, 2), (2, 1, 5, 3), (3, 2, 4)),
    MPOShape.from_factors((6,), (5,), ()),
)
SMALL = Row("small", MPOShape.from_factors((2, 3), (4, 2), 3), 5, forward=1.0, step=2.0)


# ---------------------------------------------------------------- what is measured


def test_rows_are_those_of_the_paper_and_of_the_targets():
    found = {row.name: row for row in ROWS}
    assert len(found) == len(ROWS) == 9
    assert [(row.forward, row.step) for row in ROWS] == [
        *((0.18, 0.25), (0.60, 0.95), (0.17, 0.28), (0.28, 0.38), (0.20, 0.28)),
        *((None, None), (1.00, 1.10), (1.20, 1.30), (1.50, 1.80)),
    ]
    assert [row.name for row in ROWS if not row.compared] == ["resnet-unit"]
    assert found["resnet-unit"].shape.in_features == 16384
    assert found["fc2-d16"].shape.parameters == 14848  # paper, Fig. 2


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_networks_exist(network):
    assert build(network.model, "mpo", network.bond).bond == network.bond or network.bond is None


def test_a_row_survives_the_way_to_another_process():
    for row in ROWS:
        assert worker.row_of(worker.task_of(row)) == row


# ---------------------------------------------------------------- the same map in other words


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_einstein_sum_is_the_operator(shape):
    mpo = exact_variance(shape, np.random.default_rng(0))
    inputs = np.random.default_rng(1).normal(size=(4, shape.in_features))
    split = inputs.reshape(4, *shape.input_dims)
    right = inputs @ to_matrix(mpo)
    cores = implementation.bare(mpo)
    plain = np.einsum(implementation.equation(shape.sites), split, *cores)
    best = implementation.einsum_expression(shape, 4, "opt_einsum")(split, *cores)
    assert plain.reshape(4, -1) == approx(right)
    assert best.reshape(4, -1) == approx(right)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_matrices_of_the_authors_code_sweep_to_the_operator(shape):
    mpo = exact_variance(shape, np.random.default_rng(0))
    inputs = np.random.default_rng(1).normal(size=(4, shape.in_features))
    state = inputs.T
    for matrix, output in zip(implementation.paper_matrices(mpo), shape.output_dims, strict=True):
        state = (matrix @ state.reshape(matrix.shape[1], -1)).reshape(output, -1).T
    assert state.reshape(4, -1) == approx(inputs @ to_matrix(mpo))


def test_equations_name_batch_inputs_outputs_bonds():
    assert implementation.equation(1) == "ab,bc->ac"
    assert implementation.equation(3) == "abcd,beh,hcfi,idg->aefg"


def test_low_rank_has_about_as_many_parameters():
    shape = MPOShape.from_factors((64, 64), (64, 64), 4)
    rank = implementation.low_rank(shape)
    assert rank * (shape.in_features + shape.out_features) == approx(shape.parameters, rel=0.5 / rank)
    assert implementation.low_rank(MPOShape.from_factors((2, 2), (2, 2), 1)) == 1


def test_missing_packages_are_named_and_present_ones_have_versions():
    found = Implementation("x", "peer", print, ("numpy", "no-such-package"))
    assert found.absent == ("no-such-package",)
    assert found.versions == {"numpy": np.__version__}


# ---------------------------------------------------------------- taking turns


class Clock:
    """A clock that only calls move."""

    def __init__(self):
        self.now, self.calls, self.collecting = 0.0, [], set()

    def __call__(self):
        return self.now

    def call(self, name, seconds):
        def run():
            self.now += seconds
            self.calls.append(name)
            self.collecting.add(gc.isenabled())

        return run


def test_everybody_takes_turns_in_both_orders():
    clock = Clock()
    calls = {"a": clock.call("a", 1.0), "b": clock.call("b", 2.0), "c": clock.call("c", 3.0)}
    samples = interleave(calls, 4, patience=100, clock=clock)
    assert samples == {"a": [1.0] * 8, "b": [2.0] * 8, "c": [3.0] * 8}
    assert "".join(clock.calls) == "aaabbbccc" + "abccba" * 4


def test_a_fast_call_is_repeated_within_a_sample():
    clock = Clock()
    samples = interleave({"fast": clock.call("fast", SAMPLE / 10)}, 2, clock=clock)
    assert samples["fast"] == approx([SAMPLE / 10] * 4)
    assert len(clock.calls) == 3 + 4 * 10


def test_a_slow_call_takes_part_in_fewer_rounds_spread_over_all():
    clock = Clock()
    calls = {"slow": clock.call("slow", 5.0), "ours": clock.call("ours", 5.0), "quick": clock.call("quick", 1.0)}
    samples = interleave(calls, 12, always=("ours",), patience=40, clock=clock)
    assert {name: len(values) for name, values in samples.items()} == {"slow": 8, "ours": 24, "quick": 24}
    timed = "".join(name[0] for name in clock.calls[9:])
    assert timed == ("oqqo" * 2 + "soqqos") * 4


def test_a_call_that_is_far_too_slow_still_gives_three_rounds():
    clock = Clock()
    assert len(interleave({"a": clock.call("a", 1e3)}, 15, patience=1, clock=clock)["a"]) == 6


def test_no_garbage_is_collected_while_the_clock_runs():
    clock = Clock()
    assert gc.isenabled()
    interleave({"a": clock.call("a", 1.0)}, 2, clock=clock)
    assert gc.isenabled()
    clock.collecting.clear()
    with pytest.raises(ZeroDivisionError):
        interleave({"a": lambda: 1 / 0}, 2, clock=clock)
    assert gc.isenabled()


# ---------------------------------------------------------------- figures


def test_a_summary_is_median_minimum_and_spread():
    found = Summary.of([4.0, 1.0, 2.0, 3.0, 10.0])
    assert (found.median, found.minimum, found.samples) == (3.0, 1.0, 5)
    assert found.spread == approx((4.0 - 2.0) / 3.0)
    with pytest.raises(InputError, match="1 samples; expected at least 2"):
        Summary.of([1.0])


def test_means_and_exponents():
    assert geometric_mean([2.0, 8.0]) == approx(4.0)
    assert geometric_mean([]) is None
    assert exponent([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0]) == approx(2.0)
    assert exponent([4], [1.0]) is None
    assert typical_spread([0.1, 0.3, 0.2]) == 0.2
    assert typical_spread([]) is None


def test_ours_is_compared_with_the_dense_layer_and_with_the_best_peer_only():
    row = measured(dense=4.0, ours=2.0, low=0.1, one=6.0, two=5.0, three="cannot do that")
    first, second = verdict.lines([row])
    assert (first.ratio, first.target, first.mark, first.peer, first.over_peer) == (0.5, 1.0, "✓", "two", 2.5)
    assert (second.which, second.dense, second.ours, second.ratio) == ("step", 8.0, 4.0, 0.5)
    assert verdict.unsupported([row]) == {"three": [("small", "cannot do that")]}


def test_a_row_without_a_dense_layer_has_no_ratio():
    line = next(verdict.lines([measured(target=None, ours=2.0, one=5.0)]))
    assert (line.dense, line.ratio, line.mark, line.over_peer) == (None, None, "", 2.5)


@pytest.mark.parametrize(
    ("ratio", "least", "target", "expected"),
    [(0.9, 0.8, 1.0, "✓"), (1.1, 1.2, 1.0, "✗"), (1.1, 0.9, 1.0, "?"), (0.9, 1.1, 1.0, "?"), (1.0, 1.0, None, "")],
)
def test_a_verdict_needs_medians_and_minima_to_agree_and_little_noise(ratio, least, target, expected):
    assert verdict.mark(ratio, least, target, 0.1) == expected
    assert verdict.mark(ratio, least, target, 0.6) == ("" if target is None else "?")


def test_the_mean_over_peers_and_whoever_is_faster():
    found = verdict.over_peers([measured("a", dense=1.0, ours=1.0, p=4.0), measured("b", dense=1.0, ours=2.0, p=1.0)])
    assert found["forward"]["mean"] == approx(2.0**0.5)
    assert found["forward"]["target"] == 3.0
    assert found["step"]["faster"] == [{"row": "b", "name": "p", "ours_over_peer": 2.0}]


def test_the_machine_says_how_busy_it_is():
    found = verdict.machine()
    assert found["cores"] >= 1
    assert found["processor"]


# ---------------------------------------------------------------- a layer measured


class Passes:
    def __init__(self, native, inputs, slopes):
        self.native, self.inputs = native, inputs

    def forward(self):
        return self.native.run(self.inputs)

    def step(self):
        return self.forward()

    def outputs(self):
        return self.forward().astype(np.float32)


def native(factor=1.0):
    """A layer in numpy; with another factor than 1 it is wrong."""

    def make(mpo, bias):
        plan = SimpleNamespace(multiplications=lambda batch: 7 * batch)
        return SimpleNamespace(
            run=lambda inputs: factor * (inputs @ to_matrix(mpo) + bias),
            plans=lambda batch: SimpleNamespace(forward=plan, training=plan),
        )

    return make


def impossible(mpo, bias):
    raise AssertionError("takes  perfect\npowers")


def toy(*implementations):
    return SimpleNamespace(
        Passes=Passes, implementations=lambda: implementations, settings=lambda: {"threads": 1, "device": "cpu"}
    )


DENSE, OURS = Implementation("dense", "dense", native()), Implementation("ours", "ours", native())


@pytest.fixture
def with_toy(monkeypatch):
    def use(*implementations):
        monkeypatch.setattr(layers, "bench_of", lambda backend: toy(*implementations))
        monkeypatch.setattr(layers, "load", lambda backend: SimpleNamespace(versions=lambda: {"toy": "1"}))

    return use


def test_every_contender_is_checked_before_it_is_timed(with_toy):
    with_toy(
        *(DENSE, OURS, Implementation("right", "peer", native()), Implementation("wrong", "peer", native(1.001))),
        *(Implementation("other", "other", native(3.0)), Implementation("picky", "peer", impossible)),
        *(
            Implementation("absent", "peer", native(), ("no-such-package",)),
            Implementation("W", "peer", native(), (), True),
        ),
    )
    found = layers.measure("toy", SMALL, rounds=2)
    entries = {entry["name"]: entry for entry in found["contenders"]}
    assert list(entries) == ["dense", "ours", "right", "wrong", "other", "picky", "absent", "W"]
    assert "computes something else: error 1" in entries["wrong"]["cannot"]
    assert entries["picky"]["cannot"] == "takes perfect"
    assert entries["absent"]["cannot"] == "not installed: no-such-package"
    assert entries["right"]["error"] < layers.CLOSE
    assert entries["other"]["error"] is None
    assert entries["ours"]["step"]["samples"] == 4
    assert found["plans"]["multiplications"] == 35
    assert found["notation"] == str(SMALL.shape)


def test_no_figure_is_given_for_a_wrong_layer_of_ours(with_toy):
    with_toy(DENSE, Implementation("ours", "ours", native(1.001)))
    with pytest.raises(InputError, match="computes something else"):
        layers.measure("toy", SMALL, rounds=2)


def test_a_layer_too_large_for_its_matrix_is_checked_through_the_graph(with_toy):
    with_toy(DENSE, OURS, Implementation("W", "peer", native(), (), True))
    row = Row("large", SMALL.shape, 5, compared=False)
    entries = {entry["name"]: entry for entry in layers.measure("toy", row, rounds=2)["contenders"]}
    assert list(entries) == ["ours", "W"]
    assert entries["ours"]["error"] < layers.CLOSE
    assert entries["W"]["cannot"].startswith("would form a matrix")


def test_peers_can_be_left_out(with_toy):
    with_toy(DENSE, OURS, Implementation("right", "peer", native()))
    found = layers.measure("toy", SMALL, rounds=2, peers=False)
    assert [entry["name"] for entry in found["contenders"]] == ["dense", "ours"]


def test_a_backend_that_nobody_can_time_is_an_error():
    with pytest.raises(BackendError, match=r"'numpy' has no module mponet_numpy\.bench"):
        layers.bench_of("numpy")


# ---------------------------------------------------------------- memory, growth, charts


def test_memory_is_held_against_activations_and_our_parameters():
    shape, batch = SMALL.shape, SMALL.batch
    activations, parameters = batch * (shape.in_features + shape.out_features), shape.parameters + shape.out_features
    assert memory.limit(SMALL) == int(rows.MEMORY * 4 * 2 * (activations + parameters))
    assert memory.total(SMALL, {"parameters": 100, "step": 1000}) == 4 * activations + 1100
    found = memory.combine("toy", SMALL, [{"name": "ours", "parameters": 100, "step": 1}], {"threads": 1})
    assert memory.mark(found) == "✓"
    assert memory.mark({**found, "limit": 10}) == "✗"


def test_growth_has_one_size_that_grows_and_fits_exponents():
    width, bond, batch = growth.axes()
    assert [row.shape.in_features for row in width.rows] == list(growth.WIDTHS)
    assert [max(row.shape.bond_dims) for row in bond.rows] == list(growth.BONDS)
    assert [row.batch for row in batch.rows] == list(growth.BATCHES)
    found = growth.curves(
        batch,
        [
            measured(dense=2.0 * size, ours=1.0 * size**0.5) | {"batch": size, "plans": {"multiplications": size}}
            for size in batch.sizes
        ],
    )
    assert found["dense"]["measured"]["step"] == approx(1.0)
    assert found["ours"]["measured"]["forward"] == approx(0.5)
    assert [found[name]["theory"] for name in ("ours", "dense")] == approx([1.0, 1.0])


def test_the_map_covers_its_sizes():
    found = [measured(row.name, dense=2.0, ours=1.0) for rows_of_batch in growth.grid() for row in rows_of_batch]
    ratios = growth.ratios(found, "step")
    assert len(ratios) == len(growth.MAP_WIDTHS) * len(growth.MAP_BONDS) * len(growth.MAP_BATCHES)
    assert ratios[1, 256, 2] == 0.5


def test_charts_are_the_same_bytes_every_time(tmp_path):
    pytest.importorskip("matplotlib")
    axis = growth.axes()[1]
    found = [measured(dense=2.0, ours=1.0 * size) | {"plans": {"multiplications": size}} for size in axis.sizes]
    files = [tmp_path / name for name in ("a.svg", "b.svg", "c.svg", "d.svg")]
    for file in files[:2]:
        chart.growth(file, [growth.curves(axis, found)], "<title>")
    ratios = {(1, 2, 4): 0.5, (1, 2, 8): 2.0, (1, 4, 4): 0.1, (8, 2, 4): 1.5}
    for file in files[2:]:
        chart.crossover(file, ratios, "title")
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert texts[0] == texts[1]
    assert texts[2] == texts[3]
    assert "&lt;title&gt;" in texts[0]
    assert "power 1.00" in texts[0]
    assert "0.10" in texts[2]

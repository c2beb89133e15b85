"""Healing over an adapter of numpy: what moves, how long, in what order, and that it can go on."""

from dataclasses import replace

import numpy as np
import pytest

from mponet.compress.healing import HealConfig, OperatorParameters, checkpoint, heal, loop
from mponet.compress.healing.adapter import FIRST, PARAMETERS
from mponet.compress.healing.decay import norm_gradients
from mponet.compress.healing.retruncate import retruncate
from mponet.compress.healing.roles import rate_factors
from mponet.errors import CheckpointError, CompressionError, DivergedError, RecipeError
from mponet.operators import chain
from mponet.training import blocks
from mponet_numpy.ops.arrays import OPS

SHAPES = {"layer.core1": (1, 4, 1, 2), "layer.core2": (2, 1, 3, 1), "layer.bias": (3,), "norm": (4,)}
LAYER = OperatorParameters(("layer.core1", "layer.core2"), ("layer.bias",))


class Toy:
    """A low-rank matrix with a bias learns a matrix; momentum descent with gradients by hand."""

    def __init__(self, config):
        generator = np.random.default_rng(0)
        self.config = config
        self.values = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
        self.moments = {}
        self.wanted = generator.normal(size=(4, 3))
        self.seen, self.closed = [], 0

    def parameters(self):
        return {name: value.shape for name, value in self.values.items()}

    def operators(self):
        return {"layer": LAYER}

    def start(self, factors):
        self.factors = factors

    def step(self, batch, rate, step):
        self.seen.append(batch)
        first, second, bias, scale = self.values.values()
        rest = batch * scale @ chain.to_matrix([first, second]) + bias - batch @ self.wanted
        left, right = first.reshape(4, -1), second.reshape(-1, 3)
        scaled = batch * scale
        gradients = {
            "layer.core1": (scaled.T @ rest @ right.T).reshape(first.shape) / len(batch),
            "layer.core2": ((scaled @ left).T @ rest).reshape(second.shape) / len(batch),
            "layer.bias": rest.mean(0),
            "norm": (batch * (rest @ right.T @ left.T)).mean(0),
        }
        cores = [first, second]
        for name, decay in zip(LAYER.cores, norm_gradients(cores, [c.shape for c in cores], OPS), strict=True):
            gradients[name] = gradients[name] + self.config.weight_decay * decay
        for name, factor in self.factors.items():
            self.moments[name] = 0.9 * self.moments.get(name, 0.0) + gradients[name]
            self.values[name] = self.values[name] - rate * factor * self.moments[name]
        return 0.5 * (rest**2).sum(1).mean()

    def loss(self, batches):
        first, second, bias, scale = self.values.values()
        matrix = scale[:, None] * chain.to_matrix([first, second])
        return float(np.mean([0.5 * ((b @ (matrix - self.wanted) + bias) ** 2).sum(1).mean() for b in batches]))

    def state(self):
        return {PARAMETERS + name: value.copy() for name, value in self.values.items()} | {
            FIRST + name: value.copy() for name, value in self.moments.items()
        }

    def restore(self, state, step):
        for name in self.values:
            self.values[name] = state[PARAMETERS + name].copy()
        self.moments = {n.removeprefix(FIRST): v.copy() for n, v in state.items() if n.startswith(FIRST)}

    def resize(self, operator, cores):
        self.values |= dict(zip(LAYER.cores, cores, strict=True))

    def close(self):
        self.closed += 1


CONFIG = HealConfig(steps=40, learning_rate=0.02, warm_up=0.1, log_every=5)


@pytest.fixture
def data():
    return list(np.random.default_rng(7).normal(size=(6, 8, 4)))


class Killed(Exception):
    """The process ends."""


def until(batches, count):
    """Batches of which the last is never reached."""
    for number, batch in enumerate(batches):
        if number == count:
            raise Killed
        yield batch


def test_the_loss_falls_and_is_reported(data):
    toy, records, calls = Toy(CONFIG), [], []
    report = heal(toy, data, CONFIG, reporter=records.append, progress=lambda *call: calls.append(call))
    assert report.after < report.before / 2
    assert report.after == toy.loss(data[: loop.VALIDATION_BATCHES])
    assert report.steps == 40 and len(toy.seen) == 40 and toy.closed == 1
    assert [record.step for record in report.records] == list(range(5, 41, 5))
    assert list(report.records) == records
    assert calls[-1] == ("heal", 40, 40)
    assert report.trained == sum(np.prod(shape) for shape in SHAPES.values())
    assert "40 steps" in str(report)


def test_the_curve_holds_means_of_the_losses_between_its_entries(data):
    single = heal(Toy(CONFIG), data, replace(CONFIG, log_every=1)).records
    grouped = heal(Toy(CONFIG), data, CONFIG).records
    means = [np.mean([record.loss for record in single[k : k + 5]]) for k in range(0, 40, 5)]
    np.testing.assert_allclose([record.loss for record in grouped], means, rtol=1e-12)


@pytest.mark.parametrize("cuts", [{}, {13: 1}, {5: 0.6}])
@pytest.mark.parametrize("killed", [3, 14, 27])
def test_killed_and_started_again_it_gives_the_same(data, tmp_path, monkeypatch, killed, cuts):
    config = replace(CONFIG, retruncate=cuts, weight_decay=0.01)
    whole = Toy(config)
    expected = heal(whole, data, config)
    monkeypatch.setattr(loop._Source, "batches", killing(loop._Source.batches, killed))
    with pytest.raises(Killed):
        heal(Toy(config), data, config, folder=tmp_path, every=0.0)
    monkeypatch.undo()
    other = Toy(config)
    report = heal(other, data, config, folder=tmp_path)
    assert all((whole.values[name] == other.values[name]).all() for name in SHAPES)
    assert [(r.step, r.loss) for r in report.records] == [(r.step, r.loss) for r in expected.records]
    assert (report.before, report.after, report.truncations) == (expected.before, expected.after, expected.truncations)
    assert len(other.seen) == 40 - killed // 5 * 5
    assert not (tmp_path / checkpoint.LOCK).exists()
    again = Toy(config)  # what is finished is not done again
    assert heal(again, data, config, folder=tmp_path).after == expected.after
    assert not again.seen


def killing(batches, count):
    return lambda self, start: until(batches(self, start), count)


def test_every_batch_is_read_once_per_epoch_in_changing_order(data):
    toy = Toy(CONFIG)
    heal(toy, data, replace(CONFIG, steps=24))
    epochs = [[id(batch) for batch in toy.seen[k : k + 6]] for k in range(0, 24, 6)]
    assert all(sorted(epoch) == sorted(map(id, data)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


class Loader:
    """An iterable without a length, read from the start for every epoch."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter(self.data)


def test_other_iterables_keep_their_order_and_iterators_are_remembered(data):
    orders = []
    for batches in (Loader(data), Loader(iter(data)), iter(data)):
        toy = Toy(CONFIG)
        try:
            heal(toy, batches, replace(CONFIG, steps=12))
        except CompressionError:
            orders.append(None)  # an iterable whose second pass is empty
            continue
        orders.append([id(batch) for batch in toy.seen])
    assert orders[0] == [id(batch) for batch in data] * 2
    assert orders[1] is None
    assert sorted(orders[2]) == sorted(orders[0])


@pytest.mark.parametrize("start", [0, 4, 6, 13])
def test_batches_from_a_step_on_are_those_of_an_uninterrupted_run(data, start):
    for batches in (data, Loader(data)):
        whole, rest = loop._Source(batches, 3).batches(0), loop._Source(batches, 3).batches(start)
        for _ in range(start):
            next(whole)
        assert all(next(whole) is next(rest) for _ in range(20))


@pytest.mark.parametrize("empty", [[], iter(()), Loader([])])
def test_no_data_is_one_error(empty):
    toy = Toy(CONFIG)
    with pytest.raises(CompressionError, match="no batch"):
        heal(toy, empty, CONFIG)
    assert toy.closed == 1


def test_a_time_ends_it(data, monkeypatch):
    ticks = iter(range(10**6))
    for module in (loop, blocks):
        monkeypatch.setattr(module, "perf_counter", lambda: 0.01 * next(ticks))
    config = HealConfig(seconds=3.0, learning_rate=0.02)
    report = heal(Toy(config), data, config)
    assert 10 < report.steps < 300
    assert report.records[-1].step == report.steps
    assert report.records[-1].learning_rate < 0.01 * config.learning_rate
    assert report.seconds == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize(
    ("train", "moved"),
    [
        ("all", set(SHAPES)),
        ("operators", {"layer.core1", "layer.core2", "layer.bias"}),
        ("central", {"layer.core1"}),
        ("auxiliary", {"layer.core2", "layer.bias"}),
        (("norm", "core2"), {"norm", "layer.core2"}),
    ],
)
def test_only_what_is_chosen_moves(data, train, moved):
    config = replace(CONFIG, train=train)
    toy, balanced = Toy(config), Toy(config)
    retruncate(balanced, 1.0, 0)  # as healing begins: other cores, the same operator
    before = balanced.values
    report = heal(toy, data, config)
    assert {name for name, value in toy.values.items() if (value != before[name]).any()} == moved
    assert report.trained == sum(int(np.prod(SHAPES[name])) for name in moved)


def test_cores_are_balanced_first(data):
    """Whatever the gauge that they come in, which would decide how much a step changes."""
    results = []
    for scale in (1.0, 1e4):
        toy = Toy(CONFIG)
        toy.values["layer.core1"], toy.values["layer.core2"] = (
            toy.values["layer.core1"] * scale,
            toy.values["layer.core2"] / scale,
        )
        results.append(heal(toy, data, CONFIG).after)
    assert results[0] == pytest.approx(results[1], rel=1e-9)


def test_rates_are_by_role_or_by_name():
    config = replace(CONFIG, rates={"central": 0.5, "norm|.*bias": 0.0, ".*": 2.0})
    assert rate_factors(config, SHAPES, {"layer": LAYER}) == {"layer.core1": 0.5, "layer.core2": 2.0}
    with pytest.raises(CompressionError, match="matches no parameter"):
        rate_factors(replace(CONFIG, rates={"norms": 1.0}), SHAPES, {"layer": LAYER})
    with pytest.raises(CompressionError, match="moves no parameter"):
        rate_factors(replace(CONFIG, train="central"), SHAPES, {})
    with pytest.raises(CompressionError, match="matches no parameter"):
        rate_factors(replace(CONFIG, train=("core9",)), SHAPES, {"layer": LAYER})


def test_truncation_is_recorded_and_moments_are_projected(data):
    config = replace(CONFIG, retruncate={20: 1})
    toy = Toy(config)
    report = heal(toy, data, config)
    (cut,) = report.truncations
    assert (cut.step, cut.weights_before, cut.weights) == (20, 14, 7)
    assert 0 < cut.error < 1
    assert {name: value.shape for name, value in toy.moments.items()} == toy.parameters()
    assert all(np.isfinite(value).all() for value in toy.moments.values())
    assert any(toy.moments["layer.core1"].flat)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one"),
        ({"steps": 1, "seconds": 1.0}, "exactly one"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1, "learning_rate": float("nan")}, "learning_rate is nan"),
        ({"steps": 1, "warm_up": 1.0}, "warm_up is 1.0"),
        ({"steps": 1, "optimizer": "lion"}, "expected one of adam, sgd"),
        ({"steps": 1, "train": "biases"}, "expected one of all, operators"),
        ({"steps": 1, "logits": 0.0}, "weigh nothing"),
        ({"steps": 1, "retruncate": {5: 0}}, "bond of at least 1"),
        ({"steps": 1, "retruncate": {5: 1.5}}, "share in"),
        ({"steps": 1, "rates": {"a": -1.0}}, "at least 0"),
        ({"steps": 1, "betas": (0.9,)}, "two numbers"),
    ],
)
def test_odd_configs_are_refused(fields, message):
    with pytest.raises(CompressionError, match=message):
        HealConfig(**fields)


def test_a_loss_that_is_not_finite_stops_it(data):
    config = replace(CONFIG, learning_rate=1e9, warm_up=0.0)
    toy = Toy(config)
    with np.errstate(all="ignore"), pytest.raises(DivergedError, match="smaller learning_rate"):
        heal(toy, data, config)
    assert toy.closed == 1


def test_a_folder_of_another_healing_is_refused(data, tmp_path):
    heal(Toy(CONFIG), data, CONFIG, folder=tmp_path)
    with pytest.raises(CheckpointError, match="another seed"):
        heal(Toy(CONFIG), data, replace(CONFIG, seed=1), folder=tmp_path)
    toy = Toy(CONFIG)
    toy.values["extra"] = np.zeros(3)
    with pytest.raises(CheckpointError, match="extra"):
        heal(toy, data, CONFIG, folder=tmp_path)
    (tmp_path / checkpoint.NAME).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        heal(Toy(CONFIG), data, CONFIG, folder=tmp_path)


def test_one_process_at_a_time_heals_in_a_folder(data, tmp_path):
    def nested(record):
        with pytest.raises(RecipeError, match="in use"):
            heal(Toy(CONFIG), data, CONFIG, folder=tmp_path)
        seen.append(record)

    seen = []
    heal(Toy(CONFIG), data, replace(CONFIG, steps=5), folder=tmp_path, reporter=nested)
    assert len(seen) == 1


def test_a_watcher_that_fails_does_not_stop_it(data):
    def fail(*_):
        raise OSError

    assert heal(Toy(CONFIG), data, CONFIG, progress=fail, reporter=fail).steps == 40

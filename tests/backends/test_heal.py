"""What healing promises on every framework."""

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest

from mponet import to_matrix
from mponet.compress import HealConfig
from mponet.compress.healing.adapter import FIRST, PARAMETERS, SECOND
from mponet.compress.healing.decay import norm_gradients
from mponet.compress.healing.retruncate import retruncate
from mponet.compress.healing.roles import rate_factors
from mponet_numpy.ops.arrays import OPS

pytestmark = pytest.mark.usefixtures("double_precision")
CONFIG = HealConfig(steps=30, learning_rate=3e-3, train="operators", log_every=5)


@pytest.fixture(scope="module")
def lab(backend_name, backend):
    if find_spec(f"contract.heal_{backend_name}") is None:
        pytest.skip(f"healing is not written for {backend_name} yet")
    return import_module(f"contract.heal_{backend_name}")


@pytest.fixture
def pair(lab):
    return lab.networks()


class Killed(Exception):
    """The process ends."""


def same(first, second):
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


def distance_of(lab, student, teacher, batch):
    """Between outputs without their means over classes, which the divergence does not see."""
    first, second = (lab.outputs(network, batch) for network in (student, teacher))
    return np.linalg.norm((first - first.mean(1, keepdims=True)) - (second - second.mean(1, keepdims=True)))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("objective", ["kl", "mse"])
def test_the_student_comes_nearer_and_the_teacher_stays(lab, pair, objective, optimizer):
    student, teacher = pair
    before, modes = lab.arrays(teacher), (lab.modes(student), lab.modes(teacher))
    rate = {"adam": 3e-3, "sgd": 0.03}[optimizer]
    config = replace(CONFIG, steps=60, objective=objective, optimizer=optimizer, learning_rate=rate)
    batches = lab.batches()
    distance = distance_of(lab, student, teacher, batches[0])
    report = lab.heal(student, teacher, batches, config)
    assert report.after < 0.7 * report.before
    assert distance_of(lab, student, teacher, batches[0]) < distance
    assert same(before, lab.arrays(teacher))
    assert (lab.modes(student), lab.modes(teacher)) == modes


@pytest.mark.parametrize("dropout", [False, True])
def test_batch_norms_take_statistics_of_batches_only_with_dropout(lab, pair, dropout):
    student, teacher = pair
    before = lab.arrays(student)
    lab.heal(student, teacher, lab.batches(), replace(CONFIG, dropout=dropout))
    moved = {name for name, value in lab.arrays(student).items() if (value != before[name]).any()}
    statistics = {name for name in before if any(word in name.lower() for word in ("running", "moving", "norm.mean"))}
    assert statistics
    assert bool(moved & statistics) == dropout


@pytest.mark.parametrize(
    "changes", [{}, {"dropout": True}, {"optimizer": "sgd", "weight_decay": 1e-3}, {"retruncate": {12: 0.7}}]
)
def test_killed_and_started_again_it_gives_the_same_numbers(lab, pair, tmp_path, changes):
    student, teacher = pair
    config, batches = replace(CONFIG, **changes), lab.batches()
    whole, killed, other = (lab.copied(student) for _ in range(3))
    expected = lab.heal(whole, teacher, batches, config)
    calls = []

    def inputs(batch):
        calls.append(batch)
        if len(calls) == 8 + 17:  # 8 batches for validation, then steps
            raise Killed
        return batch

    with pytest.raises(Killed):
        lab.heal(killed, teacher, batches, config, folder=tmp_path, every=0.0, inputs=inputs)
    report = lab.heal(other, teacher, batches, config, folder=tmp_path)
    assert same(lab.arrays(other), lab.arrays(whole))
    assert report.after == expected.after
    assert [(r.step, r.loss) for r in report.records] == [(r.step, r.loss) for r in expected.records]


@pytest.mark.parametrize("train", ["all", "operators", "central", "auxiliary"])
def test_only_what_is_chosen_moves(lab, pair, train):
    student, teacher = pair
    config = replace(CONFIG, train=train, steps=3)
    network = lab.adapter(lab.copied(student), teacher, config)
    chosen = set(rate_factors(config, network.parameters(), network.operators()))
    before = network_parameters(network, balanced=True)
    report = lab.heal(student, teacher, lab.batches(), config)
    after = network_parameters(lab.adapter(student, teacher, config))
    assert {name for name, value in after.items() if (value != before[name]).any()} == chosen
    assert report.trained == sum(before[name].size for name in chosen)


def network_parameters(network, balanced=False):
    """Parameters by the names that the core uses; balanced as healing begins."""
    network.start(dict.fromkeys(network.parameters(), 1.0))
    if balanced:
        retruncate(network, 1.0, 0)
    state = network.state()
    network.close()
    return {name.removeprefix(PARAMETERS): v for name, v in state.items() if name.startswith(PARAMETERS)}


def test_decay_adds_the_gradient_of_the_norm(lab, pair):
    """With SGD one step with decay differs from one without by the rate times that gradient."""
    student, teacher = pair
    plain = replace(CONFIG, steps=1, optimizer="sgd", clip=0.0, warm_up=0.0, betas=(0.0, 0.0))
    decayed, batches = replace(plain, weight_decay=0.1), lab.batches()
    results = []
    for config in (plain, decayed):
        copy = lab.copied(student)
        network = lab.adapter(copy, teacher, config)
        network.start(rate_factors(config, network.parameters(), network.operators()))
        network.step(batches[0], plain.learning_rate, 0)
        network.close()
        results.append(lab.operators(copy))
    for name, operator in lab.operators(student).items():
        gradients = norm_gradients(operator.cores, operator.shape.core_shapes, OPS)
        for core, other, gradient in zip(results[0][name].cores, results[1][name].cores, gradients, strict=True):
            np.testing.assert_allclose(core - other, plain.learning_rate * 0.1 * gradient, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("target", [0.6, 2])
def test_truncation_keeps_the_function_within_the_error_and_projects_moments(lab, pair, target):
    student, teacher = pair
    config = replace(CONFIG, steps=4)
    network = lab.adapter(student, teacher, config)
    network.start(rate_factors(config, network.parameters(), network.operators()))
    for step, batch in enumerate(lab.batches()[:4]):
        network.step(batch, 1e-3, step)
    before = {name: to_matrix(operator) for name, operator in lab.operators(student).items()}
    cut = retruncate(network, target, 4)
    after = lab.operators(student)
    assert cut.weights == sum(operator.shape.parameters for operator in after.values()) < cut.weights_before
    for name, operator in after.items():
        error = np.linalg.norm(to_matrix(operator) - before[name])
        assert error <= cut.error * np.linalg.norm(before[name]) * (1 + 1e-6) + 1e-12
        if isinstance(target, int):
            assert max(operator.shape.bond_dims) <= target
    state, shapes = network.state(), network.parameters()
    for slot in (FIRST, SECOND):
        moments = {name.removeprefix(slot): value for name, value in state.items() if name.startswith(slot)}
        assert moments and all(value.shape == shapes[name] for name, value in moments.items())
        assert all(np.isfinite(value).all() and value.any() for value in moments.values())
    assert all((value >= 0).all() for name, value in state.items() if name.startswith(SECOND))
    network.step(lab.batches()[5], 1e-3, 4)  # and training goes on
    network.close()
    assert np.isfinite(lab.outputs(student, lab.batches()[0])).all()


def test_truncation_to_everything_changes_the_gauge_only(lab, pair):
    student, teacher = pair
    batches, config = lab.batches(), replace(CONFIG, steps=2)
    wanted = lab.outputs(student, batches[0])
    network = lab.adapter(student, teacher, config)
    network.start(rate_factors(config, network.parameters(), network.operators()))
    assert retruncate(network, 1.0, 0).error < 1e-12
    network.close()
    np.testing.assert_allclose(lab.outputs(student, batches[0]), wanted, rtol=1e-9, atol=1e-12)

"""Recipes, and how a command line turns into the settings of a run."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mponet.errors import ModelError, RecipeError
from mponet.models import FAMILIES
from mponet.recipe import PAPER_CIFAR, PAPER_MNIST, PRESETS, SHORT_MNIST, Recipe, average_share, learning_rate, preset
from mponet.training.run import default_folder, resolve
from mponet.training.run.settings import FEWEST, differences

MNIST, DIGITS = 60_000, 1_437


def test_the_paper_recipe_is_that_of_the_authors_code():
    recipe = preset("fc2", "paper")
    assert (recipe.steps, recipe.batch, recipe.momentum, recipe.weight_decay) == (300_000, 100, 0.0, 1e-4)
    assert learning_rate(recipe, 0) == 0.8
    assert learning_rate(recipe, 600) == pytest.approx(0.8 * 0.99)
    assert learning_rate(recipe, 300) == pytest.approx(0.8 * 0.99**0.5)  # continuous, no staircase
    assert learning_rate(recipe, 300_000) == pytest.approx(0.00526, abs=1e-5)
    assert learning_rate(preset("lenet5", "code"), 300_000) == pytest.approx(6.6e-5, abs=1e-6)


def test_lenet5_trains_as_fc2_does_and_as_in_the_code_on_demand():
    published = preset("fc2", "paper")
    assert preset("lenet5", "paper") == replace(published, clip=1.0)
    assert preset("lenet5", "code") == replace(published, name="code", learning_rate=0.01)


def test_the_cosine_ends_at_zero_and_stays_there():
    recipe = replace(SHORT_MNIST, warm_up=0.0)
    rates = [learning_rate(recipe, step) for step in range(0, 6001, 100)]
    assert rates[0] == recipe.learning_rate
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-15)
    assert learning_rate(recipe, 10**9) == rates[-1]


def test_a_warm_up_grows_linearly_to_the_schedule_and_leaves_the_rest_alone():
    recipe, plain = replace(SHORT_MNIST, warm_up=0.1), replace(SHORT_MNIST, warm_up=0.0)
    shares = [learning_rate(recipe, step) / learning_rate(plain, step) for step in (0, 299, 599, 600, 5000)]
    assert shares == pytest.approx([1 / 600, 0.5, 1, 1, 1])


def test_every_network_has_both_presets():
    assert set(PRESETS) == set(FAMILIES)
    assert all({"paper", "short"} <= set(row) for row in PRESETS.values())


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch": 0},
        {"decay_steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"momentum": 1.0},
        {"warm_up": 1.0},
        {"weight_decay": -1e-4},
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change):
    with pytest.raises(RecipeError, match=f"{next(iter(change))}.*expected"):
        replace(SHORT_MNIST, **change)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(RecipeError, match="preset is 'long'; expected one of: paper, short"):
        preset("fc2", "long")


def test_a_recipe_goes_through_a_dictionary():
    assert Recipe(**PAPER_MNIST.as_dict()) == PAPER_MNIST


def of(data="mnist", images=MNIST, **options):
    return resolve("fc2", data=data, images=images, **options)


def test_on_the_data_of_the_paper_a_preset_is_taken_literally():
    assert of(preset_name="paper").recipe == PAPER_MNIST
    assert of().recipe == preset("fc2", "short")


def test_on_smaller_data_a_preset_keeps_its_epochs_and_its_decay_per_epoch():
    recipe = of("digits", DIGITS, preset_name="paper").recipe
    assert recipe.steps == 500 * 14
    assert recipe.decay_steps == 14


def test_on_tiny_data_a_preset_still_trains_a_while():
    assert of("digits", DIGITS).recipe.steps == FEWEST


def test_epochs_and_steps_override_the_length_and_nothing_else():
    assert of("digits", DIGITS, epochs=3).recipe.steps == 3 * 14
    assert of(epochs=3).recipe == replace(SHORT_MNIST, steps=1800)
    assert of(steps=7, preset_name="paper").recipe == replace(PAPER_MNIST, steps=7)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 1, "steps": 1}, RecipeError, "epochs is 1 and steps is 1; expected one of them"),
        ({"seed": -1}, RecipeError, "seed is -1"),
        ({"bond": 0}, ModelError, "bond is 0"),
        ({"preset_name": "x"}, RecipeError, "preset is 'x'"),
        ({"steps": 0}, RecipeError, "steps"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        of(**options)


def test_the_folder_of_a_run_says_what_is_in_it():
    assert str(default_folder(of(), "jax")) == "runs/fc2-mnist-jax-short-seed0"
    assert str(default_folder(of(bond=8, seed=3), "torch")) == "runs/fc2-mnist-torch-short-D8-seed3"


def test_the_bond_is_for_the_operators_only():
    settings = of(bond=8)
    assert settings.networks["mpo"].bond == 8
    assert settings.networks["dense"].bond is None


def test_differences_are_named_down_to_the_field():
    old, new = of(seed=1).as_dict(), of(seed=2, steps=5).as_dict()
    assert differences(new, old) == ["recipe.steps is 5, was 9000", "seed is 2, was 1"]
    assert differences(old, old) == []


def test_fc2_is_clipped_where_a_bond_is_asked_for_and_nothing_else_differs():
    published = preset("fc2", "paper")
    assert published.clip == 0.0
    for bond in (2, 16, 22):
        assert preset("fc2", "paper", bond) == replace(published, clip=1.0)
    assert preset("fc2", "short", 2) == preset("fc2", "short")
    assert preset("lenet5", "paper", 2) == preset("lenet5", "paper")


# ---------------------------------------------------------------- the moving average


def decays(largest, count):
    """The ramp of the authors' code (``ExponentialMovingAverage`` with ``num_updates``), exact."""
    return [min(Fraction(largest), Fraction(1 + t, 10 + t)) for t in range(count)]


def unrolled_weights(largest, count):
    """Weight of each of ``count`` parameters in their average, normalised to the sum 1."""
    ramp = decays(largest, count)
    weights = [(1 - ramp[t]) * np.prod([Fraction(1), *ramp[t + 1 :]]) for t in range(count)]
    return [float(weight / sum(weights)) for weight in weights]


@pytest.mark.parametrize("largest", ["0.5", "0.9", "0.99", "0.05"])
@pytest.mark.parametrize("count", [1, 2, 3, 12, 80, 130])
def test_the_moving_average_has_the_weights_of_the_unrolled_sum(largest, count):
    recipe = replace(PAPER_CIFAR, average=float(largest))
    average = np.zeros(count)
    for step, parameters in enumerate(np.eye(count)):  # unit vectors: the average is the list of weights
        average += average_share(recipe, step) * (parameters - average)
    assert average == pytest.approx(unrolled_weights(largest, count), rel=1e-12)


def test_the_first_shares_are_those_computed_by_hand():
    """Decays 1/10, 2/11, 3/12: sums of weights 9/10, 9/11 + 2/11 * 9/10, 9/12 + 3/12 * the last."""
    sums = [Fraction(9, 10)]
    sums.append(Fraction(9, 11) + Fraction(2, 11) * sums[-1])
    sums.append(Fraction(9, 12) + Fraction(3, 12) * sums[-1])
    shares = [Fraction(9, 10) / sums[0], Fraction(9, 11) / sums[1], Fraction(9, 12) / sums[2]]
    assert [average_share(PAPER_CIFAR, step) for step in range(3)] == pytest.approx([float(share) for share in shares])


def test_the_share_of_a_long_training_is_one_minus_the_largest_decay():
    assert average_share(PAPER_CIFAR, 10**6) == pytest.approx(1 - PAPER_CIFAR.average)
    assert average_share(replace(PAPER_CIFAR, average=0.0), 5) == 0.0

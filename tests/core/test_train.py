"""The loop, on a backend of numpy: what it reads, when it measures, where it stops."""

from dataclasses import replace
from math import isnan

import numpy as np
import pytest

from core import toy
from core.toy import RECIPE, ToyBackend
from mponet.errors import DataError, DivergedError
from mponet.models.init import start
from mponet.recipe import learning_rate
from mponet.training import blocks, loop
from mponet.training.data import Arrays, load
from mponet.training.loop import accuracy, evaluation_interval, train


@pytest.fixture(scope="module")
def arrays():
    return Arrays.of(load("digits"), (8, 8, 1), RECIPE)


def trained(arrays, recipe=RECIPE, backend=None, variant="dense", steps=None, **options):
    """Records of a training, and the parameters at the end or at the last record to ``steps``."""
    backend = backend or ToyBackend()
    model = toy.make(variant, None)
    native = backend.build(model, start(model, 0))
    records = []
    for record in train(backend, model, native, backend.trainer(native, recipe), recipe, arrays, seed=5, **options):
        records.append(record)
        if record.step == steps:
            break
    return records, native


def test_it_learns_real_digits(arrays):
    for variant, least in (("dense", 0.94), ("mpo", 0.75)):
        records, _ = trained(arrays, variant=variant)
        assert records[-1].accuracy > least
        assert records[-1].loss < records[0].loss


def test_records_come_at_blocks_evaluations_and_the_end(arrays):
    records, _ = trained(arrays)
    assert [record.step for record in records] == [50, 100, 112, 120]  # 8 epochs of 14 steps, for at least 100
    assert [record.accuracy is not None for record in records] == [False, False, True, True]
    assert [record.epoch for record in records] == [step / 14 for step in (50, 100, 112, 120)]
    assert records[0].learning_rate == learning_rate(RECIPE, 49)
    assert [record.seconds for record in records] == sorted(record.seconds for record in records)


def test_the_recipe_may_say_when_to_evaluate(arrays):
    records, _ = trained(arrays, replace(RECIPE, evaluate_every=30))
    assert [record.step for record in records if record.accuracy is not None] == [30, 60, 90, 120]


def test_large_data_is_evaluated_every_epoch():
    assert evaluation_interval(RECIPE, 600) == 600
    assert evaluation_interval(RECIPE, 14) == 112


def test_a_loss_is_read_once_per_block_and_once_to_warm_up(arrays):
    backend = ToyBackend()
    records, _ = trained(arrays, backend=backend)
    assert backend.reads == len(records) + 1


def test_a_slow_model_reports_before_its_block_ends(arrays, monkeypatch):
    monkeypatch.setattr(blocks, "PATIENCE", 0.0)
    records, _ = trained(arrays)
    assert [record.step for record in records] == list(range(1, 121))


def test_the_records_that_are_kept_do_not_depend_on_the_clock(arrays, monkeypatch):
    fast, _ = trained(arrays)
    monkeypatch.setattr(blocks, "PATIENCE", 0.0)
    slow, _ = trained(arrays)
    kept = [record for record in slow if not record.interim]
    assert len(slow) > len(kept) and not any(record.interim for record in fast)
    assert [(one.step, one.loss, one.accuracy) for one in kept] == [(one.step, one.loss, one.accuracy) for one in fast]


def test_warming_up_is_not_timed(arrays, monkeypatch):
    ticks = iter(range(10_000))
    monkeypatch.setattr(blocks, "perf_counter", lambda: 0.01 * next(ticks))
    records, _ = trained(arrays, replace(RECIPE, evaluate_every=5))
    assert [record.images_per_s is None for record in records[:3]] == [True, True, False]


@pytest.mark.parametrize("at", [1, 13, 14, 15, 100])
def test_a_loop_that_starts_in_the_middle_does_what_an_uninterrupted_one_does(arrays, at):
    recipe = replace(RECIPE, evaluate_every=1)
    whole, native = trained(arrays, recipe)
    backend = ToyBackend()
    other = backend.build(native.model, start(native.model, 0))
    trainer = backend.trainer(other, recipe)
    first = []
    for record in train(backend, other.model, other, trainer, recipe, arrays, seed=5):
        first.append(record)
        if record.step == at:
            break
    second = list(train(backend, other.model, other, trainer, recipe, arrays, seed=5, start=at, seconds=99.0))
    assert [record.loss for record in first + second] == [record.loss for record in whole]
    assert all(np.array_equal(other.values[name], native.values[name]) for name in other.values)
    assert second[0].seconds > 99


def test_nothing_is_left_to_do_at_the_end(arrays):
    assert trained(arrays, start=RECIPE.steps)[0] == []


def test_another_seed_is_another_course(arrays):
    backend, model = ToyBackend(), toy.make("dense", None)
    losses = []
    for seed in (1, 2):
        native = backend.build(model, start(model, 0))
        losses += [
            r.loss for r in train(backend, model, native, backend.trainer(native, RECIPE), RECIPE, arrays, seed=seed)
        ][:1]
    assert losses[0] != losses[1]


@pytest.mark.parametrize("nan_at", [0, 5, 49, 50, 111, 118, 119])
def test_a_loss_that_is_not_finite_ends_the_training_with_advice(arrays, nan_at):
    records = []
    backend, model = ToyBackend(nan_at=nan_at), toy.make("dense", None)
    native = backend.build(model, start(model, 0))
    with pytest.raises(
        DivergedError, match=r"diverged: .* at step \d+ with learning rate .*; expected .*; try"
    ) as caught:
        for record in train(backend, model, native, backend.trainer(native, RECIPE), RECIPE, arrays, seed=5):
            records.append(record)
    last = records[-1]
    assert last.diverged and last.accuracy is None and f"step {last.step} " in str(caught.value)
    assert last.step - 50 <= nan_at < last.step
    assert not any(record.diverged for record in records[:-1])


def test_predictions_that_are_not_finite_are_no_accuracy(arrays):
    class Spoilt(ToyBackend):
        def predict(self, native, images, masks=()):
            logits = super().predict(native, images)
            return logits * np.inf if self.steps == 112 else logits

    records = []
    backend, model = Spoilt(), toy.make("dense", None)
    native = backend.build(model, start(model, 0))
    with pytest.raises(DivergedError, match="predictions are not finite"), np.errstate(invalid="ignore"):
        for record in train(backend, model, native, backend.trainer(native, RECIPE), RECIPE, arrays, seed=5):
            records.append(record)
    assert (records[-1].step, records[-1].accuracy, isnan(records[-1].loss)) == (112, None, False)


def test_accuracy_is_over_all_images_in_batches_of_any_size(arrays, monkeypatch):
    backend, model = ToyBackend(), toy.make("dense", None)
    native = backend.build(model, start(model, 0))
    whole = accuracy(backend, native, arrays.test_images, arrays.test_labels)
    right = backend.predict(native, arrays.test_images).argmax(1) == arrays.test_labels
    assert whole == right.mean()
    monkeypatch.setattr(loop, "TEST_BATCH", 7)
    assert accuracy(backend, native, arrays.test_images, arrays.test_labels) == whole


def test_fewer_images_than_a_batch_are_refused(arrays):
    with pytest.raises(DataError, match="fewer than one batch of 2000"):
        trained(arrays, replace(RECIPE, batch=2000))


def test_images_are_scaled_once_and_ready(arrays):
    assert arrays.train_images.dtype == np.float32
    assert (arrays.train_images.min(), arrays.train_images.max()) == (0, 1)
    assert arrays.train_labels.dtype == np.int64


def test_evaluation_uses_the_moving_average(arrays):
    recipe = replace(RECIPE, average=0.9, evaluate_every=40)
    backend, model = ToyBackend(), toy.make("mpo", None)
    native = backend.build(model, start(model, 0))
    trainer = backend.trainer(native, recipe)
    *_, last = train(backend, model, native, trainer, recipe, arrays, seed=5)
    averaged = {name.removeprefix("average/"): v for name, v in trainer.state().items() if name.startswith("average/")}
    assert last.accuracy == accuracy(backend, backend.build(model, averaged), arrays.test_images, arrays.test_labels)
    plain, _ = trained(arrays, replace(recipe, average=0.0), variant="mpo")
    assert last.loss == plain[-1].loss  # an average changes nothing in training
    assert any(not np.array_equal(averaged[name], native.values[name]) for name in averaged)


def test_augmented_training_is_the_same_from_the_middle(arrays):
    recipe = replace(RECIPE, augmentation="crop-flip", evaluate_every=40)
    data = Arrays.of(load("digits"), (8, 8, 1), recipe)
    whole, native = trained(data, recipe)
    backend = ToyBackend()
    other = backend.build(native.model, start(native.model, 0))
    trainer = backend.trainer(other, recipe)
    for record in train(backend, other.model, other, trainer, recipe, data, seed=5):
        if record.step == 80:
            break
    rest = list(train(backend, other.model, other, trainer, recipe, data, seed=5, start=80))
    assert [record.loss for record in rest] == [record.loss for record in whole if record.step > 80]
    assert all(np.array_equal(other.values[name], native.values[name]) for name in other.values)

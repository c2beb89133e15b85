"""From a data set to batches: normalisation, augmentation, and making them ahead."""

from dataclasses import replace
from threading import active_count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mponet.errors import DataError, InputError
from mponet.models.dropout import dropout_layers, sample_masks
from mponet.models.spec import Dense, Dropout, Flatten, Model, ReLU
from mponet.recipe import Recipe
from mponet.training.data import (
    Arrays,
    Dataset,
    Normalization,
    augmentation_rng,
    batch_order,
    batches,
    crop_flip,
    scaled,
)
from mponet.training.data.augment import PAD
from mponet.training.data.stream import prefetch

RECIPE = Recipe("test", steps=12, batch=10, learning_rate=0.1)
FULL = replace(RECIPE, normalization="pixel", augmentation="crop-flip")
PLAIN = Model("plain", "dense", None, (6, 5, 3), (Flatten(), Dense("fc", 2)), "a test")
DROPPING = replace(PLAIN, layers=(Flatten(), Dense("fc1", 7), ReLU(), Dropout(0.25), Dense("fc2", 2)))


def dataset(count=53, shape=(6, 5, 3), seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count + 9, *shape), dtype=np.uint8)
    labels = rng.integers(0, 2, count + 9)
    return Dataset("made", images[:count], labels[:count], images[count:], labels[count:], ("a", "b"), "made up")


# ---------------------------------------------------------------- normalisation


def test_per_pixel_normalisation_is_mean_and_biased_deviation_of_each():
    images = dataset(1234).train_images
    found = Normalization.of("pixel", images)
    exact = images.astype(np.float64)
    np.testing.assert_array_equal(found.mean, exact.mean(axis=0).astype(np.float32))
    np.testing.assert_allclose(found.deviation, exact.std(axis=0), rtol=2e-7)  # one rounding to float32
    normal = found(images)
    assert normal.dtype == np.float32
    # a mean in float32 is off by 2^-24 of 255, each value by as much again
    assert np.abs(normal.mean(axis=0, dtype=np.float64)).max() < 255 * 2**-22
    np.testing.assert_allclose(normal.std(axis=0, dtype=np.float64), 1.0, rtol=1e-6)


def test_a_pixel_that_never_changes_stays_finite():
    images = dataset().train_images.copy()
    images[:, 2, 3] = 7
    normal = Normalization.of("pixel", images)(images)
    assert np.isfinite(normal).all()
    assert not normal[:, 2, 3].any()


def test_sums_do_not_overflow_and_large_sets_go_block_by_block(monkeypatch):
    images = np.full((11, 2, 2, 1), 255, np.uint8)
    images[0] = 0
    whole = Normalization.of("pixel", images)
    monkeypatch.setattr("mponet.training.data.normalize._AT_A_TIME", 4)
    parts = Normalization.of("pixel", images)
    assert np.array_equal(whole.mean, parts.mean) and np.array_equal(whole.deviation, parts.deviation)
    np.testing.assert_allclose(whole.deviation, images.astype(float).std(axis=0), rtol=2e-7)


def test_unit_is_pixels_over_255():
    images = dataset().train_images
    np.testing.assert_array_equal(Normalization.of("unit", images)(images), scaled(images))


def test_unknown_kinds_and_scaled_images_are_refused():
    images = dataset().train_images
    with pytest.raises(InputError, match="normalization is 'mean'; expected"):
        Normalization.of("mean", images)
    with pytest.raises(InputError, match="float32"):
        Normalization.of("unit", images)(scaled(images))


# ---------------------------------------------------------------- augmentation


@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))
def test_every_image_is_a_window_of_its_padded_self_mirrored_or_not(seed, batch, height, width, channels):
    images = np.random.default_rng(seed).integers(1, 256, (batch, height, width, channels), dtype=np.uint8)
    found = crop_flip(images, np.random.default_rng(seed))
    assert (found.shape, found.dtype) == (images.shape, np.uint8)
    padded = np.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    for image, around in zip(found, padded, strict=True):
        windows = [around[r : r + height, c : c + width] for r in range(2 * PAD + 1) for c in range(2 * PAD + 1)]
        assert any(np.array_equal(image, one) or np.array_equal(image, one[:, ::-1]) for one in windows)


def test_crops_and_mirrors_are_as_likely_as_they_should_be():
    marked = np.zeros((20_000, 9, 9, 1), np.uint8)
    marked[:, 4, 4] = 1  # its position behind the change tells the crop; every crop keeps it
    marked[:, 4, 3] = 2  # and its neighbour, the mirror; columns 0 and 8 lose it
    found = crop_flip(marked, np.random.default_rng(1))
    rows = np.nonzero((found == 1)[..., 0])[1]
    counts = np.bincount(rows, minlength=9)
    assert np.abs(counts - 20_000 / 9).max() < 5 * np.sqrt(20_000 / 9)  # five standard deviations
    left = (found[:, :, :-1] == 2) & (found[:, :, 1:] == 1)
    right = (found[:, :, 1:] == 2) & (found[:, :, :-1] == 1)
    assert abs(int(left.sum()) - int(right.sum())) < 5 * np.sqrt(20_000)


def test_the_images_given_are_left_alone():
    images = dataset().train_images.copy()
    before = images.copy()
    crop_flip(images, np.random.default_rng(0))
    np.testing.assert_array_equal(images, before)


# ---------------------------------------------------------------- batches


def test_a_batch_is_the_order_then_the_changes_then_the_numbers():
    data, seed = dataset(), 3
    arrays = Arrays.of(data, (6, 5, 3), FULL)
    made = list(batches(arrays, DROPPING, FULL, seed=seed))
    assert len(made) == FULL.steps
    for step in (0, 4, 5, 11):
        chosen = batch_order(53, 10, seed=seed, epoch=step // 5)[step % 5]
        raw = crop_flip(data.train_images[chosen], augmentation_rng(seed=seed, step=step))
        np.testing.assert_array_equal(made[step].images, Normalization.of("pixel", data.train_images)(raw))
        np.testing.assert_array_equal(made[step].labels, data.train_labels[chosen])
        np.testing.assert_array_equal(made[step].masks[0], sample_masks(dropout_layers(DROPPING), 10, seed, step)[0])
    assert {len(made[0].masks), len(next(batches(arrays, PLAIN, FULL, seed=seed)).masks)} == {0, 1}


@pytest.mark.parametrize("recipe", [RECIPE, FULL])
@pytest.mark.parametrize("start", [0, 1, 5, 11])
def test_batches_from_the_middle_are_those_of_the_whole(recipe, start):
    arrays = Arrays.of(dataset(), (6, 5, 3), recipe)
    whole = list(batches(arrays, DROPPING, recipe, seed=1))
    for here, there in zip(batches(arrays, DROPPING, recipe, seed=1, start=start), whole[start:], strict=True):
        np.testing.assert_array_equal(here.images, there.images)
        np.testing.assert_array_equal(here.masks[0], there.masks[0])


def test_streams_of_order_augmentation_and_dropout_do_not_meet():
    draws = {
        augmentation_rng(seed=0, step=0).integers(2**63),
        augmentation_rng(seed=0, step=1).integers(2**63),
        augmentation_rng(seed=1, step=0).integers(2**63),
        np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0, 0))).integers(2**63),
        np.random.default_rng(np.random.SeedSequence(0, spawn_key=(3, 0))).integers(2**63),
    }
    assert len(draws) == 5
    with pytest.raises(InputError, match="step is -1"):
        augmentation_rng(seed=0, step=-1)


def test_test_images_are_normalised_by_the_training_images():
    data = dataset()
    arrays = Arrays.of(data, (6, 5, 3), FULL)
    np.testing.assert_array_equal(arrays.train_images, data.train_images)
    np.testing.assert_array_equal(arrays.test_images, Normalization.of("pixel", data.train_images)(data.test_images))


# ---------------------------------------------------------------- ahead


def test_items_come_in_order_a_few_ahead_and_no_further():
    made = []

    def items():
        for number in range(50):
            made.append(number)
            yield number

    stream = prefetch(items(), 4)
    assert next(stream) == 0
    assert list(stream) == list(range(1, 50))
    made.clear()
    stream = prefetch(items(), 4)
    for _ in range(10):
        next(stream)
    threads = active_count()
    stream.close()
    assert 10 <= len(made) <= 14
    assert active_count() == threads - 1  # the thread ends with the stream


def test_an_error_in_the_thread_is_raised_where_the_item_is_wanted():
    arrays = Arrays.of(dataset(5), (6, 5, 3), FULL)
    with pytest.raises(DataError, match="fewer than one batch"):
        next(batches(arrays, PLAIN, FULL, seed=0))

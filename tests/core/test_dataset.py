"""The bundled digits, and data sets as values: what is refused, fitted, resized, scaled."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mponet.errors import DataError, InputError
from mponet.training.data import Dataset, fit, load, resized, scaled


def pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# ---------------------------------------------------------------- digits


def test_digits_are_the_whole_bundled_set():
    digits = load("digits")
    assert digits.train_images.shape == (1437, 8, 8, 1)
    assert digits.test_images.shape == (360, 8, 8, 1)
    assert digits.image_shape == (8, 8, 1)
    assert digits.classes == tuple("0123456789")
    assert digits.train_images.min() == 0
    assert digits.train_images.max() == 255
    assert "scikit-learn" in digits.source


def test_digits_split_is_disjoint_and_complete():
    from sklearn.datasets import load_digits

    bundled, digits = load_digits(), load("digits")
    pixels_of = {"train": digits.train_images, "test": digits.test_images}
    labels_of = {"train": digits.train_labels, "test": digits.test_labels}
    # 0..16 in the bundle are 0..255 here; each image keeps its own label, and is in one part once
    split = [
        (np.rint(image[..., 0] * (16 / 255)).astype(int).tobytes(), int(label))
        for part in ("train", "test")
        for image, label in zip(pixels_of[part], labels_of[part], strict=True)
    ]
    whole = [
        (image.astype(int).tobytes(), int(label)) for image, label in zip(bundled.images, bundled.target, strict=True)
    ]
    assert sorted(split) == sorted(whole)


def test_digits_split_is_stratified():
    digits = load("digits")
    test = np.bincount(digits.test_labels, minlength=10)
    fifth = (np.bincount(digits.train_labels, minlength=10) + test) / 5
    assert np.abs(test - fifth).max() < 1


def test_digits_are_the_same_on_every_machine():
    digits = load("digits")
    content = [digits.train_images, digits.train_labels, digits.test_images, digits.test_labels]
    payload = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in content)
    assert hashlib.sha256(payload).hexdigest() == "a27a13faa763b828f3172d385356d304b27f7705d5c4bd5a41bcd75d3045c2dc"


# ---------------------------------------------------------------- Dataset, fit, scaled


def small(name="own", shape=(4, 6, 1), **changes):
    fields = {
        "name": name,
        "train_images": pixels(0, 5, *shape),
        "train_labels": np.arange(5) % 2,
        "test_images": pixels(1, 3, *shape),
        "test_labels": np.arange(3) % 2,
        "classes": ("no", "yes"),
        "source": "made here",
    }
    return Dataset(**fields | changes)


def test_arrays_are_read_only_and_the_callers_are_not():
    mine = pixels(0, 5, 4, 6, 1)
    dataset = small(train_images=mine)
    for array in (dataset.train_images, dataset.train_labels, dataset.test_images):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert mine.flags.writeable
    assert "array(" not in repr(dataset)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((5, 4, 6, 1))}, "float64.*expected uint8"),
        ({"train_images": np.zeros((5, 4, 6), np.uint8)}, r"\(5, 4, 6\), expected uint8 \(N, H"),
        ({"train_images": [[1]]}, "images are list"),
        ({"test_labels": np.zeros(3, np.uint8)}, "uint8.*expected int64"),
        ({"test_labels": np.zeros(4, np.int64)}, "3 images and 4 labels"),
        ({"test_labels": np.array([0, 1, -1])}, "labels -1..1, expected 0..1"),
        ({"test_images": np.zeros((3, 4, 4, 1), np.uint8)}, r"\(4, 4, 1\), expected \(4, 6, 1\)"),
        (
            {"test_images": np.zeros((0, 4, 6, 1), np.uint8), "test_labels": np.zeros(0, np.int64)},
            "at least one",
        ),
    ],
)
def test_unusable_arrays(changes, message):
    with pytest.raises(DataError, match=message):
        small(**changes)


def test_fit_returns_what_fits_unchanged():
    dataset = small()
    assert fit(dataset, (4, 6, 1)) is dataset


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (32, 32, 3), (8, 8, 3), (5, 9, 1)])
def test_digits_fit_any_model(image_shape):
    digits = fit(load("digits"), image_shape)
    assert digits.image_shape == image_shape
    assert digits.test_images.shape == (360, *image_shape)
    assert digits.train_images.dtype == np.uint8
    for channel in range(1, image_shape[2]):
        np.testing.assert_array_equal(digits.test_images[..., channel], digits.test_images[..., 0])


@pytest.mark.parametrize(
    ("dataset", "image_shape"),
    [
        (small("mnist", (28, 28, 1)), (32, 32, 3)),
        (small("cifar10", (32, 32, 3)), (28, 28, 1)),
        (small("cifar10", (32, 32, 3)), (32, 32, 1)),
        (small("digits", (8, 8, 3)), (8, 8, 1)),
        (small("digits", (8, 8, 1)), (0, 8, 1)),
    ],
)
def test_fit_refuses_what_would_change_a_benchmark(dataset, image_shape):
    with pytest.raises(DataError, match=f"^{dataset.name} has images .*but the model takes .* on request$"):
        fit(dataset, image_shape)


def test_grey_is_repeated_for_any_data_set():
    fitted = fit(small("mnist", (28, 28, 1)), (28, 28, 3))
    assert fitted.image_shape == (28, 28, 3)
    assert "grey repeated" in fitted.source


def test_resized_is_bilinear_in_the_half_pixel_convention():
    row = np.array([0, 100], np.uint8).reshape(1, 1, 2, 1)
    dataset = small(train_images=row.repeat(5, 0), test_images=row.repeat(3, 0))
    wide = resized(dataset, 1, 4)
    np.testing.assert_array_equal(wide.train_images[2, 0, :, 0], [0, 25, 75, 100])
    assert "1x2 -> 1x4" in wide.source
    assert resized(dataset, 1, 2) is dataset


@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), value=st.integers(0, 255))
@settings(deadline=None)  # the first example imports scipy
def test_resized_keeps_a_constant_image(size, value):
    flat = np.full((5, 4, 6, 1), value, np.uint8)
    dataset = small(train_images=flat, test_images=flat[:3])
    assert (resized(dataset, *size).train_images == value).all()
    assert resized(dataset, *size).image_shape == (*size, 1)


def test_resized_to_nothing():
    with pytest.raises(InputError, match="0x4"):
        resized(small(), 0, 4)


def test_scaled():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    result = scaled(images)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result.ravel(), np.arange(256, dtype=np.float32) / 255)
    with pytest.raises(InputError, match="float32, expected uint8"):
        scaled(result)

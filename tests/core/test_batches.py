"""The order of batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mponet.errors import DataError, InputError
from mponet.training.data import batch_order

seeds = st.integers(0, 2**70)
epochs = st.integers(0, 10**6)

counts = st.integers(1, 300)
seeds = st.integers(0, 2**70)
epochs = st.integers(0, 10**6)


@given(count=counts, data=st.data(), seed=seeds, epoch=epochs)
def test_an_epoch_has_no_repeats_and_drops_only_the_remainder(count, data, seed, epoch):
    batch_size = data.draw(st.integers(1, count))
    order = batch_order(count, batch_size, seed=seed, epoch=epoch)
    assert order.shape == (count // batch_size, batch_size)
    assert order.dtype == np.int64
    assert len(np.unique(order)) == order.size > count - batch_size
    assert order.min() >= 0
    assert order.max() < count


@given(count=counts, seed=seeds, epoch=epochs)
def test_an_epoch_is_a_function_of_seed_and_epoch(count, seed, epoch):
    first = batch_order(count, 1, seed=seed, epoch=epoch)
    np.random.default_rng().random()  # other random numbers do not matter
    np.testing.assert_array_equal(first, batch_order(count, 1, seed=seed, epoch=epoch))


@given(
    one=st.tuples(seeds, epochs),
    other=st.tuples(st.one_of(seeds, st.sampled_from([0, 2**32, 2**33])), epochs),
)
def test_other_epochs_and_seeds_have_other_orders(one, other):
    if one == other:
        return
    first, second = (batch_order(200, 1, seed=s, epoch=e) for s, e in (one, other))
    assert (first != second).any()


def test_the_batch_size_does_not_change_the_order():
    small_batches = batch_order(10, 2, seed=3, epoch=1).ravel()
    np.testing.assert_array_equal(small_batches[:9], batch_order(10, 3, seed=3, epoch=1).ravel())


def test_the_order_is_the_same_on_every_machine():
    np.testing.assert_array_equal(batch_order(8, 4, seed=0, epoch=0), [[7, 0, 1, 6], [5, 2, 3, 4]])
    np.testing.assert_array_equal(batch_order(8, 4, seed=0, epoch=1), [[3, 2, 1, 0], [6, 4, 7, 5]])


def test_fewer_images_than_a_batch():
    with pytest.raises(DataError, match=r"9 images, fewer than one batch of 10.*at most 9"):
        batch_order(9, 10, seed=0, epoch=0)


@pytest.mark.parametrize(
    ("batch_size", "seed", "epoch", "message"),
    [(0, 0, 0, "batch_size is 0"), (1, -1, 0, "seed is -1"), (1, 0, -1, "epoch is -1")],
)
def test_senseless_batches(batch_size, seed, epoch, message):
    with pytest.raises(InputError, match=message):
        batch_order(9, batch_size, seed=seed, epoch=epoch)

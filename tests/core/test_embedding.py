"""Tables as chains of cores: every vocabulary, both directions, against the table itself."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.strategies import bonds, factors, seeds
from mponet.errors import ShapeError
from mponet.layers.embedding import EmbeddingShape, from_table, padded_dims, table_of
from mponet.layers.lookup import LookupPlan, best_lookup, digits, explain_lookup, laid_out, lookup
from mponet.operators.initialize import exact_variance
from mponet.operators.mpo import to_matrix
from mponet_numpy.ops.arrays import OPS


@st.composite
def embeddings(draw):
    """An `EmbeddingShape` with factors of 1 anywhere and any number of rows left over."""
    inputs, outputs = draw(factors())
    vocabulary = draw(st.integers(1, prod(inputs)))
    return EmbeddingShape.from_sizes(vocabulary, prod(outputs), draw(bonds), input_dims=inputs, output_dims=outputs)


def rows_of(plan, mpo, tokens):
    return lookup(plan, laid_out(plan, mpo.cores, OPS), tokens, OPS, lambda rows, indices: rows[indices], np.matmul)


@given(embeddings(), seeds, st.integers(0, 9))
@settings(max_examples=150)
def test_rows_are_those_of_the_table(shape, seed, count):
    rng = np.random.default_rng(seed)
    mpo = exact_variance(shape.mpo, rng, 1.0)
    tokens = rng.integers(0, shape.num_embeddings, count)
    for plan in (LookupPlan(shape), LookupPlan(shape, reverse=True)):
        found = rows_of(plan, mpo, tokens)
        assert found.shape == (count, shape.out_features)
        np.testing.assert_allclose(found, table_of(shape, mpo)[tokens], atol=1e-12 * max(1, shape.parameters))


@given(embeddings())
def test_digits_are_those_of_the_mixed_radix(shape):
    tokens = np.arange(shape.num_embeddings)
    found = digits(shape, tokens)
    wanted = dict(enumerate(np.unravel_index(tokens, shape.mpo.input_dims)))
    for site, places in found.items():
        np.testing.assert_array_equal(places, wanted[site])
    assert all(shape.mpo.input_dims[site] == 1 for site in set(wanted) - set(found)) or found.keys() == {0}


@given(embeddings(), st.integers(1, 100))
def test_a_token_outside_of_the_vocabulary_is_outside_of_a_core(shape, beyond):
    for token in (shape.num_embeddings - 1 + beyond, -beyond):
        first = shape.indexed[0]
        place = digits(shape, np.array([token]))[first][0]
        assert not 0 <= place < shape.mpo.input_dims[first]


@given(embeddings(), seeds)
@settings(max_examples=50)
def test_multiplications_are_those_of_the_products(shape, seed):
    mpo = exact_variance(shape.mpo, np.random.default_rng(seed), 1.0)
    for plan in (LookupPlan(shape), LookupPlan(shape, reverse=True)):
        done = 0

        class Counting(type(OPS)):
            def matmul(self, a, b, into=None):
                nonlocal done
                done += a.size * b.shape[-1] * (len(b) if b.ndim == 3 else 1)
                return super().matmul(a, b)

        def counted(a, b):
            nonlocal done
            done += a.size * b.shape[-1]
            return a @ b

        lookup(
            plan,
            laid_out(plan, mpo.cores, Counting()),
            np.zeros(1, int),
            Counting(),
            lambda rows, indices: rows[indices],
            counted,
        )
        assert done == plan.multiplications


@given(st.integers(1, 100_000), st.integers(1, 4))
def test_padding_a_vocabulary_adds_few_rows(size, sites):
    dims = padded_dims(size, sites)
    assert len(dims) == sites
    assert prod(dims) >= size
    # each factor is at most one above the root of what it has to cover
    assert prod(max(d - 1, 1) for d in dims) <= size
    assert max(dims) - min(dims) <= 2 or size < 2**sites


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 24, 97, 101])
@pytest.mark.parametrize("sites", [1, 2, 3])
def test_a_table_in_exact_mode_comes_back(vocabulary, sites):
    table = np.random.default_rng(0).normal(size=(vocabulary, 12))
    shape = EmbeddingShape.from_sizes(vocabulary, 12, 1, sites=sites)
    kept = from_table(table, shape)
    np.testing.assert_allclose(table_of(shape, kept.mpo), table, atol=1e-12)
    assert np.abs(to_matrix(kept.mpo)[vocabulary:]).max(initial=0.0) <= 1e-12


def test_the_head_is_the_transposed_operator():
    shape = EmbeddingShape.from_sizes(10, 12, 3, input_dims=(3, 4), output_dims=(2, 6))
    mpo = exact_variance(shape.mpo, np.random.default_rng(0), 1.0)
    transposed = type(mpo)(shape.head, tuple(core.transpose(0, 2, 1, 3) for core in mpo.cores))
    np.testing.assert_array_equal(to_matrix(transposed), to_matrix(mpo).T)


def test_low_rank_starts_at_the_rows():
    """Started at the columns, a state would carry all features for every bond."""
    shape = EmbeddingShape.from_sizes(1000, 64, 8, input_dims=(1000, 1), output_dims=(1, 64))
    assert best_lookup(shape) == LookupPlan(shape)
    mirrored = EmbeddingShape.from_sizes(1000, 64, 8, input_dims=(1, 1000), output_dims=(64, 1))
    assert best_lookup(mirrored) == LookupPlan(mirrored, reverse=True)
    assert "> cores 2 > 1" in explain_lookup(mirrored)


@pytest.mark.parametrize(
    "build",
    [
        lambda: EmbeddingShape.from_sizes(0, 8, 2, input_dims=(2, 2)),
        lambda: EmbeddingShape.from_sizes(10, 8, 2, input_dims=(3, 3)),
        lambda: EmbeddingShape.from_sizes(10, 8, 2, output_dims=(3, 3)),
        lambda: EmbeddingShape.from_sizes(10, 8, 2, input_dims=(2, 5), output_dims=(2, 2, 2)),
        lambda: from_table(np.ones((9, 8)), EmbeddingShape.from_sizes(10, 8, 2)),
        lambda: padded_dims(0, 2),
    ],
)
def test_what_does_not_fit_is_refused(build):
    with pytest.raises(ShapeError, match="expected"):
        build()

"""What every framework's embedding layer promises, one suite for all of them."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.strategies import factors
from maps_and_tokens import cores_of, probe
from mponet import MPO
from mponet.draw import render
from mponet.errors import InputError, ShapeError
from mponet.layers.embedding import EmbeddingShape, table_of
from mponet.operators.initialize import exact_variance

pytestmark = pytest.mark.usefixtures("double_precision")
# double_precision is a context, the same for every example
sweep = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHAPES = [
    EmbeddingShape.from_sizes(11, 12, 3),
    EmbeddingShape.from_sizes(50, 12, 4, sites=3),
    EmbeddingShape.from_sizes(11, 12, 3, input_dims=(11, 1), output_dims=(1, 12)),
    EmbeddingShape.from_sizes(11, 12, 3, input_dims=(1, 12), output_dims=(12, 1)),
    EmbeddingShape.from_sizes(1, 6, 3, input_dims=(1, 1), output_dims=(2, 3)),
]


@pytest.fixture(scope="module")
def lab(backend_name, backend):
    return probe(backend_name)


def sample(shape, seed=0):
    rng = np.random.default_rng(seed)
    return exact_variance(shape.mpo, rng, 1.0), rng.integers(0, shape.num_embeddings, (3, 4))


def made(lab, shape, mpo, **options):
    return lab.embedding.from_mpo(mpo, num_embeddings=shape.num_embeddings, **options, **lab.float64)


@sweep
@given(st.data(), factors(max_sites=3, max_size=256), st.integers(0, 2**31))
def test_rows_and_logits_are_those_of_the_table(lab, data, dims, seed):
    inputs, outputs = dims
    vocabulary = data.draw(st.integers(1, int(np.prod(inputs))))
    shape = EmbeddingShape.from_sizes(vocabulary, int(np.prod(outputs)), 3, input_dims=inputs, output_dims=outputs)
    mpo, tokens = sample(shape, seed)
    layer, table = made(lab, shape, mpo), table_of(shape, mpo)
    bound = 1e-12 * max(1.0, np.abs(table).max())
    np.testing.assert_allclose(lab.look_up(layer, tokens), table[tokens], rtol=0, atol=bound)
    rows = np.random.default_rng(seed).normal(size=(3, 2, shape.out_features))
    np.testing.assert_allclose(lab.attend(layer, rows), rows @ table.T, rtol=0, atol=bound * 10 * shape.out_features)


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 24, 97, 128, 211])
def test_exact_mode_is_the_dense_layer(lab, vocabulary):
    table = np.random.default_rng(0).normal(size=(vocabulary, 12))
    dense = lab.dense_embedding(table)
    for options in ({}, {"sites": 3}, {"input_dims": (vocabulary, 1), "output_dims": (1, 12)}):
        layer = lab.embedding.from_embedding(dense, **options)
        tokens = np.arange(vocabulary)
        np.testing.assert_allclose(lab.look_up(layer, tokens), lab.look_up(dense, tokens), rtol=0, atol=1e-12)
        np.testing.assert_allclose(lab.look_up(layer.to_dense(), tokens), table, rtol=0, atol=1e-12)
        np.testing.assert_allclose(lab.table(layer), table, rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.to_table(), table, rtol=0, atol=1e-12)


def along(shape, mpo, gradient):
    """For each core, a step, and the slope of a function of the table along it.

    The table is linear in each core.
    """
    for k, core in enumerate(mpo.cores):
        step = np.random.default_rng(k).normal(size=core.shape)
        moved = MPO(shape.mpo, tuple(step if j == k else other for j, other in enumerate(mpo.cores)))
        yield step, (gradient * table_of(shape, moved)).sum()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_those_of_the_dense_layer(lab, shape):
    mpo, tokens = sample(shape)
    layer, dense = made(lab, shape, mpo), lab.dense_embedding(table_of(shape, mpo))
    slope = np.random.default_rng(1).normal(size=(*tokens.shape, shape.out_features))
    wanted = lab.look_up_gradients(dense, tokens, slope)["weight"]
    found = lab.look_up_gradients(layer, tokens, slope)
    assert found.keys() == set(cores_of(layer))
    for name, (step, total) in zip(cores_of(layer), along(shape, mpo, wanted), strict=True):
        assert (found[name] * step).sum() == pytest.approx(total, abs=1e-10)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_of_the_tied_head_are_those_of_the_transposed_table(lab, shape):
    mpo, _ = sample(shape)
    layer, table = made(lab, shape, mpo), table_of(shape, mpo)
    rng = np.random.default_rng(1)
    rows, slope = rng.normal(size=(5, shape.out_features)), rng.normal(size=(5, shape.num_embeddings))
    found = lab.attend_gradients(layer, rows, slope)
    np.testing.assert_allclose(found["inputs"], slope @ table, rtol=0, atol=1e-11)
    for name, (step, total) in zip(cores_of(layer), along(shape, mpo, slope.T @ rows), strict=True):
        assert (found[name] * step).sum() == pytest.approx(total, abs=1e-10)


def test_a_tied_pair_is_one_chain_used_twice(lab):
    """Embedding and head share every parameter.

    Gradients add up, and one assignment changes both.
    """
    shape = SHAPES[0]
    mpo, tokens = sample(shape)
    layer = made(lab, shape, mpo)
    before = lab.attend(layer, lab.look_up(layer, tokens))
    other, _ = sample(shape, seed=1)
    layer.assign(other)
    table = table_of(shape, other)
    after = lab.attend(layer, lab.look_up(layer, tokens))
    np.testing.assert_allclose(after, table[tokens] @ table.T, rtol=0, atol=1e-11)
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize("token", [11, 12, 15, 1000, -12, -500])
def test_a_token_outside_of_the_vocabulary_is_what_it_is_to_the_framework(lab, token):
    """The factors cover 12 rows or more.

    So rows beyond the vocabulary exist and must not be given.
    """
    shape = SHAPES[0]
    layer = made(lab, shape, sample(shape)[0])
    if lab.out_of_range == "raises":
        with pytest.raises(Exception, match=r"range|indices"):
            lab.look_up(layer, np.array([3, token]))
    else:
        first, second = lab.look_up(layer, np.array([3, token]))
        assert np.isfinite(first).all()
        assert np.isnan(second).all()


def test_from_table_cuts_as_asked(lab):
    table = np.random.default_rng(0).normal(size=(30, 16))
    layer = lab.embedding.from_table(table, max_bond=4, input_dims=(30, 1), output_dims=(1, 16), **lab.float64)
    values = np.linalg.svd(table, compute_uv=False)
    error = np.linalg.norm(layer.to_table() - table)
    assert error == pytest.approx(np.linalg.norm(values[4:]), rel=1e-9)


def test_operators_go_in_and_come_back(lab):
    shape = SHAPES[1]
    mpo, _ = sample(shape)
    layer = made(lab, shape, mpo)
    assert layer.shape == shape
    assert all(np.array_equal(a, b) for a, b in zip(layer.to_mpo().cores, mpo.cores, strict=True))
    assert lab.embedding.from_mpo(mpo, **lab.float64).shape.num_embeddings == mpo.shape.in_features
    assert layer._repr_svg_() == mpo._repr_svg_()
    assert render(layer, "txt") == render(mpo, "txt")
    for part in ("50 tokens", "plan=", "cores"):
        assert part in repr(layer)
    assert "> cores" in layer.explain()


def test_what_does_not_fit_is_refused(lab):
    mpo, _ = sample(SHAPES[0])
    with pytest.raises(ShapeError, match="expected"):
        lab.embedding.from_mpo(mpo, num_embeddings=1000, **lab.float64)
    with pytest.raises(InputError, match="expected a"):
        lab.embedding.from_embedding(object())
    with pytest.raises(ShapeError, match="12"):
        lab.attend(made(lab, SHAPES[0], mpo), np.ones((2, 13)))


def test_the_empty_batch_has_no_rows(lab):
    layer = made(lab, SHAPES[0], sample(SHAPES[0])[0])
    assert lab.look_up(layer, np.zeros((0, 3), int)).shape == (0, 3, 12)


def test_it_learns(lab):
    shape = SHAPES[0]
    mpo, tokens = sample(shape)
    layer = made(lab, shape, mpo)
    losses = list(lab.losses(layer, tokens, np.zeros((*tokens.shape, 12)), 20))
    assert losses[-1] < 0.9 * losses[0]


def test_rows_that_are_read_often_come_nearer(lab):
    rng = np.random.default_rng(0)
    table, counts = rng.normal(size=(30, 8)), np.where(np.arange(30) < 6, 100.0, 1.0)
    options = {"input_dims": (31, 1), "output_dims": (1, 8), "max_bond": 3}
    dense = lab.dense_embedding(table)
    plain, fitted = (lab.embedding.from_dense(dense, **options, **more).to_table() for more in ({}, {"counts": counts}))
    assert np.linalg.norm((fitted - table)[:6]) < 0.9 * np.linalg.norm((plain - table)[:6])
    weighted = [np.sqrt((counts[:, None] * (made - table) ** 2).sum()) for made in (plain, fitted)]
    assert weighted[1] < weighted[0]

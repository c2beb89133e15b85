"""The rise of the loss of a compressed model: of logits, of other outputs, of a given loss."""

from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("double_precision")
RNG = np.random.default_rng(0)
DENSE, SMALL = RNG.normal(size=(2, 7, 5))
BATCHES = [RNG.normal(size=(count, 7)) for count in (3, 4)]  # of unequal length: the mean is over examples


def models(backend_name, *, logits):
    """The maps `DENSE` and `SMALL` as models of a framework, and batches of its arrays."""
    if backend_name == "torch":
        torch = import_module("torch")

        class Model(torch.nn.Module):
            def __init__(self, matrix):
                super().__init__()
                self.matrix = torch.nn.Parameter(torch.tensor(matrix))

            def forward(self, x):
                return SimpleNamespace(logits=x @ self.matrix) if logits else x @ self.matrix

        return [Model(DENSE), Model(SMALL)], [torch.tensor(batch) for batch in BATCHES]
    if backend_name == "jax":
        jnp, nnx = import_module("jax.numpy"), import_module("flax.nnx")

        class Layer(nnx.Module):
            def __init__(self, matrix):
                self.matrix = nnx.Param(jnp.asarray(matrix))

            def __call__(self, x):
                return SimpleNamespace(logits=x @ self.matrix[...]) if logits else x @ self.matrix[...]

        return [Layer(DENSE), Layer(SMALL)], [jnp.asarray(batch) for batch in BATCHES]
    keras = import_module("keras")

    def made(matrix):
        inputs = keras.Input((7,), dtype="float64")
        layer = keras.layers.Dense(5, use_bias=False, dtype="float64")
        model = keras.Model(inputs, {"logits": layer(inputs)} if logits else layer(inputs))
        layer.kernel.assign(matrix)
        return model

    return [made(DENSE), made(SMALL)], BATCHES


def rise_of(backend_name, loss=None, *, logits=False):
    module = import_module(f"mponet_{backend_name}.compression.rise")
    (dense, small), batches = models(backend_name, logits=logits)
    return module.loss_rise(dense, small, batches, loss)


def test_of_logits_it_is_the_divergence_from_the_dense_model(backend_name):
    x = np.concatenate(BATCHES)
    first, second = (np.exp(x @ matrix) for matrix in (DENSE, SMALL))
    first, second = (p / p.sum(1, keepdims=True) for p in (first, second))
    expected = (first * np.log(first / second)).sum() / len(x)
    assert rise_of(backend_name, logits=True) == pytest.approx(expected, rel=1e-5)  # JAX takes float32


def test_of_other_outputs_it_is_half_of_the_squared_distance(backend_name):
    x = np.concatenate(BATCHES)
    expected = ((x @ (DENSE - SMALL)) ** 2).sum() / 2 / len(x)
    assert rise_of(backend_name) == pytest.approx(expected, rel=1e-12)


def test_with_a_loss_it_is_its_difference_and_may_be_negative(backend_name):
    x, rises = np.concatenate(BATCHES), []
    for sign in (1.0, -1.0):
        rises.append(rise_of(backend_name, lambda outputs, _, sign=sign: sign * np.sum(np.asarray(outputs) ** 3)))
        assert rises[-1] == pytest.approx(sign * ((x @ SMALL) ** 3 - (x @ DENSE) ** 3).sum() / len(x), rel=1e-12)
    assert min(rises) < 0 < max(rises)

"""Initial parameters of a model.

One numpy random stream per parameter, so that all backends start equal.
"""

from math import prod
from zlib import crc32

import numpy as np

from mponet.errors import ModelError
from mponet.models.shapes import LayerInfo, Shape, leaves, parameter_shapes, statistic_shapes
from mponet.models.spec import Model
from mponet.operators.arrays import Array
from mponet.operators.initialize import exact_variance, normal, paper_cores, truncated_normal, xavier

Parameters = dict[str, Array]
SCHEMES = ("paper", "xavier", "exact")
PAPER_SIGMA = 0.1  # the authors' MNIST scripts: truncated_normal_initializer(stddev=0.1)


def start(model: Model, seed: int, scheme: str = "exact") -> Parameters:
    """Initial parameters and running statistics by name, float64.

    Args:
        model: the network.
        seed: a whole number from 0.
        scheme: ``exact`` gives every weight, dense or MPO, He's variance; ``paper`` draws as the
            authors' MNIST code does; ``xavier`` draws the authors' cores, and all other weights by
            the same rule of TensorFlow 1, since their CIFAR-10 code does not give them.  With every
            scheme, biases and shifts are zero, scales one, running means zero, running variances
            one.

    Raises:
        ModelError: the scheme is unknown.

    >>> from mponet.models import build
    >>> values = start(build("fc2", bond=2), seed=0)
    >>> values["fc1/core2"].shape
    (2, 7, 4, 2)
    """
    if scheme not in SCHEMES:
        raise ModelError(f"initialiser is {scheme!r}; expected one of {', '.join(SCHEMES)}")
    return {name: value for info in leaves(model) for name, value in _layer(info, seed, scheme).items()}


def check(model: Model, parameters: Parameters) -> None:
    """Check names and shapes of ``parameters``, running statistics included, against ``model``.

    Raises:
        ModelError: a parameter is missing, unknown or of another shape.
    """
    expected = parameter_shapes(model) | statistic_shapes(model)
    if set(expected) != set(parameters):
        odd = sorted(set(expected) ^ set(parameters))
        raise ModelError(f"parameters of {model} differ in the names {odd}; expected exactly {sorted(expected)}")
    for name, shape in expected.items():
        if tuple(parameters[name].shape) != shape:
            raise ModelError(f"{name} of {model} has the shape {parameters[name].shape}; expected {shape}")


def _layer(info: LayerInfo, seed: int, scheme: str) -> Parameters:
    shapes = {**info.parameters, **info.statistics}
    values: Parameters = {name: np.full(shape, _constant(name)) for name, shape in shapes.items()}
    for operator in info.operators:
        rng = _stream(seed, operator.cores[0])
        mpo = exact_variance(operator.shape, rng, "he") if scheme == "exact" else paper_cores(operator.shape, rng)
        values |= zip(operator.cores, mpo.cores, strict=True)
    for name in values:
        if name.endswith("/kernel"):
            values[name] = _dense(values[name].shape, _stream(seed, name), scheme)
    return values


def _constant(name: str) -> float:
    return 1.0 if name.endswith(("/scale", "/variance")) else 0.0


def _dense(shape: Shape, rng: np.random.Generator, scheme: str) -> Array:
    if scheme == "paper":
        return truncated_normal(shape, PAPER_SIGMA, rng)
    if scheme == "xavier":
        return xavier(shape, rng)
    return normal(shape, prod(shape[:-1]), shape[-1], rng, "he")


def _stream(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, crc32(name.encode()))))

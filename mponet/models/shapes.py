"""Shapes, parameters, operators and compression ratios of a model, without running it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod

from mponet.errors import ModelError
from mponet.models.layer_info import LayerInfo as LayerInfo
from mponet.models.layer_info import Operator as Operator
from mponet.models.layer_info import Shape as Shape
from mponet.models.layer_info import infer_chain
from mponet.models.spec import Model
from mponet.operators import measure


@dataclass(frozen=True, slots=True)
class Counts:
    """How many numbers a network has, by kind.

    Attributes:
        weights: entries of kernels and cores.
        biases: entries of biases.
        norms: scales and shifts of batch norms.
        statistics: running means and variances, which are not parameters.
    """

    weights: int
    biases: int
    norms: int
    statistics: int

    @property
    def parameters(self) -> int:
        """All numbers that training changes."""
        return self.weights + self.biases + self.norms


def layers(model: Model) -> tuple[LayerInfo, ...]:
    """Every layer with its shapes, in order.

    Raises:
        ModelError: a layer does not fit the one before it, or two have the same name.
    """
    infos = infer_chain(model.layers, model.input_shape, str(model))
    names = [info.name for info in _leaves(infos) if info.parameters]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ModelError(f"{model} has two layers named {', '.join(twice)}; expected different names")
    return infos


def leaves(model: Model) -> Iterator[LayerInfo]:
    """Every layer without layers inside, in the order of use: a body before its shortcut."""
    return _leaves(layers(model))


def operators(model: Model) -> tuple[Operator, ...]:
    """Every matrix product operator of the network, in the order of use.

    >>> from mponet.models import build
    >>> [(operator.name, operator.shape.parameters) for operator in operators(build("fc2"))]
    [('fc1', 14848), ('fc2', 736)]
    """
    return tuple(operator for info in leaves(model) for operator in info.operators)


def parameter_shapes(model: Model) -> dict[str, Shape]:
    """Shapes of all parameters by name, in the order of use."""
    return {name: shape for info in layers(model) for name, shape in info.parameters.items()}


def statistic_shapes(model: Model) -> dict[str, Shape]:
    """Shapes of all running statistics by name, in the order of use."""
    return {name: shape for info in layers(model) for name, shape in info.statistics.items()}


def parameter_count(model: Model) -> int:
    """Number of parameters, biases included, running statistics left out.

    >>> from mponet.models import build
    >>> parameter_count(build("fc2", "dense")), parameter_count(build("fc2", "mpo"))
    (203264, 15850)
    """
    return sum(info.size for info in layers(model))


def counts(model: Model) -> Counts:
    """How many numbers the network has, by kind."""
    totals = {"weights": 0, "biases": 0, "norms": 0}
    for name, shape in parameter_shapes(model).items():
        kind = name.rpartition("/")[2]
        totals[{"bias": "biases", "scale": "norms", "shift": "norms"}.get(kind, "weights")] += prod(shape)
    return Counts(**totals, statistics=sum(prod(shape) for shape in statistic_shapes(model).values()))


def compression_ratio(model: Model) -> float | None:
    """The paper's compression ratio ``rho`` (Eq. 9) over the layers with operators.

    None without any.

    >>> from mponet.models import build
    >>> round(compression_ratio(build("fc2")), 4)
    0.0767
    """
    replacements = operators(model)
    if not replacements:
        return None
    return measure.compression_ratio(
        [operator.shape for operator in replacements], [operator.replaced_weights for operator in replacements]
    )


def _leaves(infos: Iterable[LayerInfo]) -> Iterator[LayerInfo]:
    for info in infos:
        if info.branches:
            for branch in info.branches:
                yield from _leaves(branch)
        else:
            yield info

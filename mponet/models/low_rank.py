"""The low-rank variant of a network: the same layers, with operators that have factors of one.

A product of two matrices ``(N, r) (r, M)`` is the operator ``(N, 1) x (1, M)`` with bond ``r``.
"""

from dataclasses import replace

from mponet.models.spec import Concat, Conv2D, Dense, Layer, Model, Residual
from mponet.operators.shape import MPOShape

SOURCE = "low rank in place of the operators, for comparison at equal weights"


def low_rank(model: Model) -> Model:
    """The low-rank variant of an MPO network, each operator by the nearest number of weights.

    Args:
        model: the MPO variant.

    >>> from mponet.models import build
    >>> from mponet.models.shapes import operators
    >>> [str(operator.shape) for operator in operators(low_rank(build("fc2", bond=4)))]
    ['M^{1,256}_{784,1}(1)', 'M^{1,10}_{256,1}(3)']
    """
    layers = tuple(map(_layer, model.layers))
    return replace(model, variant="low-rank", layers=layers, source=f"{model.source}; {SOURCE}")


def low_rank_shape(shape: MPOShape) -> MPOShape:
    """The shape with factors of one whose number of weights is nearest to that of ``shape``.

    Its rank is at least 1, so that it may have more weights than a small ``shape``.

    >>> low_rank_shape(MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 16)).parameters
    14560
    """
    inputs, outputs = shape.in_features, shape.out_features
    rank = max(1, round(shape.parameters / (inputs + outputs)))
    return MPOShape.from_factors((inputs, 1), (1, outputs), rank)


def _layer(layer: Layer) -> Layer:
    match layer:
        case Dense() | Conv2D() if layer.mpo is not None:
            return replace(layer, mpo=low_rank_shape(layer.mpo))
        case Residual():
            return Residual(tuple(map(_layer, layer.body)), tuple(map(_layer, layer.shortcut)))
        case Concat():
            return Concat(tuple(map(_layer, layer.body)))
    return layer

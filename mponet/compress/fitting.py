"""The operator of one layer of a plan: fitted to its inputs, the bias corrected."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mponet.compress.calibrate import InputSums
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.search import permuted
from mponet.compress.target import Target
from mponet.errors import CompressionError
from mponet.operators.metric import Metric
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.output_metric import OutputMetric, fit_weighted

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FittedLayer:
    """An operator that takes the place of a module.

    Attributes:
        plan: the layer's row in the plan; ``plan.layout`` says in which order the inputs are.
        mpo: the operator.
        bias: the new bias ``(out,)``; None if the module has none.
        output_error: relative error of the module's outputs on the calibration inputs.
        loss_error: the same with outputs weighted by the loss's gradient; equal without weights.
    """

    plan: LayerPlan
    mpo: MPO
    bias: Array | None
    output_error: float
    loss_error: float

    @property
    def name(self) -> str:
        """Name of the module that is replaced."""
        return self.plan.name

    def matrix(self) -> Array:
        """The operator as a matrix ``(in, out)``, its rows in the order of the module's inputs."""
        assert self.plan.layout is not None
        matrix, rows = to_matrix(self.mpo), self.plan.layout.permutation()
        if rows is None:
            return matrix
        restored = np.empty_like(matrix)
        restored[rows] = matrix
        return restored


def fit_layer(
    target: Target,
    layer: LayerPlan,
    sums: InputSums | None,
    *,
    metric: str = "covariance",
    correct_bias: bool = True,
    outputs: OutputMetric | None = None,
) -> FittedLayer:
    """Fit the operator that a plan names.

    Args:
        target: the module.
        layer: its row in the plan.
        sums: over its inputs; None takes the plain metric.
        metric: as ``CompressConfig.fit_metric``.
        correct_bias: whether a module's bias takes up the mean error, ``mean(x) (W - W')``.
        outputs: weights of its outputs; None for none.

    Raises:
        CompressionError: the row leaves the layer dense, or belongs to another module.
    """
    if layer.layout is None or layer.shape is None:
        raise CompressionError(f"{layer.name} is left dense ({layer.reason}); expected a layer that is replaced")
    if (layer.name, layer.dense_weights) != (target.name, target.weights):
        raise CompressionError(
            f"the plan's {layer.name} has {layer.dense_weights} weights, and {target.name} has {target.weights}; "
            "expected a plan of this network"
        )
    matrix = np.asarray(target.load(), np.float64)
    seen = layer_metric(target, sums, metric, correct_bias)
    rows = layer.layout.permutation()
    ordered, ordered_metric = (matrix, seen) if rows is None else (matrix[rows], permuted(seen, rows))
    found = fit_weighted(ordered, layer.shape, ordered_metric, outputs)
    fitted = FittedLayer(layer, found.mpo, None, found.error, found.loss_error)
    bias = None if target.load_bias is None else np.asarray(target.load_bias(), np.float64)
    if bias is not None and correct_bias and sums is not None and sums.count:
        bias = bias + sums.mean @ (matrix - fitted.matrix())
    return replace(fitted, bias=bias)


def unfitted(target: Target, layer: LayerPlan) -> FittedLayer:
    """The operator that a plan names with all entries zero, to be overwritten by saved ones.

    Raises:
        CompressionError: the row leaves the layer dense, or belongs to another module.
    """
    if layer.shape is None or (layer.name, layer.dense_weights) != (target.name, target.weights):
        raise CompressionError(f"the plan's {layer.name} is no replacement of {target.name}; expected its own plan")
    bias = None if target.load_bias is None else np.zeros(target.out_features)
    return FittedLayer(layer, MPO(layer.shape, tuple(map(np.zeros, layer.shape.core_shapes))), bias, 0.0, 0.0)


def layer_metric(target: Target, sums: InputSums | None, kind: str, correct_bias: bool) -> Metric:
    """The metric that a layer is fitted in: centred where its bias takes up the mean."""
    if sums is None:
        return Metric.identity(target.in_features)
    return sums.metric(kind, centred=correct_bias and target.has_bias)

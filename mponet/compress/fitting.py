"""The operator of one layer of a plan: fitted to its inputs, the bias corrected."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mponet.compress.layer_plan import LayerPlan
from mponet.compress.target import Target
from mponet.compress.uses import Uses
from mponet.errors import CompressionError
from mponet.operators.mpo import MPO, to_matrix

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class FittedLayer:
    """An operator that takes the place of a module.

    Attributes:
        plan: the layer's row in the plan; ``plan.layout`` says in which order the inputs are.
        mpo: the operator.
        bias: the new bias ``(out,)``; None if the module has none.
        output_error: relative error of the module's outputs on the calibration inputs, or where
            they are few, an estimate for others (`mponet.operators.shrinkage`); the largest
            if it is used in several ways.
        loss_error: the same with outputs weighted by the loss's gradient; equal without weights.
        tied: the other modules that the operator takes the place of.
    """

    plan: LayerPlan
    mpo: MPO
    bias: Array | None
    output_error: float
    loss_error: float
    tied: tuple["TiedUse", ...] = ()

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


@dataclass(frozen=True, slots=True, eq=False)
class TiedUse:
    """Another module that shares the weight of a fitted layer.

    Attributes:
        name: of the module.
        transposed: whether it multiplies with the transpose (`Target.transposed`).
        bias: its new bias; None if it has none.
        output_error: relative error of its outputs on the calibration inputs.
    """

    name: str
    transposed: bool
    bias: Array | None
    output_error: float


def fit_layer(target: Target, layer: LayerPlan, uses: Uses, *, correct_bias: bool = True) -> FittedLayer:
    """Fit the operator that a plan names.

    Args:
        target: the module.
        layer: its row in the plan.
        uses: of its weight: what is known of its inputs and gradients, and of those tied to it.
        correct_bias: whether a module's bias takes up the mean error, ``mean(x) (W - W')``.

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
    found = uses.permuted(layer.layout.permutation()).fit(layer.shape)
    fitted = FittedLayer(layer, found.mpo, None, found.error, found.loss_error)
    rest = uses.matrix - fitted.matrix()
    return replace(fitted, bias=_corrected(target, uses, rest, correct_bias))


def fit_tied(fitted: FittedLayer, tied: Sequence[Target], uses: Uses, *, correct_bias: bool = True) -> FittedLayer:
    """The fitted layer with the modules that share its weight, their biases corrected, too."""
    if not tied:
        return fitted
    rest = uses.matrix - fitted.matrix()
    errors, _ = uses.errors(fitted.matrix())
    shared = tuple(
        TiedUse(
            target.name,
            target.transposed,
            _corrected(target, uses, rest.T if target.transposed else rest, correct_bias),
            errors.get(target.name, 0.0),
        )
        for target in tied
    )
    return replace(fitted, output_error=errors.get(fitted.name, fitted.output_error), tied=shared)


def _corrected(target: Target, uses: Uses, rest: Array, correct_bias: bool) -> Array | None:
    """A module's bias with the mean of what its outputs lose."""
    if target.load_bias is None:
        return None
    bias = np.asarray(target.load_bias(), np.float64)
    sums = next((use.sums for use in uses.uses if use.target.name == target.name), None)
    return bias + sums.mean @ rest if correct_bias and sums is not None and sums.count else bias


def unfitted(target: Target, layer: LayerPlan, tied: Sequence[Target] = ()) -> FittedLayer:
    """The operator that a plan names with all entries zero, to be overwritten by saved ones.

    Raises:
        CompressionError: the row leaves the layer dense, or belongs to another module.
    """
    if layer.shape is None or (layer.name, layer.dense_weights) != (target.name, target.weights):
        raise CompressionError(f"the plan's {layer.name} does not fit {target.name}; expected the plan of this network")
    mpo = MPO(layer.shape, tuple(map(np.zeros, layer.shape.core_shapes)))
    shared = tuple(TiedUse(other.name, other.transposed, _no_bias(other), 0.0) for other in tied)
    return FittedLayer(layer, mpo, _no_bias(target), 0.0, 0.0, shared)


def _no_bias(target: Target) -> Array | None:
    return None if target.load_bias is None else np.zeros(target.out_features)

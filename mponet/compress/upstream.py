"""Layers fitted to the inputs that they get in the compressed network, stage by stage.

A layer after compressed ones reads ``x'`` in place of ``x``.  What it should still give is
``x W``, so the matrix to fit is that which gives it from ``x'`` by least squares, and the metric is
that of ``x'``.  Stages are fitted in the order of the network; layers of one stage do not see one
another.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.compress.calibrate import Calibration, InputSums
from mponet.compress.fitting import FittedLayer, fit_layer
from mponet.compress.layer_plan import LayerPlan
from mponet.compress.target import Target
from mponet.compress.uses import Uses
from mponet.errors import CompressionError

Array = NDArray[np.float64]
Rows = Any  # an array of any framework
#: Weight of staying near the trained matrix, as a share of the mean square of an input.
DAMPING = 0.01


@dataclass(slots=True, eq=False)
class CrossSums:
    """Sums over the inputs of a layer in the compressed network and in the dense one.

    Attributes:
        inputs: sums over the inputs ``x'`` in the compressed network.
        cross: ``sum x'^T x`` over the same rows, ``(in, in)``.
        total: ``sum x``, ``(in,)``, of the dense network.
    """

    inputs: InputSums
    cross: Array
    total: Array

    @classmethod
    def zeros(cls, size: int) -> "CrossSums":
        """Sums of nothing yet."""
        return cls(InputSums.zeros(size), np.zeros((size, size)), np.zeros(size))

    def add(self, compressed: Array, dense: Array) -> None:
        """Add rows ``(n, in)`` of both networks, in the same order."""
        sums = compressed.T @ compressed, compressed.sum(0), compressed.T @ dense, dense.sum(0)
        self.add_sums(*sums, len(compressed))

    def add_sums(self, products: Array, total: Array, cross: Array, dense_total: Array, count: int) -> None:
        """Add sums that were formed elsewhere.

        Args:
            products: ``sum x'^T x'``, ``(in, in)``.
            total: ``sum x'``, ``(in,)``.
            cross: ``sum x'^T x``, ``(in, in)``.
            dense_total: ``sum x``, ``(in,)``.
            count: number of rows.

        Raises:
            CompressionError: they are not finite.
        """
        self.inputs.add_sums(products, total, count)
        self.cross += cross
        self.total += dense_total


def cross_sums(
    batches: Iterable[Sequence[Mapping[str, Rows]]],
    products: Callable[[Rows, Rows], tuple[Array, Array, Array, Array]],
) -> dict[str, CrossSums]:
    """Sums over the rows that linear layers read in the dense and in the compressed network.

    Args:
        batches: for each batch the rows ``(n, in)`` of every layer, by name, of the dense network,
            then of the compressed one.
        products: gives ``sum x'^T x'``, ``sum x'``, ``sum x'^T x`` and ``sum x`` of ``x'`` and
            ``x``, in float64.

    Raises:
        CompressionError: a layer reads another number of rows in the two networks.
    """
    sums: dict[str, CrossSums] = {}
    for dense, compressed in batches:
        for name, rows in compressed.items():
            other = dense[name]
            if rows.shape != other.shape:
                raise CompressionError(
                    f"{name} reads {other.shape[0]} rows in the dense network, and {rows.shape[0]} in the compressed "
                    "one; expected as many; compress without upstream"
                )
            if name not in sums:
                sums[name] = CrossSums.zeros(rows.shape[1])
            sums[name].add_sums(*products(rows, other), rows.shape[0])
    return sums


def stages(layers: Sequence[LayerPlan]) -> list[list[LayerPlan]]:
    """Layers in the order of the network, those of one block together.

    A block are the layers whose names agree up to their first number.
    """
    found: dict[str, list[LayerPlan]] = {}
    for layer in layers:
        found.setdefault(_block(layer.name), []).append(layer)
    return list(found.values())


def fit_upstream(
    target: Target,
    layer: LayerPlan,
    sums: CrossSums,
    calibration: Calibration | None,
    *,
    kind: str,
    correct_bias: bool,
) -> FittedLayer:
    """Fit the operator that a plan names to the outputs of the dense network.

    Args:
        target: the module, a linear layer whose weight no other shares.
        layer: its row in the plan.
        sums: over its inputs in both networks.
        calibration: gradients at its outputs.
        kind: as ``CompressConfig.fit_metric``.
        correct_bias: whether a module's bias takes up the mean error.
    """
    matrix = np.asarray(target.load(), np.float64)
    centred = correct_bias and target.has_bias
    wanted = adapted(matrix, sums, centred=centred)
    moved = replace(target, load=lambda: wanted)
    known = Calibration() if calibration is None else calibration.only(target.name)
    known.sums, known.inputs = {target.name: sums.inputs}, {target.name: target.name}
    uses = Uses.of([moved], known, kind=kind, correct_bias=correct_bias)
    fitted = fit_layer(moved, layer, uses, correct_bias=correct_bias)
    if target.load_bias is None or not centred:
        return fitted
    lost = (sums.total @ matrix - sums.inputs.total @ fitted.matrix()) / max(sums.inputs.count, 1)
    return replace(fitted, bias=np.asarray(target.load_bias(), np.float64) + lost)


def adapted(matrix: Array, sums: CrossSums, *, centred: bool = False) -> Array:
    """The matrix ``V`` with the least ``|X W - X' V|^2 + d |W - V|^2``.

    Args:
        matrix: ``W``, ``(in, out)``.
        sums: over ``x'`` and ``x``; ``d`` is `DAMPING` times the mean square of ``x'``.
        centred: whether the means are taken off first.
    """
    products, cross = sums.inputs.products, sums.cross
    if centred and sums.inputs.count:
        products = products - np.outer(sums.inputs.total, sums.inputs.total) / sums.inputs.count
        cross = cross - np.outer(sums.inputs.total, sums.total) / sums.inputs.count
    damping = DAMPING * float(np.trace(products)) / len(products)
    if not damping > 0.0:
        return matrix
    products[np.diag_indices(len(products))] += damping
    return np.asarray(np.linalg.solve(products, cross @ matrix + damping * matrix), np.float64)


def _block(name: str) -> str:
    parts = name.split(".")
    number = next((k for k, part in enumerate(parts) if part.isdecimal()), None)
    return name if number is None else ".".join(parts[: number + 1])

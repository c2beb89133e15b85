"""`Uses`: what the errors of a weight cost where it is used, once or several times.

The weight of a tied pair is used as the table of an embedding and, transposed, as the matrix of
the output head.  Both say how far it is off; it is fitted to both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mponet.compress.calibrate import Calibration, InputSums
from mponet.compress.target import Target
from mponet.operators.metric import Metric, OutputSpectrum, output_spectrum
from mponet.operators.mpo import to_matrix
from mponet.operators.output_metric import OutputMetric, WeightedFit, fit_weighted
from mponet.operators.shape import MPOShape
from mponet.operators.weighted_norm import WeightedNorm, nearest_norm

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """One module that multiplies with a weight, or with its transpose.

    Attributes:
        target: the module.
        sums: over its inputs; None without data.
        outputs: the squared norm of a difference is the sum of squares of what its outputs lose.
        loss: the same with outputs weighted by the loss's gradient; ``outputs`` without weights.
        rows: number of rows in ``outputs``.
        scale: the predicted rise of the mean loss per squared norm in ``loss``; 0 if unknown.
    """

    target: Target
    sums: InputSums | None
    outputs: WeightedNorm
    loss: WeightedNorm
    rows: int
    scale: float

    @classmethod
    def of(cls, target: Target, calibration: Calibration | None, kind: str, correct_bias: bool) -> "Use":
        """The use that a target makes of a weight.

        Args:
            target: the module.
            calibration: sums over its inputs and gradients at its outputs, as far as known.
            kind: as ``CompressConfig.fit_metric``.
            correct_bias: whether the module's bias takes up the mean error.
        """
        sums = calibration.of(target.name) if calibration else None
        weights = calibration.output_metric(target.name, kind) if calibration else None
        gradient = calibration.gradients.get(target.name, 0.0) if calibration else 0.0
        inputs = Metric.identity(target.in_features)
        if sums is not None:
            inputs = sums.metric(kind, centred=correct_bias and target.has_bias)
        rows = sums.count if sums is not None and sums.count and kind != "none" else target.in_features
        scale = (gradient if weights is None else 1.0) / 2 / rows
        if not target.transposed:
            return cls(target, sums, WeightedNorm(inputs), WeightedNorm(inputs, weights), rows, scale)
        columns = OutputMetric(inputs.covariance, damping=0.0) if inputs.covariance.any() else None
        outputs = WeightedNorm(Metric.identity(target.out_features), columns)
        loss = outputs if weights is None else WeightedNorm(Metric(_diagonal(weights.moment)), columns)
        return cls(target, sums, outputs, loss, rows, scale)


@dataclass(frozen=True, slots=True, eq=False)
class Uses:
    """All uses of one weight, and the norm that it is fitted in.

    Attributes:
        matrix: the weight as its first module has it, ``(in, out)``.
        uses: at least one.
        norm: that of the only use, or one that is near the sum over all of them: weighted by what
            they cost the loss, and by their relative errors where that is unknown.
    """

    matrix: Array
    uses: tuple[Use, ...]
    norm: WeightedNorm

    @classmethod
    def of(cls, targets: Sequence[Target], calibration: Calibration | None, *, kind: str, correct_bias: bool) -> "Uses":
        """The uses that some targets make of the weight of the first one.

        Args:
            targets: modules that share one weight; those that data never reach do not count.
            calibration: what is known of their inputs and gradients; None takes the plain norm.
            kind: as ``CompressConfig.fit_metric``.
            correct_bias: whether biases take up mean errors.
        """
        matrix = np.asarray(targets[0].load(), np.float64)
        reached = [target for target in targets if calibration is None or _reached(calibration, target)]
        uses = tuple(Use.of(target, calibration, kind, correct_bias) for target in reached or targets[:1])
        scales = [use.scale for use in uses]
        if not any(scales):
            scales = [1.0 / (use.loss.energy(matrix) or 1.0) for use in uses]
        return cls(matrix, uses, nearest_norm([use.loss for use in uses], scales, matrix.shape[1]))

    @property
    def output_energy(self) -> float:
        """Mean squared norm of the outputs of all uses."""
        return sum(use.outputs.energy(self.matrix) / use.rows for use in self.uses)

    @property
    def loss_energy(self) -> float:
        """Predicted rise of the mean loss at a relative squared error of one; 0 if unknown."""
        return sum(use.scale * use.loss.energy(self.matrix) for use in self.uses)

    @property
    def is_plain(self) -> bool:
        """Whether errors are those of the weight itself, with no weights of rows or columns."""
        return len(self.uses) == 1 and self.norm.columns is None and self.norm.rows.is_uniform

    def permuted(self, order: Sequence[int] | None) -> "Uses":
        """The same with the rows of the matrix in another order; None changes nothing."""
        if order is None:
            return self
        uses = tuple(
            replace(use, outputs=use.outputs.permuted(order), loss=use.loss.permuted(order)) for use in self.uses
        )
        return Uses(self.matrix[list(order)], uses, uses[0].loss if len(uses) == 1 else self.norm.permuted(order))

    def spectrum(self, seed: int) -> OutputSpectrum:
        """The spectrum of the weighted outputs, of which low rank keeps the leading values."""
        columns = self.norm.columns
        return output_spectrum(
            self.matrix if columns is None else columns.weigh(self.matrix), self.norm.rows, seed=seed
        )

    def low_rank_errors(self, spectrum: OutputSpectrum) -> tuple[Array, Array]:
        """Relative squared errors of the outputs of each rank from 0 to all, and weighted ones."""
        columns = self.norm.columns
        if len(self.uses) == 1 and not self.uses[0].target.transposed:
            plain = spectrum.errors if columns is None else columns.output_errors(spectrum)
            return plain, spectrum.errors
        errors, losses = [], np.zeros(len(spectrum.squares) + 1)
        for use, share in zip(self.uses, self._shares(), strict=True):
            dropped = use.outputs.truncation_energies(spectrum, columns, self.matrix)
            errors.append(dropped / (use.outputs.energy(self.matrix) or 1.0))
            losses += share * use.loss.truncation_energies(spectrum, columns, self.matrix)
        return np.max(errors, axis=0), np.where(spectrum.errors == 0.0, 0.0, losses)

    def errors(self, other: Array) -> tuple[dict[str, float], float]:
        """Relative error of each module's outputs by name, and of all weighted by the loss.

        Args:
            other: what takes the place of the matrix.
        """
        plain = {use.target.name: use.outputs.relative_error(self.matrix, other) for use in self.uses}
        difference = self.matrix - other
        losses = [share * use.loss.energy(difference) for share, use in zip(self._shares(), self.uses, strict=True)]
        return plain, float(np.sqrt(sum(losses)))

    def fit(self, shape: MPOShape, **options: int) -> WeightedFit:
        """The operator of a shape that is nearest; its error is the largest of the modules'.

        Args:
            shape: factors and bonds.
            **options: ``max_sweeps``.
        """
        found = fit_weighted(self.matrix, shape, self.norm.rows, self.norm.columns, **options)
        if len(self.uses) == 1 and not self.uses[0].target.transposed:
            return found
        plain, loss = self.errors(to_matrix(found.mpo))
        return WeightedFit(found.mpo, max(plain.values()), loss)

    def _shares(self) -> list[float]:
        """What a squared norm in each use's ``loss`` adds to the relative squared error of all."""
        energies = [use.loss.energy(self.matrix) for use in self.uses]
        scales = [use.scale for use in self.uses]
        if not any(scales):
            return [1.0 / (energy or 1.0) / len(energies) for energy in energies]
        total = sum(scale * energy for scale, energy in zip(scales, energies, strict=True)) or 1.0
        return [scale / total for scale in scales]


def _diagonal(moment: Array) -> Array:
    return moment if moment.ndim == 1 else np.diagonal(moment).copy()


def _reached(calibration: Calibration, target: Target) -> bool:
    sums = calibration.of(target.name)
    return sums is not None and sums.count > 0

"""What a pass over data leaves behind.

Sums over the inputs of layers, and gradients at their outputs.

The sums are float64 and additive: those of several processes, or of several runs, add up by
`Calibration.merge`.  No batch is kept.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mponet.compress.sums import read_sums, write_sums
from mponet.compress.symmetric import SymmetricSum
from mponet.compress.target import Target
from mponet.errors import CheckpointError, CompressionError, ShapeError
from mponet.operators.metric import Metric
from mponet.operators.output_metric import OutputMetric
from mponet.operators.shrinkage import ENOUGH_ROWS, shrunk

Array = NDArray[np.float64]
#: Outputs up to which all gradient products are kept; of wider layers only the diagonal.
MAX_PRODUCT_OUTPUTS = 8192


@dataclass(slots=True, eq=False)
class InputSums:
    """Sums over the inputs ``x`` of the layers that share them.

    Attributes:
        packed: ``sum x^T x``, of which only one triangle is kept; for a diagonal metric
            ``sum x^2``.
        total: ``sum x``, ``(in,)``.
        count: number of rows.
    """

    packed: SymmetricSum
    total: Array
    count: int = 0

    @classmethod
    def zeros(cls, size: int, *, diagonal: bool = False) -> "InputSums":
        """Sums of nothing yet, for inputs of ``size`` features."""
        return cls(SymmetricSum.zeros(size, diagonal=diagonal), np.zeros(size))

    @property
    def is_diagonal(self) -> bool:
        """Whether only squares of inputs are summed, no products of two of them."""
        return self.packed.is_diagonal

    @property
    def products(self) -> Array:
        """``sum x^T x``, ``(in, in)``, or ``sum x^2``, ``(in,)``; made anew at each call."""
        return self.packed.full()

    def add(self, rows: NDArray[np.floating]) -> None:
        """Add rows ``(n, in)``.

        Raises:
            ShapeError: they have another width.
            CompressionError: they are not finite.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.total):
            raise ShapeError(f"rows have the shape {rows.shape}; expected (n, {len(self.total)})")
        exact = rows.astype(np.float64)
        self.add_sums((exact**2).sum(0) if self.is_diagonal else exact.T @ exact, exact.sum(0), len(rows))

    def add_sums(self, products: Array, total: Array, count: int) -> None:
        """Add sums that were formed elsewhere, as on an accelerator.

        Args:
            products: ``sum x^T x``, ``(in, in)``, or ``sum x^2``, ``(in,)`` for diagonal sums.
            total: ``sum x``, ``(in,)``.
            count: number of rows.

        Raises:
            CompressionError: they are not finite.
            ShapeError: they have another shape.
        """
        if not (np.isfinite(total).all() and np.isfinite(products).all()):
            raise CompressionError("the calibration inputs of a layer are not finite; expected finite activations")
        self.packed.add(products)
        self.total += total
        self.count += int(count)

    def merge(self, other: "InputSums") -> None:
        """Add the sums over other rows.

        Raises:
            ShapeError: they are over other inputs.
        """
        self.packed.merge(other.packed)
        self.total += other.total
        self.count += other.count

    def copy(self) -> "InputSums":
        """Independent sums of the same values."""
        return InputSums(self.packed.copy(), self.total.copy(), self.count)

    def add_counts(self, rows: NDArray[np.integer]) -> None:
        """Add the row numbers that an embedding reads.

        Its inputs are one-hot, so only counts are needed.
        """
        counts = np.bincount(rows.reshape(-1), minlength=len(self.total)).astype(np.float64)
        self.add_sums(counts, counts, rows.size)

    @property
    def mean(self) -> Array:
        """Mean input, ``(in,)``."""
        return self.total / max(self.count, 1)

    def metric(self, kind: str = "covariance", *, centred: bool = False) -> Metric:
        """The metric of the inputs; of their differences from the mean if ``centred``.

        Its covariance is shrunk towards the diagonal as far as rows are few
        (`mponet.operators.shrinkage`).

        Args:
            kind: as ``CompressConfig.fit_metric``; ``kfac`` is ``covariance`` here.
            centred: whether a bias takes up the mean error.
        """
        if kind == "none" or self.count == 0:
            return Metric.identity(len(self.total))
        mean = self.total / self.count if centred else np.zeros(len(self.total))
        if kind == "diagonal" or self.is_diagonal:
            # rounding of the mean's square may leave less than nothing
            return Metric(np.maximum(self.packed.diagonal() - self.total * mean, 0.0))
        products = self.packed.full()
        if centred:
            products -= np.outer(self.total, mean)
            products = (products + products.T) / 2
            products[np.diag_indices(len(products))] = np.maximum(np.diagonal(products), 0.0)
        return Metric(shrunk(products, self.count - centred))


@dataclass(slots=True, eq=False)
class Calibration:
    """Everything that a pass over data tells about the targets of a network.

    Attributes:
        sums: sums over inputs, by key; layers that read the same tensor share one.
        inputs: target name to the key of its inputs.
        gradients: target name to ``g``, the mean over rows and features of the squared gradient of
            the *summed* loss at the target's output; empty if there was no backward pass.
        gradient_rows: rows that ``gradients`` are means over.
        gradient_products: target name to ``sum g^T g`` over the gradients ``g`` of those rows, or
            ``sum g^2`` for a diagonal one; empty unless the metric is ``kfac``.
        examples: number of examples in the data; 0 if they were not counted.
    """

    sums: dict[str, InputSums] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    gradient_rows: dict[str, int] = field(default_factory=dict)
    gradient_products: dict[str, SymmetricSum] = field(default_factory=dict)
    examples: int = 0

    def of(self, name: str) -> InputSums | None:
        """The sums over a target's inputs; None if it was never reached."""
        key = self.inputs.get(name)
        return None if key is None else self.sums.get(key)

    def output_metric(self, name: str, kind: str = "kfac") -> OutputMetric | None:
        """The weights of a target's outputs.

        None unless the kind is ``kfac`` and its gradient products were gathered and are not zero.
        """
        products = self.gradient_products.get(name) if kind == "kfac" else None
        if products is None or not products.values.any():
            return None
        return OutputMetric(products.full(), self.gradient_rows[name])

    def placed(self, target: Target) -> Target:
        """The target with its rows per example, as far as they were counted."""
        sums = self.of(target.name)
        if sums is None or not sums.count or not self.examples:
            return target
        return replace(target, positions=max(round(sums.count / self.examples), 1))

    def only(self, *names: str) -> "Calibration":
        """What it tells about some targets, to be sent to another process."""
        return Calibration(
            {name: sums for name in names if (sums := self.of(name)) is not None},
            {name: name for name in names if self.of(name) is not None},
            {name: self.gradients[name] for name in names if name in self.gradients},
            {name: self.gradient_rows[name] for name in names if name in self.gradient_rows},
            {name: self.gradient_products[name] for name in names if name in self.gradient_products},
            self.examples,
        )

    def counts(self) -> list[tuple[str, int]]:
        """Number of rows in every sum, by name."""
        gradients = {f"{name}/gradients": self.gradient_rows[name] for name in self.gradient_products}
        return sorted({**{key: s.count for key, s in self.sums.items()}, **gradients}.items())

    def add_gradient(self, name: str, mean_square: float, rows: int, products: Array | None = None) -> None:
        """Take in the gradients of more rows.

        Args:
            name: of the target.
            mean_square: mean of their squares over rows and features.
            rows: number of rows.
            products: ``sum g^T g`` over them, or its diagonal; None if they are not gathered.

        Raises:
            CompressionError: they are not finite, or products are given for some rows only.
        """
        if not np.isfinite(mean_square) or not (products is None or np.isfinite(products).all()):
            raise CompressionError(f"the gradient at the output of {name} is not finite; expected a finite loss")
        before = self.gradient_rows.get(name, 0)
        if before and (products is None) == (name in self.gradient_products):
            raise CompressionError(
                f"the gradient products of {name} are known for some rows only; expected passes with the same metric"
            )
        mean = self.gradients.get(name, 0.0)
        self.gradients[name] = (mean * before + float(mean_square) * rows) / max(before + rows, 1)
        self.gradient_rows[name] = before + rows
        if products is not None:
            if name not in self.gradient_products:
                self.gradient_products[name] = SymmetricSum.zeros(len(products), diagonal=products.ndim == 1)
            self.gradient_products[name].add(products)

    def merge(self, other: "Calibration") -> None:
        """Add the sums of another pass over other data, as of another process.

        Raises:
            CompressionError: the two are of different networks.
        """
        if self.inputs and other.inputs and self.inputs != other.inputs:
            raise CompressionError("two calibrations belong to different networks; expected the same names and inputs")
        self.inputs = dict(other.inputs or self.inputs)
        for key, sums in other.sums.items():
            if key in self.sums:
                self.sums[key].merge(sums)
            else:
                self.sums[key] = sums.copy()
        self.examples += other.examples
        for name, mean in other.gradients.items():
            products = other.gradient_products.get(name)
            self.add_gradient(name, mean, other.gradient_rows[name], None if products is None else products.full())

    def warnings(self) -> list[str]:
        """What a reader should know of the data: inputs with too few rows."""
        full = {key: s for key, s in self.sums.items() if not s.is_diagonal}
        few = {key: s.count / len(s.total) for key, s in full.items() if s.count < ENOUGH_ROWS * len(s.total)}
        if not few:
            return []
        worst = min(few, key=lambda key: few[key])
        return [
            f"{len(few)} of {len(self.sums)} inputs have fewer than {ENOUGH_ROWS} rows per feature (fewest: "
            f"{worst} with {few[worst]:.1f}), so their covariances are shrunk towards the diagonal; more calibration "
            "data would make the fit better"
        ]

    def save(self, path: Path) -> None:
        """Write to a safetensors file, atomically.

        Raises:
            CheckpointError: the file cannot be written.
        """
        tensors: dict[str, Array] = {}
        for key, sums in self.sums.items():
            tensors[f"{key}/products"], tensors[f"{key}/total"] = sums.packed.values, sums.total
        tensors |= {f"{name}/gradients": products.values for name, products in self.gradient_products.items()}
        details = {
            "counts": {key: sums.count for key, sums in self.sums.items()},
            "diagonal": [key for key, sums in self.sums.items() if sums.is_diagonal],
            "inputs": self.inputs,
            "gradients": self.gradients,
            "gradient_rows": self.gradient_rows,
            "gradient_products": {name: [p.size, p.is_diagonal] for name, p in self.gradient_products.items()},
            "examples": self.examples,
        }
        write_sums(path, tensors, details)

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Read a file that `save` wrote.

        Raises:
            CheckpointError: it is no such file.
        """
        tensors, details = read_sums(path)
        try:
            sums = {}
            for key, count in details["counts"].items():
                total = tensors[f"{key}/total"]
                packed = SymmetricSum(len(total), tensors[f"{key}/products"], key in details["diagonal"])
                sums[key] = InputSums(packed, total, int(count))
            products = {
                name: SymmetricSum(int(size), tensors[f"{name}/gradients"], bool(diagonal))
                for name, (size, diagonal) in details["gradient_products"].items()
            }
            examples = int(details["examples"])
        except (KeyError, TypeError, ValueError, ShapeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); calibrate again") from error
        return cls(sums, details["inputs"], details["gradients"], details["gradient_rows"], products, examples)

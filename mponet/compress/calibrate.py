"""What a pass over data leaves behind.

Sums over the inputs of layers, and gradients at their outputs.

The sums are float64 and additive: those of several processes, or of several runs, add up by
`Calibration.merge`.  No batch is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mponet.compress.sums import read_sums, write_sums
from mponet.compress.target import Target
from mponet.errors import CompressionError, ShapeError
from mponet.operators.metric import Metric
from mponet.operators.output_metric import OutputMetric

Array = NDArray[np.float64]
#: Outputs up to which all gradient products are kept; of wider layers only the diagonal.
MAX_PRODUCT_OUTPUTS = 8192
#: Rows per input below which a covariance is called poor.
MIN_ROWS_PER_INPUT = 4


@dataclass(slots=True, eq=False)
class InputSums:
    """Sums over the inputs ``x`` of the layers that share them.

    Attributes:
        products: ``sum x^T x``, ``(in, in)``; for a diagonal metric ``sum x^2``, ``(in,)``.
        total: ``sum x``, ``(in,)``.
        count: number of rows.
    """

    products: Array
    total: Array
    count: int = 0

    @classmethod
    def zeros(cls, size: int, *, diagonal: bool = False) -> "InputSums":
        """Sums of nothing yet, for inputs of ``size`` features."""
        return cls(np.zeros(size if diagonal else (size, size)), np.zeros(size))

    def add(self, rows: NDArray[np.floating]) -> None:
        """Add rows ``(n, in)``.

        Raises:
            ShapeError: they have another width.
            CompressionError: they are not finite.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.total):
            raise ShapeError(f"rows have the shape {rows.shape}; expected (n, {len(self.total)})")
        exact = rows.astype(np.float64)
        self.add_sums(exact.T @ exact if self.products.ndim == 2 else (exact**2).sum(0), exact.sum(0), len(rows))

    def add_sums(self, products: Array, total: Array, count: int) -> None:
        """Add sums that were formed elsewhere, as on an accelerator.

        Raises:
            CompressionError: they are not finite.
        """
        if not (np.isfinite(total).all() and np.isfinite(products).all()):
            raise CompressionError("the calibration inputs of a layer are not finite; expected finite activations")
        self.products += products
        self.total += total
        self.count += int(count)

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

        Args:
            kind: as ``CompressConfig.fit_metric``; ``kfac`` is ``covariance`` here.
            centred: whether a bias takes up the mean error.
        """
        if kind == "none" or self.count == 0:
            return Metric.identity(len(self.total))
        products = (
            np.diagonal(self.products).copy() if kind == "diagonal" and self.products.ndim == 2 else self.products
        )
        if centred and products.ndim == 2:
            products = products - np.outer(self.total, self.total) / self.count
            products = (products + products.T) / 2
        elif centred:
            products = products - self.total**2 / self.count
        if products.ndim == 2:
            # rounding of the mean's square
            products[np.diag_indices(len(products))] = np.maximum(np.diagonal(products), 0.0)
        else:
            products = np.maximum(products, 0.0)
        return Metric(products)


@dataclass(slots=True, eq=False)
class Calibration:
    """Everything that a pass over data tells about the targets of a network.

    Attributes:
        sums: sums over inputs, by key; layers that read the same tensor share one.
        inputs: target name to the key of its inputs.
        gradients: target name to ``g``, the mean over rows and features of the squared gradient of
            the *summed* loss at the target's output; empty if there was no backward pass.
        gradient_rows: rows that ``gradients`` are means over.
        gradient_products: target name to ``sum g^T g`` over the gradients ``g`` of those rows,
            ``(out, out)``, or ``sum g^2``, ``(out,)``; empty unless the metric is ``kfac``.
        examples: number of examples in the data; 0 if they were not counted.
    """

    sums: dict[str, InputSums] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    gradient_rows: dict[str, int] = field(default_factory=dict)
    gradient_products: dict[str, Array] = field(default_factory=dict)
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
        return None if products is None or not products.any() else OutputMetric(products, self.gradient_rows[name])

    def placed(self, target: Target) -> Target:
        """The target with its rows per example, as far as they were counted."""
        sums = self.of(target.name)
        if sums is None or not sums.count or not self.examples:
            return target
        return replace(target, positions=max(round(sums.count / self.examples), 1))

    def only(self, name: str) -> "Calibration":
        """What it tells about one target, to be sent to another process."""
        sums = self.of(name)
        return Calibration(
            {} if sums is None else {name: sums},
            {} if sums is None else {name: name},
            {name: self.gradients[name]} if name in self.gradients else {},
            {name: self.gradient_rows[name]} if name in self.gradient_rows else {},
            {name: self.gradient_products[name]} if name in self.gradient_products else {},
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
            self.gradient_products[name] = products + self.gradient_products.get(name, 0.0)

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
                self.sums[key].add_sums(sums.products, sums.total, sums.count)
            else:
                self.sums[key] = InputSums(sums.products.copy(), sums.total.copy(), sums.count)
        self.examples += other.examples
        for name, mean in other.gradients.items():
            self.add_gradient(name, mean, other.gradient_rows[name], other.gradient_products.get(name))

    def warnings(self) -> list[str]:
        """What a reader should know of the data: inputs with too few rows."""
        poor = {key: s for key, s in self.sums.items() if s.products.ndim == 2}
        few = {key: s.count / len(s.total) for key, s in poor.items() if s.count < MIN_ROWS_PER_INPUT * len(s.total)}
        if not few:
            return []
        worst = min(few, key=lambda key: few[key])
        return [
            f"{len(few)} of {len(self.sums)} inputs have fewer than {MIN_ROWS_PER_INPUT} rows per feature (fewest: "
            f"{worst} with {few[worst]:.1f}); more calibration data would make the fit more reliable"
        ]

    def save(self, path: Path) -> None:
        """Write to a safetensors file, atomically.

        Raises:
            CheckpointError: the file cannot be written.
        """
        tensors: dict[str, Array] = {}
        for key, sums in self.sums.items():
            tensors[f"{key}/products"], tensors[f"{key}/total"] = sums.products, sums.total
        tensors |= {f"{name}/gradients": products for name, products in self.gradient_products.items()}
        counts = {key: sums.count for key, sums in self.sums.items()}
        details = {
            "counts": counts,
            "inputs": self.inputs,
            "gradients": self.gradients,
            "gradient_rows": self.gradient_rows,
            "gradient_products": sorted(self.gradient_products),
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
        counts: Mapping[str, int] = details["counts"]
        sums = {key: InputSums(tensors[f"{key}/products"], tensors[f"{key}/total"], int(counts[key])) for key in counts}
        products = {name: tensors[f"{name}/gradients"] for name in details["gradient_products"]}
        counted = details["gradients"], details["gradient_rows"], products, int(details.get("examples", 0))
        return cls(sums, details["inputs"], *counted)

"""`OperatorLayer`.

What every layer whose weight is an operator offers, written once for all frameworks.
"""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mponet.contraction.memory import checked_memory
from mponet.contraction.planner import PlanningContext, PlanSet, mode, plans_for
from mponet.contraction.program import DEFAULT_BATCH, BasePlan
from mponet.display import NotebookRepr
from mponet.errors import InputError
from mponet.layers.checks import check_bias
from mponet.layers.inputs import InputStatistics
from mponet.layers.sizes import choose_sizes
from mponet.operators.decompose import from_matrix
from mponet.operators.fit import fit_matrix
from mponet.operators.mpo import MPO, to_matrix

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DenseWeights:
    """What a framework's dense layer holds.

    Attributes:
        matrix: ``W`` of ``x @ W``, ``(in_features, out_features)``.
        bias: ``(out_features,)`` or None.
        options: constructor arguments that carry over, such as the dtype.
        place: inside it, new parameters land on the device of the dense layer.
    """

    matrix: NDArray[Any]
    bias: NDArray[Any] | None
    options: dict[str, Any] = field(default_factory=dict)
    place: AbstractContextManager[Any] = field(default_factory=nullcontext)


class OperatorLayer(NotebookRepr):
    """A layer whose weight is an operator: conversions, assignment, plans, and what its repr says.

    Three classes make a layer.  This one is framework-free.  `ChainLayer` or `NetworkLayer` says
    what kind of operator it is.  An adapter's ``ParameterAccess`` says how its framework makes,
    reads and writes parameters.  The layer itself adds the parameters and a forward pass.
    """

    #: Factors and bonds, or nodes and edges; it has ``in_features`` and ``out_features``.
    shape: Any
    bias: Any
    #: What a frozen layer keeps for inference; None in others.
    frozen: Any
    _memory: int | None = None

    # ------------------------------------------------------------ hooks of the framework

    @classmethod
    @abstractmethod
    def _new(cls, shape: Any, bias: bool, **options: Any) -> Self:
        """A layer of a shape with its parameters made, to be overwritten by `assign`."""

    @staticmethod
    @abstractmethod
    def _to_numpy(array: Any) -> NDArray[Any]:
        """Any array of the framework, parameters included, as numpy.

        What is none, as `numpy.asarray` does.
        """

    @abstractmethod
    def _write(self, parameter: Any, values: NDArray[Any]) -> None:
        """Overwrite a parameter, keeping its dtype and device."""

    @abstractmethod
    def _planning(self) -> tuple[str, PlanningContext]:
        """The dtype that the layer computes in, and what plans for its device are chosen by."""

    @classmethod
    @abstractmethod
    def _dense_weights(cls, dense: Any) -> DenseWeights:
        """What a dense layer of the framework holds."""

    @abstractmethod
    def _make_dense(self, matrix: Array, bias: Array | None) -> Any:
        """A dense layer of the framework, with the dtype and device of this layer."""

    def _adopt(self, dense: Any) -> None:
        """Take over the state of the dense layer that this layer replaces."""

    # ------------------------------------------------------------ hooks of the kind of operator

    @property
    @abstractmethod
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the parameters that make the operator, in order."""

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """Names of those that are not trained."""
        return ()

    @property
    @abstractmethod
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Their shapes."""

    @property
    @abstractmethod
    def dense_plan(self) -> BasePlan:
        """The plan that rebuilds the dense matrix."""

    @abstractmethod
    def initial_values(self, rng: np.random.Generator) -> tuple[Array, ...]:
        """Starting values of the parameters, drawn by ``self.initializer``."""

    @abstractmethod
    def to_mpo(self) -> MPO:
        """The operator as a chain, float64 numpy."""

    @abstractmethod
    def to_nodes(self) -> tuple[Any, ...]:
        """TensorNetwork nodes, float64 numpy, joined and named as the layer's parameters."""

    @abstractmethod
    def to_matrix(self) -> Array:
        """``W``, ``(in_features, out_features)``, float64 numpy."""

    @abstractmethod
    def _checked(self, operator: Any) -> Sequence[Array]:
        """The numbers of an operator that fits this layer."""

    @classmethod
    def _fitting(
        cls, inputs: Any, outputs: Any, bond: Any, sites: int | None, options: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Factors for the operator of a dense layer, and the other arguments of `from_matrix`."""
        return choose_sizes(inputs, outputs, bond, sites, (0, 0)).shape, options

    def _trimmed(self, matrix: Any) -> Any:
        """The matrix of the layer, from that of its operator."""
        return matrix

    @property
    def _planned_shape(self) -> Any:
        """The shape that plans are made for.

        The layer's, unless it does more than a product with a matrix.
        """
        return self.shape

    # ------------------------------------------------------------ what all layers offer

    @property
    def tensors(self) -> tuple[Any, ...]:
        """The parameters that make the operator, in order."""
        return tuple(getattr(self, name) for name in self.parameter_names)

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return int(self.shape.in_features)

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return int(self.shape.out_features)

    @classmethod
    @abstractmethod
    def from_mpo(cls, mpo: MPO, bias: Any = None, **options: Any) -> Self:
        """The layer of an operator and a bias."""

    @classmethod
    def from_matrix(
        cls,
        matrix: Any,
        input_dims: Sequence[int],
        output_dims: Sequence[int],
        *,
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
        bias: Any = None,
        inputs: Any = None,
        covariance: Any = None,
        **options: Any,
    ) -> Self:
        """The layer nearest to ``x @ matrix + bias``; see `mponet.from_matrix`.

        With ``inputs`` or ``covariance`` the outputs on these inputs are what is near, by
        `mponet.operators.fit.fit_matrix`, and ``relative_error`` is theirs.

        Args:
            matrix: ``(in_features, out_features)``.
            input_dims: factors of the number of inputs.
            output_dims: factors of the number of outputs.
            max_bond: largest bond, one for all or one for each inner bond; None for no limit.
            relative_error: largest Frobenius error, relative to the norm of the matrix.
            bias: ``(out_features,)``; None for a layer without.
            inputs: ``(..., in_features)``, examples of what the layer is called with; a bias then
                takes up the mean error.
            covariance: ``sum x^T x`` over inputs, ``(in_features, in_features)``, or its diagonal;
                instead of them.
            **options: further arguments of the layer, such as its dtype.

        Raises:
            ShapeError: factors do not multiply to the sizes, or the bias has another shape.
        """
        numbers = cls._to_numpy(matrix)
        offset = None if bias is None else cls._to_numpy(bias)
        seen = cls._statistics(inputs, covariance, numbers.shape[0], has_bias=bias is not None)
        limits: dict[str, Any] = {"max_bond": max_bond, "relative_error": relative_error}
        return cls.from_mpo(*cls._nearest(numbers, offset, input_dims, output_dims, seen, limits), **options)

    @classmethod
    def _nearest(
        cls,
        matrix: NDArray[Any],
        bias: NDArray[Any] | None,
        input_dims: Sequence[int],
        output_dims: Sequence[int],
        seen: InputStatistics | None,
        limits: dict[str, Any],
    ) -> tuple[MPO, NDArray[Any] | None]:
        """The operator nearest to a matrix, and the bias that belongs to it."""
        if seen is None:
            return from_matrix(matrix, input_dims, output_dims, **limits).mpo, bias
        found = fit_matrix(matrix, input_dims, output_dims, seen.metric, **limits).mpo
        return found, None if bias is None else seen.corrected(bias, matrix - to_matrix(found))

    @classmethod
    def from_dense(
        cls,
        dense: Any,
        *,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        sites: int | None = None,
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
        inputs: Any = None,
        covariance: Any = None,
        **options: Any,
    ) -> Self:
        """The layer nearest to a trained dense layer, on its device and in its dtype.

        With ``inputs`` or ``covariance`` it is as near on these inputs as ``compress`` makes it.

        Args:
            dense: the framework's own layer.
            input_dims: factors of the number of inputs; None chooses.
            output_dims: factors of the number of outputs; None chooses.
            sites: number of factors where they are chosen; None chooses.
            max_bond: largest bond, one for all or one for each inner bond; None for no limit.
            relative_error: largest Frobenius error, relative to the norm of the matrix; with inputs
                or their covariance that of the outputs.
            inputs: as in `from_matrix`.
            covariance: as in `from_matrix`.
            **options: further arguments of the layer; they override what the dense layer says.

        Raises:
            ShapeError: factors do not multiply to the sizes, or the dense layer has no weights yet.
        """
        weights = cls._dense_weights(dense)
        rows, columns = weights.matrix.shape
        factors, rest = cls._fitting(input_dims or rows, output_dims or columns, max_bond or 1, sites, options)
        with weights.place:
            layer = cls.from_matrix(
                weights.matrix,
                factors.input_dims,
                factors.output_dims,
                max_bond=max_bond,
                relative_error=relative_error,
                bias=weights.bias,
                inputs=inputs,
                covariance=covariance,
                **{**weights.options, **rest},
            )
        layer._adopt(dense)
        return layer

    @classmethod
    def _statistics(cls, inputs: Any, covariance: Any, features: int, *, has_bias: bool) -> InputStatistics | None:
        """What is known of the inputs, from arrays of the framework; None for nothing."""
        first, second = (None if value is None else cls._to_numpy(value) for value in (inputs, covariance))
        return InputStatistics.of(first, second, features, has_bias=has_bias)

    def to_dense(self) -> Any:
        """The framework's dense layer with the same weight, bias, device and dtype."""
        bias = None if self.bias is None else np.asarray(self._to_numpy(self.bias), np.float64)
        return self._make_dense(self.to_matrix(), bias)

    def assign(self, operator: Any, bias: Any = None) -> None:
        """Overwrite the operator, and the bias if one is given.

        If anything does not fit, nothing changes.

        Args:
            operator: an `mponet.MPO`, or the tensors in the order of the parameters.
            bias: ``(out_features,)``; None leaves it as it is.

        Raises:
            ShapeError: the operator or the bias has another shape, or there is no bias to
                overwrite.
            InputError: the layer is frozen.
        """
        if self.frozen is not None:
            raise InputError("the layer is frozen; expected one that is not; unfreeze the model first")
        numbers = self._checked(operator)
        wanted = self.bias is not None
        offset = None if bias is None else check_bias(self._to_numpy(bias), self.out_features, wanted=wanted)
        for parameter, values in zip(self.tensors, numbers, strict=True):
            self._write(parameter, values)
        if offset is not None:
            self._write(self.bias, offset)

    def plans(self, batch: int | None) -> PlanSet:
        """The plans in use for a batch of so many rows.

        None while tracing, where the batch may vary.
        """
        return plans_for(self._planned_shape, batch, *self._planning(), self.memory)

    @property
    def memory(self) -> int | None:
        """Bytes that a pass may take beside inputs, outputs and their gradients.

        None for what ``MPONET_MEMORY`` says, else for a limit that suits the size of the layer.
        Setting it makes new plans: with more memory a training step saves its states where that is
        faster, with less it computes them again.  Functions that were compiled before keep theirs.

        Raises:
            PlanError: it is set to a value that is not a whole number of bytes.
        """
        return self._memory

    @memory.setter
    def memory(self, memory: int | None) -> None:
        self._memory = checked_memory(memory)
        self._plan_again()

    def _plan_again(self) -> None:
        """Drop plans that the layer holds."""

    def explain(self, batch: int | None = DEFAULT_BATCH) -> str:
        """The products of a training step on ``batch`` rows, and what else was considered."""
        plans = self.plans(batch)
        return f"{plans.training.explain(plans.rows)}\n{plans.explain('training')}"

    # ------------------------------------------------------------ the repr

    def _description(self, bias: str = "bias") -> str:
        """Sizes, shape, counts and the plan in use, for a repr."""
        return (
            f"{self.in_features}, {self.out_features}, {self.shape}{self._details()}, {bias}={self.bias is not None}, "
            f"weights={self._weights_kept()}{self._budget()}, plan={self._plan_in_use()!r}"
        )

    def _details(self) -> str:
        """What else there is to say of the operator."""
        return ""

    def _budget(self) -> str:
        """The memory that the layer was given."""
        return "" if self.memory is None else f", memory={self.memory}"

    def _weights_kept(self) -> str:
        """``15104 of 200704``."""
        return f"{self.shape.parameters} of {self.shape.dense_parameters}"

    def _plan_in_use(self) -> str:
        """The plan of a training step at the default batch.

        It is for the layer's framework, dtype and device.
        """
        if mode() == "measure":  # a repr must not time candidates
            return "measured at the first call"
        return f"{self.plans(DEFAULT_BATCH).training} (batch {DEFAULT_BATCH})"

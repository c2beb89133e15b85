"""Times of one layer in one framework.

Implementations are checked against the matrix, then timed interleaved.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np

from mponet.backend import load, package_of
from mponet.bench.implementation import DENSE, OURS, Implementation, Numbers, Passes
from mponet.bench.rounds import PATIENCE, ROUNDS, interleave
from mponet.bench.rows import Row
from mponet.bench.statistics import Summary
from mponet.errors import BackendError, InputError
from mponet.operators.initialize import exact_variance
from mponet.operators.mpo import MPO, to_matrix
from mponet.operators.nodes import reference

PASSES = ("forward", "step")
#: Largest error of an output over the largest output: float32 sums of a few thousand products.
CLOSE = 1e-4
#: Rows of the batch that are checked where the matrix is too large to form.
FEW = 2


class Bench(Protocol):
    """The module ``bench`` of an adapter."""

    #: Makes `Passes` of a layer and a batch.
    Passes: Any

    def implementations(self) -> tuple[Implementation, ...]:
        """All implementations of a layer in this framework."""

    def settings(self) -> dict[str, Any]:
        """Number of threads and device, for the report."""

    def step_memory(self, passes: Any) -> int:
        """Bytes that a step uses at its peak, in addition to the parameters and the inputs."""

    def compiled(self, native: Any) -> Any:
        """A network whose training steps are compiled; None where they always are."""

    def frozen(self, native: Any) -> Any:
        """A network after ``freeze``, in inference mode."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An implementation with its layer.

    Attributes:
        implementation: the implementation.
        native: its layer.
        passes: the passes to time.
        error: relative error of its outputs; None if it computes another map.
    """

    implementation: Implementation
    native: Any
    passes: Passes
    error: float | None


def bench_of(backend: str) -> Bench:
    """The module that times a backend.

    Raises:
        BackendError: the backend is not installed, or has no such module.
    """
    load(backend)
    name = f"{package_of(backend)}.bench"
    try:
        return cast(Bench, import_module(name))
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise BackendError(
            f"backend {backend!r} has no module {name}; expected one that times it; choose torch, jax or tensorflow"
        ) from None


def select(implementations: Iterable[Implementation], row: Row, *, peers: bool) -> list[Implementation]:
    """All implementations, or ours and the dense layer.

    No dense layer for rows that do not compare with it.
    """
    return [
        candidate
        for candidate in implementations
        if (peers or candidate.kind in (OURS, DENSE)) and (row.compared or candidate.kind != DENSE)
    ]


def problem(row: Row, seed: int = 0) -> tuple[MPO, Numbers, Numbers, Numbers]:
    """An operator, a bias, a batch of inputs and a gradient of outputs, all of order one."""
    rng = np.random.default_rng(seed)
    mpo = exact_variance(row.shape, rng)
    bias = rng.normal(size=row.shape.out_features)
    inputs, gradients = (
        rng.normal(size=(row.batch, width)).astype(np.float32)
        for width in (row.shape.in_features, row.shape.out_features)
    )
    return mpo, bias, inputs, gradients


def expected(mpo: MPO, bias: Numbers, inputs: Numbers, *, compared: bool) -> Numbers:
    """``inputs @ W + b`` in float64, by the matrix, or for the first rows by the node graph."""
    if compared:
        return np.asarray(inputs.astype(np.float64) @ to_matrix(mpo) + bias)
    return np.asarray(reference(mpo, inputs[:FEW]) + bias)


def prepare(bench: Bench, implementations: Sequence[Implementation], row: Row) -> tuple[list[Prepared], dict[str, str]]:
    """Layers that hold the same operator, with their outputs checked.

    Returns:
        The implementations that take part, and for the others the reason by name.

    Raises:
        InputError: our layer or the dense layer computes something else.
    """
    mpo, bias, inputs, gradients = problem(row)
    reference_outputs = expected(mpo, bias, inputs, compared=row.compared)
    prepared, unsupported = [], {}
    for candidate in implementations:
        try:
            if candidate.absent:
                raise InputError(f"not installed: {', '.join(candidate.absent)}")
            if candidate.rebuilds and not row.compared:
                raise InputError(f"would form a matrix of {4e-9 * row.shape.dense_parameters:.1f} GB")
            native = candidate.make(mpo, bias)
            passes = bench.Passes(native, inputs, gradients)
            outputs = passes.outputs()[: len(reference_outputs)]
            error = None if candidate.kind == "other" else _error(outputs, reference_outputs)
            if error is not None and not error <= CLOSE:
                raise InputError(f"computes something else: error {error:.1e}; expected at most {CLOSE:.0e}")
            passes.step()
        except Exception as reason:  # peers fail in their own ways, and that they fail is a result
            if candidate.kind in (OURS, DENSE):
                raise
            unsupported[candidate.name] = _short(reason)
        else:
            prepared.append(Prepared(candidate, native, passes, error))
    return prepared, unsupported


def measure(
    backend: str, row: Row, *, rounds: int = ROUNDS, patience: float = PATIENCE, peers: bool = True
) -> dict[str, Any]:
    """Times of all implementations of a layer, as data for JSON."""
    bench = bench_of(backend)
    implementations = select(bench.implementations(), row, peers=peers)
    prepared, unsupported = prepare(bench, implementations, row)
    times = {
        which: interleave(
            {layer.implementation.name: getattr(layer.passes, which) for layer in prepared},
            rounds,
            always=(DENSE, OURS),
            patience=patience,
        )
        for which in PASSES
    }
    errors = {layer.implementation.name: layer.error for layer in prepared}
    entries = []
    for candidate in implementations:
        name = candidate.name
        entry: dict[str, Any] = {"name": name, "kind": candidate.kind, "versions": candidate.versions}
        if name in unsupported:
            entry["cannot"] = unsupported[name]
        else:
            entry["error"] = errors[name]
            entry |= {which: Summary.of(times[which][name]).as_dict() for which in PASSES}
        entries.append(entry)
    return {
        "backend": backend,
        **described(row),
        **bench.settings(),
        "versions": load(backend).versions(),
        "rounds": rounds,
        "plans": plans(prepared, row.batch),
        "contenders": entries,
    }


def described(row: Row) -> dict[str, Any]:
    """The fields of a row, for JSON."""
    shape = row.shape
    return {
        "row": row.name,
        "input_dims": list(shape.input_dims),
        "output_dims": list(shape.output_dims),
        "bond_dims": list(shape.bond_dims),
        "notation": str(shape),
        "parameters": shape.parameters,
        "batch": row.batch,
        "targets": {which: row.target(which) for which in PASSES},
    }


def plans(prepared: Sequence[Prepared], batch: int) -> dict[str, Any]:
    """The plans of our layer, and the multiplications of its forward pass."""
    layer = next(layer.native for layer in prepared if layer.implementation.name == OURS)
    chosen = layer.plans(batch)
    return {
        "forward": str(chosen.forward),
        "training": str(chosen.training),
        "multiplications": chosen.forward.multiplications(batch),
    }


def _error(outputs: Numbers, reference_outputs: Numbers) -> float:
    """Largest absolute error over the largest absolute value."""
    return float(np.abs(outputs - reference_outputs).max() / np.abs(reference_outputs).max())


def _short(reason: Exception) -> str:
    """The first line of an error message."""
    line = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
    return " ".join(line.split())[:160]

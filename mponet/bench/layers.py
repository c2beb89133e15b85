"""One layer in one framework: every contender checked against the matrix, then all of them timed together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np

from mponet.backend import load, package_of
from mponet.bench.contender import DENSE, OURS, Contender, Numbers, Passes
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
    """What the module ``bench`` of an adapter offers."""

    #: A layer and a batch to what can be timed.
    Passes: Any

    def contenders(self) -> tuple[Contender, ...]:
        """Everything that takes part."""

    def settings(self) -> dict[str, Any]:
        """Threads and device, for the report."""

    def step_memory(self, passes: Any) -> int:
        """Bytes that a step has in use at its peak, beyond the parameters and the inputs."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A contender with its layer.

    Attributes:
        contender: who.
        native: its layer.
        passes: what to time.
        error: of its output, relative; None where it computes another map.
    """

    contender: Contender
    native: Any
    passes: Passes
    error: float | None


def bench_of(backend: str) -> Bench:
    """The module that times a backend.

    Raises:
        BackendError: it is not installed, or has none.
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


def chosen(contenders: Iterable[Contender], row: Row, *, peers: bool) -> list[Contender]:
    """Those that are to take part: all, or ours and the dense layer; no dense layer where it would be too large."""
    return [one for one in contenders if (peers or one.kind in (OURS, DENSE)) and (row.compared or one.kind != DENSE)]


def problem(row: Row, seed: int = 0) -> tuple[MPO, Numbers, Numbers, Numbers]:
    """An operator, its bias, a batch of inputs and the gradient of its outputs, all of order one."""
    rng = np.random.default_rng(seed)
    mpo = exact_variance(row.shape, rng)
    bias = rng.normal(size=row.shape.out_features)
    inputs, slopes = (
        rng.normal(size=(row.batch, width)).astype(np.float32)
        for width in (row.shape.in_features, row.shape.out_features)
    )
    return mpo, bias, inputs, slopes


def expected(mpo: MPO, bias: Numbers, inputs: Numbers, *, compared: bool) -> Numbers:
    """``inputs @ W + b``, float64: through the matrix, or of the first rows through the node graph."""
    if compared:
        return np.asarray(inputs.astype(np.float64) @ to_matrix(mpo) + bias)
    return np.asarray(reference(mpo, inputs[:FEW]) + bias)


def prepare(bench: Bench, contenders: Sequence[Contender], row: Row) -> tuple[list[Prepared], dict[str, str]]:
    """Layers that hold the same operator, their outputs checked; and why others cannot take part.

    Raises:
        InputError: our layer or the dense one computes something else.
    """
    mpo, bias, inputs, slopes = problem(row)
    right = expected(mpo, bias, inputs, compared=row.compared)
    ready, cannot = [], {}
    for one in contenders:
        try:
            if one.absent:
                raise InputError(f"not installed: {', '.join(one.absent)}")
            if one.rebuilds and not row.compared:
                raise InputError(f"would form a matrix of {4e-9 * row.shape.dense_parameters:.1f} GB")
            native = one.make(mpo, bias)
            passes = bench.Passes(native, inputs, slopes)
            error = None if one.kind == "other" else _error(passes.outputs()[: len(right)], right)
            if error is not None and not error <= CLOSE:
                raise InputError(f"computes something else: error {error:.1e}; expected at most {CLOSE:.0e}")
            passes.step()
        except Exception as reason:  # peers fail in ways of their own; that they do is a result
            if one.kind in (OURS, DENSE):
                raise
            cannot[one.name] = _short(reason)
        else:
            ready.append(Prepared(one, native, passes, error))
    return ready, cannot


def measure(
    backend: str, row: Row, *, rounds: int = ROUNDS, patience: float = PATIENCE, peers: bool = True
) -> dict[str, Any]:
    """Times of all contenders for a layer, as data for JSON."""
    bench = bench_of(backend)
    contenders = chosen(bench.contenders(), row, peers=peers)
    ready, cannot = prepare(bench, contenders, row)
    times = {
        which: interleave(
            {one.contender.name: getattr(one.passes, which) for one in ready},
            rounds,
            always=(DENSE, OURS),
            patience=patience,
        )
        for which in PASSES
    }
    errors = {one.contender.name: one.error for one in ready}
    entries = []
    for one in contenders:
        entry: dict[str, Any] = {"name": one.name, "kind": one.kind, "versions": one.versions}
        if one.name in cannot:
            entry["cannot"] = cannot[one.name]
        else:
            entry["error"] = errors[one.name]
            entry |= {which: Summary.of(times[which][one.name]).as_dict() for which in PASSES}
        entries.append(entry)
    return {
        "backend": backend,
        **described(row),
        **bench.settings(),
        "versions": load(backend).versions(),
        "rounds": rounds,
        "plans": plans(ready, row.batch),
        "contenders": entries,
    }


def described(row: Row) -> dict[str, Any]:
    """The row itself, for JSON."""
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


def plans(ready: Sequence[Prepared], batch: int) -> dict[str, Any]:
    """The plans of our layer, and the multiplications of its forward pass."""
    found = next(one.native for one in ready if one.contender.name == OURS).plans(batch)
    return {
        "forward": str(found.forward),
        "training": str(found.training),
        "multiplications": found.forward.multiplications(batch),
    }


def _error(outputs: Numbers, right: Numbers) -> float:
    """Largest error over the largest value."""
    return float(np.abs(outputs - right).max() / np.abs(right).max())


def _short(reason: Exception) -> str:
    """The first line of an error, without the remedy that is meant for somebody else."""
    line = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
    return " ".join(line.split())[:160]

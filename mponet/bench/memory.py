"""Peak memory of a training step of a layer."""

from typing import Any

from mponet.backend import load
from mponet.bench.implementation import DENSE, OURS, Implementation
from mponet.bench.layers import bench_of, described, prepare, select
from mponet.bench.rows import MEMORY, Row
from mponet.errors import InputError

ITEM = 4  # bytes of a float32


def names(backend: str, row: Row, *, peers: bool) -> list[str]:
    """Names of the implementations that take part."""
    return [candidate.name for candidate in select(bench_of(backend).implementations(), row, peers=peers)]


def measure(backend: str, row: Row, name: str) -> dict[str, Any]:
    """Bytes of a step of one implementation, as data for JSON; call it in a process of its own.

    Raises:
        InputError: the implementation is unknown.
    """
    bench = bench_of(backend)
    known = {candidate.name: candidate for candidate in bench.implementations()}
    if name not in known:
        raise InputError(f"implementation is {name!r}; expected one of {', '.join(known)}")
    implementation = known[name]
    prepared, unsupported = prepare(bench, [implementation], row)
    entry = {"name": name, "kind": implementation.kind, "versions": implementation.versions}
    if name in unsupported:
        return {**entry, "cannot": unsupported[name]}
    step = bench.step_memory(prepared[0].passes)
    return {**entry, "step": step, "parameters": ITEM * _parameters(implementation, row)}


def combine(backend: str, row: Row, entries: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """The entries of all implementations, each with its total, and the limit of ours."""
    totals = [{**entry, "total": total(row, entry)} if "step" in entry else entry for entry in entries]
    return {"backend": backend, **described(row), **settings, "limit": limit(row), "contenders": totals}


def environment(backend: str) -> dict[str, Any]:
    """Versions, number of threads and device of a framework."""
    return {"versions": load(backend).versions(), **bench_of(backend).settings()}


def total(row: Row, entry: dict[str, Any]) -> int:
    """Bytes in use at the peak.

    Inputs, gradient of the outputs, parameters, and what the step adds.
    """
    arrays = ITEM * row.batch * (row.shape.in_features + row.shape.out_features)
    return int(arrays + entry["parameters"] + entry["step"])


def limit(row: Row) -> int:
    """The most bytes that our layer may use.

    `MEMORY` times the activations of a dense layer (inputs and outputs with their gradients) and
    our parameters with their gradients.
    """
    shape = row.shape
    activations = 2 * row.batch * (shape.in_features + shape.out_features)
    parameters = 2 * (shape.parameters + shape.out_features)
    return int(MEMORY * ITEM * (activations + parameters))


def _parameters(implementation: Implementation, row: Row) -> int:
    """Number of parameters of an implementation, biases included."""
    shape = row.shape
    weights = shape.dense_parameters if implementation.name == DENSE else shape.parameters
    return weights + shape.out_features


def mark(row: dict[str, Any]) -> str:
    """Whether our layer keeps to the limit."""
    ours = next(entry for entry in row["contenders"] if entry["name"] == OURS)
    return "✓" if ours["total"] <= row["limit"] else "✗"

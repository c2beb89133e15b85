"""How much memory a training step of a layer has in use at its peak."""

from typing import Any

from mponet.backend import load
from mponet.bench.contender import DENSE, OURS, Contender
from mponet.bench.layers import bench_of, chosen, described, prepare
from mponet.bench.rows import MEMORY, Row
from mponet.errors import InputError

ITEM = 4  # bytes of a float32


def names(backend: str, row: Row, *, peers: bool) -> list[str]:
    """Who takes part."""
    return [one.name for one in chosen(bench_of(backend).contenders(), row, peers=peers)]


def measure(backend: str, row: Row, name: str) -> dict[str, Any]:
    """Bytes of a step of one contender, as data for JSON; to be measured in a process of its own.

    Raises:
        InputError: the contender is unknown.
    """
    bench = bench_of(backend)
    known = {one.name: one for one in bench.contenders()}
    if name not in known:
        raise InputError(f"contender is {name!r}; expected one of {', '.join(known)}")
    one = known[name]
    ready, cannot = prepare(bench, [one], row)
    found: dict[str, Any] = {"name": name, "kind": one.kind, "versions": one.versions}
    if name in cannot:
        return {**found, "cannot": cannot[name]}
    return {**found, "step": bench.step_memory(ready[0].passes), "parameters": ITEM * _parameters(one, row)}


def together(backend: str, row: Row, measured: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """What the processes found, with the whole of each, and the target of ours."""
    contenders = [{**one, "total": total(row, one)} if "step" in one else one for one in measured]
    return {"backend": backend, **described(row), **settings, "limit": limit(row), "contenders": contenders}


def about(backend: str) -> dict[str, Any]:
    """Versions, threads and device of a framework."""
    return {"versions": load(backend).versions(), **bench_of(backend).settings()}


def total(row: Row, found: dict[str, Any]) -> int:
    """All bytes in use at the peak: inputs, the gradient of the outputs, parameters, and what the step adds."""
    given = ITEM * row.batch * (row.shape.in_features + row.shape.out_features)
    return int(given + found["parameters"] + found["step"])


def limit(row: Row) -> int:
    """The most that ours may have in use.

    `MEMORY` times what a dense layer has in activations, inputs and outputs with the gradient of
    each, and our own parameters with theirs.
    """
    shape = row.shape
    activations = 2 * row.batch * (shape.in_features + shape.out_features)
    parameters = 2 * (shape.parameters + shape.out_features)
    return int(MEMORY * ITEM * (activations + parameters))


def _parameters(one: Contender, row: Row) -> int:
    """How many a contender has, biases included."""
    shape = row.shape
    if one.name == DENSE:
        return shape.dense_parameters + shape.out_features
    return shape.parameters + shape.out_features


def mark(row: dict[str, Any]) -> str:
    """Whether ours keeps to the limit."""
    ours = next(one for one in row["contenders"] if one["name"] == OURS)
    return "✓" if ours["total"] <= row["limit"] else "✗"

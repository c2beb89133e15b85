"""Inference: frozen layers against dense ones and low rank, from one row to many.

Everything takes turns in one process, as in `mponet.bench.layers`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol, cast

import numpy as np

from mponet.backend import load, package_of
from mponet.bench.implementation import DENSE, OURS, Numbers
from mponet.bench.layers import CLOSE, bench_of
from mponet.bench.rounds import interleave
from mponet.bench.statistics import Summary
from mponet.errors import InputError
from mponet.operators.shape import MPOShape

#: Our layer after ``freeze``.
FROZEN = "frozen"
BATCHES = (1, 8, 64, 512)
#: The most that a frozen layer may take in a compiled model, as a multiple of the dense layer.
LIMIT = 1.05
#: Sides of the maps of a convolution, and its bond.
MAP, CONV_BOND = 16, 32
#: Seconds for all samples of one call.
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class InferenceRow:
    """A layer at several sizes of batch.

    Attributes:
        name: name on the command line.
        kind: ``linear``, ``convolution`` (3 x 3, SAME, maps of `MAP` x `MAP`) or ``embedding``.
        shape: factors and bonds; of a convolution only the sizes count.
        batches: rows, maps or tokens.
    """

    name: str
    kind: Literal["linear", "convolution", "embedding"]
    shape: MPOShape
    batches: tuple[int, ...] = BATCHES

    @property
    def bond(self) -> int:
        """The largest bond; of a convolution, which has one factor, the rank of its kernel."""
        return max(self.shape.bond_dims) if self.shape.sites > 1 else CONV_BOND

    def inputs(self, batch: int) -> Numbers:
        """Inputs of order one, or tokens."""
        rng = np.random.default_rng(batch)
        if self.kind == "embedding":
            return rng.integers(0, self.shape.in_features, batch)
        maps = (MAP, MAP) if self.kind == "convolution" else ()
        return rng.normal(size=(batch, *maps, self.shape.in_features)).astype(np.float32)


class InferenceBench(Protocol):
    """The module ``bench.inference`` of an adapter."""

    #: How models are run in this framework.
    MODES: tuple[str, ...]

    def layers(self, row: InferenceRow) -> Mapping[str, Any]:
        """The implementations by name, with the same operator, and what low rank costs."""

    def call(self, native: Any, inputs: Numbers, mode: str) -> Callable[[], Any]:
        """A forward pass, ready to run; it returns numbers when they are computed."""

    def outputs(self, result: Any) -> Numbers:
        """The result of a call as a numpy array."""


def _square(factors: tuple[int, ...], bond: int) -> MPOShape:
    return MPOShape.from_factors(factors, factors, bond)


ROWS = (
    InferenceRow("784-256-d16", "linear", MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 16)),
    InferenceRow("1024-d8", "linear", _square((32, 32), 8)),
    InferenceRow("4096-d4", "linear", _square((64, 64), 4)),
    InferenceRow("4096-d16", "linear", _square((64, 64), 16)),
    InferenceRow("4096-11008-r1024", "linear", MPOShape.from_factors((4096, 1), (1, 11008), 1024)),
    InferenceRow("head-50k-d16", "linear", MPOShape.from_factors((24, 24), (224, 224), 16)),
    InferenceRow("conv-256-d32", "convolution", MPOShape.from_factors((256,), (256,), 1), (1, 8, 64)),
    InferenceRow("embedding-30k-d16", "embedding", MPOShape.from_factors((175, 175), (16, 24), 16)),
)


def measure(backend: str, name: str, *, rounds: int) -> dict[str, Any]:
    """Times of a row in every mode and at every batch, as data for JSON.

    Raises:
        InputError: an implementation computes something else.
    """
    row = next(row for row in ROWS if row.name == name)
    bench = cast(InferenceBench, import_module(f"{package_of(backend)}.bench.inference"))
    layers = dict(bench.layers(row))
    kept = layers.pop("kept")
    cells = []
    for mode in bench.MODES:
        for batch in row.batches:
            inputs = row.inputs(batch)
            # every layer is compiled for every batch; of a second mode the goal's two are enough
            wanted = layers if mode == bench.MODES[0] else (DENSE, FROZEN)
            calls = {layer: bench.call(layers[layer], inputs, mode) for layer in wanted}
            expected = bench.outputs(calls[DENSE]())
            for ours in (one for one in (OURS, FROZEN) if one in calls):
                error = float(np.abs(bench.outputs(calls[ours]()) - expected).max() / np.abs(expected).max())
                if not error <= CLOSE:
                    raise InputError(f"{ours} of {row.name} has an error of {error:.1e}; expected at most {CLOSE:.0e}")
            times = interleave(calls, rounds, always=tuple(calls), patience=PATIENCE)
            cells.append(
                {
                    "mode": mode,
                    "batch": batch,
                    "times": {layer: Summary.of(samples).as_dict() for layer, samples in times.items()},
                }
            )
    return {
        "backend": backend,
        "row": name,
        "notation": str(row.shape),
        **bench_of(backend).settings(),
        "versions": load(backend).versions(),
        "rounds": rounds,
        "kept": kept,
        "cells": cells,
    }


def ratio(cell: Mapping[str, Any], name: str) -> float | None:
    """Median time over that of the dense layer; None for what was not measured."""
    times = cell["times"]
    return float(times[name]["median"] / times[DENSE]["median"]) if name in times else None

"""Smaller operators in the middle of a training: cores and the optimiser's moments."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mponet.compress.healing.adapter import FIRST, PARAMETERS, SECOND, HealAdapter
from mponet.operators.gauge import BondMaps, bond_maps
from mponet.operators.shape import MPOShape

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Truncation:
    """What happened to the operators at one step.

    Attributes:
        step: optimiser steps done before.
        weights_before: weights of all operators that are chains.
        weights: the same afterwards.
        error: largest relative Frobenius error of an operator.
    """

    step: int
    weights_before: int
    weights: int
    error: float


def retruncate(adapter: HealAdapter, target: float, step: int) -> Truncation:
    """Cut the bonds of all operators that are chains, and carry the moments over.

    First moments change as gradients do, second moments as mean squares of uncorrelated gradients.

    Args:
        adapter: of the student.
        target: the largest bond, or as a float the share of the weights that each operator keeps.
        step: optimiser steps done.
    """
    state = adapter.state()
    before = after = 0
    error = 0.0
    for name, operator in adapter.operators().items():
        if not operator.is_chain:
            continue
        cores = [np.asarray(state[PARAMETERS + core], np.float64) for core in operator.cores]
        maps = truncation_maps(cores, target)
        kept = maps.cores(cores)
        before, after = before + sum(c.size for c in cores), after + sum(c.size for c in kept)
        error = max(error, maps.relative_error)
        state |= _named(PARAMETERS, operator.cores, kept, state)
        for slot, carry in ((FIRST, maps.gradients), (SECOND, maps.squares)):
            # a core that does not move has no moments; zeros take its place
            moments = [state.get(slot + core, np.zeros(c.shape)) for core, c in zip(operator.cores, cores, strict=True)]
            state |= _named(slot, operator.cores, carry(moments), state)
        adapter.resize(name, kept)
    adapter.restore(state, step)
    return Truncation(step, before, after, error)


def truncation_maps(cores: Sequence[Array], target: float) -> BondMaps:
    """The maps that cut a chain to a largest bond, or to a share of its weights.

    For a share all bonds drop the singular values below one threshold, the lowest that meets it.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> cores = [generator.normal(size=(1, 8, 8, 10)), generator.normal(size=(10, 8, 8, 1))]
        >>> truncation_maps(cores, 0.5).bonds, truncation_maps(cores, 3).bonds
        ((5,), (3,))
    """
    if isinstance(target, int):
        return bond_maps(cores, lambda spectra: [target] * len(spectra))
    dims = tuple(core.shape[1] for core in cores), tuple(core.shape[2] for core in cores)
    allowed = target * sum(core.size for core in cores)

    def bonds(spectra: list[Array], threshold: float) -> list[int]:
        return [max(1, int((values > threshold).sum())) for values in spectra]

    def choose(spectra: list[Array]) -> Sequence[int]:
        levels = np.unique(np.concatenate([[-1.0], *spectra]))
        low, high = 0, len(levels) - 1
        while low < high:
            middle = (low + high) // 2
            fits = MPOShape.from_factors(*dims, bonds(spectra, levels[middle])).parameters <= allowed
            low, high = (low, middle) if fits else (middle + 1, high)
        return bonds(spectra, float(levels[low]))

    return bond_maps(cores, choose)


def _named(
    slot: str, names: Sequence[str], arrays: Sequence[Array], state: dict[str, NDArray[np.floating]]
) -> dict[str, NDArray[np.floating]]:
    """The arrays under the names that the state has, in its dtypes."""
    pairs = zip((slot + name for name in names), arrays, strict=True)
    return {key: array.astype(state[key].dtype) for key, array in pairs if key in state}

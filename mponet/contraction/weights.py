"""Cores to the weights of a plan's steps, and the weights' gradients back to the cores, as its `grouping` says."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from mponet.contraction.merging import CoreProduct
from mponet.contraction.ops import Ops
from mponet.contraction.plan import Plan

A = TypeVar("A")


def chains(plan: Plan, cores: Sequence[A], ops: Ops[A], *, final: bool = True) -> dict[int, A]:
    """The cores and every product of neighbours by its number; without ``final`` only what others are made of."""
    found = dict(enumerate(cores))
    for number, merge in enumerate(plan.grouping.merges, start=len(cores)):
        if final or not merge.final:
            a, b = _facing(merge, found, len(cores), ops)
            product = ops.matmul(a, b, ops.scratch(a, (merge.facing[0][0], merge.facing[1][1])) if merge.axes else None)
            if merge.axes is not None:
                product = ops.transpose(ops.reshape(product, merge.sizes), merge.axes)
            found[number] = ops.reshape(product, merge.shape)
    return found


def weights(plan: Plan, found: Mapping[int, A], ops: Ops[A]) -> list[A]:
    """Each step's weight: ``(inner, rows)`` where nothing is carried along (a suffix of 1), else ``(rows, inner)``."""
    return [
        found[chain] if axes is None else ops.reshape(ops.transpose(found[chain], axes), shape)
        for chain, axes, _, shape in plan.grouping.layouts
    ]


def core_gradients(plan: Plan, found: Mapping[int, A], weight_slopes: Sequence[A], ops: Ops[A]) -> tuple[A, ...]:
    """Gradients of the cores from those of the weights: `chains` and `weights` backwards."""
    shapes = plan.shape.core_shapes
    slopes: dict[int, A] = {}
    for (chain, axes, inverse, _), slope in zip(plan.grouping.layouts, weight_slopes, strict=True):
        if axes is not None:
            ordered = ops.reshape(slope, tuple(shapes[chain][axis] for axis in axes))
            slope = ops.transpose(ordered, inverse)
        slopes[chain] = slope
    return spread(plan, found, slopes, ops)


def spread(plan: Plan, found: Mapping[int, A], slopes: dict[int, A], ops: Ops[A]) -> tuple[A, ...]:
    """Gradients of the cores from those of the groups' chains, by number: `chains` backwards."""
    shapes, sites = plan.shape.core_shapes, plan.shape.sites
    merges = plan.grouping.merges
    for number in range(sites + len(merges) - 1, sites - 1, -1):
        merge = merges[number - sites]
        a, b = _facing(merge, found, sites, ops)
        slope = slopes[number]
        if merge.axes is not None:
            slope = ops.transpose(ops.reshape(slope, merge.ordered), merge.inverse)
        slope = ops.reshape(slope, (merge.facing[0][0], merge.facing[1][1]))
        slopes[merge.left] = ops.matmul(slope, ops.transpose(b, (1, 0)))
        slopes[merge.right] = ops.matmul(ops.transpose(a, (1, 0)), slope)
    return tuple(ops.reshape(slopes[k], shapes[k]) for k in range(sites))


def _facing(merge: CoreProduct, found: Mapping[int, A], sites: int, ops: Ops[A]) -> tuple[A, A]:
    """The two chains as matrices with the bond between them inside; products are made as such, cores are not."""
    left, right = found[merge.left], found[merge.right]
    return (
        ops.reshape(left, merge.facing[0]) if merge.left < sites else left,
        ops.reshape(right, merge.facing[1]) if merge.right < sites else right,
    )

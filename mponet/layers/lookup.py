"""How the rows of an embedding are made.

Slices of the cores, multiplied from one end to the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

from mponet.contraction.ops import ForwardOps
from mponet.layers.embedding import EmbeddingShape

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class LookupPlan:
    """How rows are made from slices of cores.

    From the first core to the last, or from the last to the first.

    Attributes:
        shape: the embedding.
        reverse: whether the last core comes first.

    Example:
        >>> dims = {"input_dims": (1000, 1), "output_dims": (1, 64)}
        >>> low_rank = EmbeddingShape.from_sizes(1000, 64, 8, **dims)
        >>> print(best_lookup(low_rank))
        cores 1 > 2
        >>> best_lookup(low_rank).multiplications, LookupPlan(low_rank, True).multiplications
        (512, 512)
    """

    shape: EmbeddingShape
    reverse: bool = False

    @property
    def multiplications(self) -> int:
        """Multiplications for one token."""
        shapes = self.shape.core_shapes
        total, carried = 0, 1
        for number, (left, _, outputs, right) in enumerate(reversed(shapes) if self.reverse else shapes):
            total += carried * left * outputs * right if number else 0
            carried *= outputs
        return total

    @property
    def moved(self) -> int:
        """Numbers gathered from cores and written between products for one token."""
        shapes = self.shape.core_shapes
        gathered = sum(prod(shapes[k]) // shapes[k][1] for k in self.shape.indexed)
        carried, written = 1, 0
        ordered = tuple(reversed(shapes)) if self.reverse else shapes
        for left, _, outputs, right in ordered:
            carried *= outputs
            written += carried * (left if self.reverse else right)
        return gathered + written

    def __str__(self) -> str:
        order = range(self.shape.sites, 0, -1) if self.reverse else range(1, self.shape.sites + 1)
        return f"cores {' > '.join(map(str, order))}"


def best_lookup(shape: EmbeddingShape) -> LookupPlan:
    """The plan that moves the fewest numbers and, among equals, multiplies least.

    Ties go from the first core on.
    """
    return min((LookupPlan(shape), LookupPlan(shape, True)), key=lambda plan: (plan.moved, plan.multiplications))


def explain_lookup(shape: EmbeddingShape) -> str:
    """Both ways as a table, for one token, and which is taken."""
    chosen = best_lookup(shape)
    lines = [f"{shape}, one token", f"  {'plan':<30}{'multiplications':>17}{'numbers moved':>15}"]
    for plan in (LookupPlan(shape), LookupPlan(shape, True)):
        mark = ">" if plan == chosen else " "
        lines.append(f"{mark} {plan!s:<30}{plan.multiplications:>17}{plan.moved:>15}")
    return "\n".join([*lines, "> moves the fewest numbers"])


def digits(shape: EmbeddingShape, tokens: A) -> dict[int, A]:
    """Index into each core that is indexed, by site from 0, for integer tokens of any framework.

    A token outside the vocabulary gets a first digit outside its core, so that the framework does
    what it does for an index out of range.

    Example:
        >>> shape = EmbeddingShape.from_sizes(10, 4, 2, input_dims=(3, 4))
        >>> [digits(shape, token) for token in (0, 7, 9, 10)]
        [{0: 0, 1: 0}, {0: 1, 1: 3}, {0: 2, 1: 1}, {0: 5, 1: 2}]
    """
    dims, found = shape.mpo.input_dims, {}
    ids: Any = tokens
    for site in shape.indexed:
        stride = prod(dims[site + 1 :])
        if site == shape.indexed[0]:
            found[site] = ids // stride + (ids // shape.num_embeddings) * dims[site]
        else:
            found[site] = (ids // stride) % dims[site]
    return found


def laid_out(plan: LookupPlan, cores: Sequence[A], ops: ForwardOps[A]) -> list[A]:
    """The cores as `lookup` reads them: one row for each index where a core is indexed.

    Args:
        plan: which core comes first.
        cores: ``(D_{k-1}, I_k, J_k, D_k)`` each.
        ops: the framework's operations; autograd may record them.
    """
    shape, parts = plan.shape, []
    for site, core in enumerate(cores):
        left, inputs, outputs, right = shape.core_shapes[site]
        if site in shape.indexed:
            moved = core if left == 1 else ops.transpose(core, (1, 0, 2, 3))  # an axis of length 1 need not move
            parts.append(ops.reshape(moved, (inputs, left * outputs * right)))
        else:
            sizes = (left * outputs, right) if plan.reverse else (left, outputs * right)
            parts.append(ops.reshape(core, sizes))
    return parts


def lookup(
    plan: LookupPlan,
    parts: Sequence[A],
    tokens: A,
    ops: ForwardOps[A],
    gather: Callable[[A, A], A],
    matmul: Callable[[A, A], A],
) -> A:
    """Rows of the table, ``(tokens, features)``.

    Args:
        plan: which core comes first.
        parts: the cores as `laid_out` gives them.
        tokens: integers, one axis.
        ops: the framework's operations; autograd may record them.
        gather: ``(rows, indices)``: those rows of an array with two axes.
        matmul: products of the last two axes, broadcast over the first.
    """
    shape, places = plan.shape, digits(plan.shape, tokens)
    state: A | None = None
    batched, done = False, 1  # whether the state has an axis of tokens; features that are made already
    for site in reversed(range(shape.sites)) if plan.reverse else range(shape.sites):
        left, _, outputs, right = shape.core_shapes[site]
        indexed, part = site in places, parts[site]
        if indexed:
            sizes = (left * outputs, right) if plan.reverse else (left, outputs * right)
            part = ops.reshape(gather(part, places[site]), (-1, *sizes))
        if state is not None and indexed and batched:
            part = matmul(part, state) if plan.reverse else matmul(state, part)
        elif state is not None and plan.reverse:
            part = _shared(part, state, indexed, ops)
        elif state is not None:
            part = _shared(state, part, batched, ops)
        done *= outputs
        batched = batched or indexed
        ends = (left, done) if plan.reverse else (done, right)
        state = ops.reshape(part, (-1, *ends) if batched else ends)
    assert state is not None
    return ops.reshape(state, (-1, shape.out_features))


def _shared(a: A, b: A, batched: bool, ops: ForwardOps[A]) -> A:
    """``a @ b`` where only one of them has an axis of tokens: ``a`` if ``batched``."""
    if not batched:
        return ops.matmul(a, b)
    inner: int = b.shape[0]  # type: ignore[attr-defined]
    return ops.matmul(ops.reshape(a, (-1, inner)), b)

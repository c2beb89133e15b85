"""How a convolution is run: one convolution with the rebuilt kernel, or a chain of smaller ones.

Neighbouring cores are merged into *groups*, and the groups are applied one after the other, each an
end of those left, as in `mponet.contraction.plan`.  A group that holds a spatial axis, among its
rows or its columns, moves its window along that axis; stride, dilation and padding go with it.
Cores must be cut where no spatial axis is split.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, combinations, pairwise
from math import prod
from typing import Literal, TypeVar

from mponet.contraction.ops import ForwardOps
from mponet.errors import PlanError
from mponet.layers.convolution import ConvShape
from mponet.layers.window import Window

A = TypeVar("A")
#: More convolutions than this are never faster than fewer.
MAX_GROUPS = 4


@dataclass(frozen=True, slots=True)
class ConvStep:
    """One convolution.

    The channels of a state are ``(prefix, inner, suffix)``; the step takes ``inner`` of them to
    ``rows`` and carries the others along.

    Attributes:
        group: the group of cores that makes the kernel, from 0.
        side: the end that the group is taken from; ``last`` if it is the only one left.
        axes: spatial axes whose stride, dilation and padding belong to this step.
        window: length along each spatial axis, 1 where it does not reach.
        prefix: channels in front that are carried along.
        inner: channels that are summed over, of each group of the convolution.
        rows: channels that are made, of all groups together.
        suffix: channels at the end that are carried along.
        groups: groups of the convolution in this step.
    """

    group: int
    side: Literal["left", "right", "last"]
    axes: tuple[int, ...]
    window: tuple[int, ...]
    prefix: int
    inner: int
    rows: int
    suffix: int
    groups: int = 1

    @property
    def multiplications(self) -> int:
        """Multiplications for one position of the outputs."""
        return self.prefix * prod(self.window) * self.inner * self.rows * self.suffix

    @property
    def in_channels(self) -> int:
        """Channels of the state before."""
        return self.prefix * self.inner * self.groups * self.suffix

    @property
    def out_channels(self) -> int:
        """Channels of the state after."""
        return self.prefix * self.rows * self.suffix


@dataclass(frozen=True)
class ConvPlan:
    """A way to run a convolution.

    Attributes:
        shape: the convolution.
        groups: number of neighbouring cores in each group.
        reverse: whether the groups are applied from the last to the first.

    Raises:
        PlanError: the groups do not cover the cores, split a spatial axis, or split the outputs of
            a grouped convolution.

    Example:
        >>> plan = ConvPlan(ConvShape.from_sizes(16, 32, (3, 3), bond=8), (1, 1))
        >>> print(plan)
        1x3 to 8 channels, 3x1 to 32
    """

    shape: ConvShape
    groups: tuple[int, ...]
    reverse: bool = False

    def __post_init__(self) -> None:
        sites = self.shape.sites
        if any(type(size) is not int or size < 1 for size in self.groups) or sum(self.groups) != sites:
            raise PlanError(f"groups are {self.groups}; expected positive sizes that add up to {sites} cores")
        if not set(accumulate(self.groups[:-1])) <= set(cuts(self.shape)):
            legal = " or ".join(map(str, cuts(self.shape))) or "no core"
            raise PlanError(f"groups are {self.groups}; expected cuts after {legal}, where no spatial axis is split")
        if self.shape.groups > 1 and any(self._columns(group) > 1 for group in self.order[:-1]):
            raise PlanError(
                f"groups are {self.groups}; expected the output channels in the last group of cores that is applied, "
                f"since the convolution has {self.shape.groups} groups of channels"
            )

    @property
    def order(self) -> tuple[int, ...]:
        """The groups in the order in which they are applied."""
        count = len(self.groups)
        return tuple(reversed(range(count))) if self.reverse else tuple(range(count))

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """``(first, end)`` of the cores of each group, from 0, the end not included."""
        return tuple(pairwise(accumulate(self.groups, initial=0)))

    @cached_property
    def pieces(self) -> tuple[tuple[tuple[tuple[int, int], ...], ...], ...]:
        """For each group, the ``(axis, length)`` of its rows and of its columns.

        Axes of the kernel (HWIO).
        """
        sides = zip(self.shape.matrix_axes, (self.shape.mpo.input_dims, self.shape.mpo.output_dims), strict=True)
        found = []
        for axes, dims in sides:
            ends = (1, *accumulate(dims, lambda a, b: a * b))
            found.append([_piece(self.shape, axes, ends[first], ends[end]) for first, end in self.spans])
        return tuple(zip(*found, strict=True))

    @cached_property
    def steps(self) -> tuple[ConvStep, ...]:
        """The convolutions, in order."""
        rank, bonds = self.shape.rank, self.shape.mpo.bond_dims
        inputs = [prod(length for axis, length in rows if axis == rank) for rows, _ in self.pieces]
        outputs = [self._columns(group) for group in range(len(self.groups))]
        lone = {axis for axis in range(rank) if self.shape.kernel_size[axis] == 1}  # nobody's: the first step's
        left, right = 0, len(self.groups) - 1
        whole = self.shape.groups  # groups of channels are carried along until the outputs are made
        steps = []
        for number, group in enumerate(self.order):
            first, end = self.spans[group]
            window = tuple(self._length(group, axis) for axis in range(rank))
            axes = {axis for axis in range(rank) if window[axis] > 1} | (lone if number == 0 else set())
            before, after = prod(outputs[:left]), prod(outputs[right + 1 :])
            common = tuple(sorted(axes)), window
            if left == right:
                inner = bonds[first] * inputs[group] * bonds[end]
                steps.append(ConvStep(group, "last", *common, before, inner, outputs[group], after, whole))
            elif group == left:
                rest = prod(inputs[left + 1 : right + 1]) * bonds[self.spans[right][1]] * after
                inner, rows = bonds[first] * inputs[group], outputs[group] * bonds[end]
                steps.append(ConvStep(group, "left", *common, whole * before, inner, rows, rest))
                left += 1
            else:
                rest = before * bonds[self.spans[left][0]] * prod(inputs[left:right])
                inner, rows = inputs[group] * bonds[end], bonds[first] * outputs[group]
                steps.append(ConvStep(group, "right", *common, whole * rest, inner, rows, after))
                right -= 1
        return tuple(steps)

    @property
    def weights_key(self) -> tuple[object, ...]:
        """What makes the kernels of one plan of a convolution differ from another's."""
        return self.groups, self.reverse

    def multiplications(self, sizes: Sequence[int], window: Window) -> int:
        """Multiplications of a forward pass for one map of these sizes.

        Those that merge cores not counted.
        """
        maps = self.maps(sizes, window)
        return sum(step.multiplications * prod(after) for step, (_, after) in zip(self.steps, maps, strict=True))

    def maps(self, sizes: Sequence[int], window: Window) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        """Sizes of the maps before and after each step."""
        states = [tuple(sizes)]
        for step in self.steps:
            states.append(window.along(step.axes).output_sizes(states[-1]))
        return tuple(pairwise(states))

    def _columns(self, group: int) -> int:
        """Output channels of a group."""
        return prod(length for axis, length in self.pieces[group][1] if axis == self.shape.rank + 1)

    def _length(self, group: int, axis: int) -> int:
        return prod(length for side in self.pieces[group] for found, length in side if found == axis)

    def __str__(self) -> str:
        if len(self.groups) == 1:
            return "rebuild the kernel, 1 convolution"
        parts = []
        for number, step in enumerate(self.steps):
            carried = f" {step.prefix * step.suffix} times" if step.prefix * step.suffix > 1 else ""
            channels = " channels" if number == 0 else ""
            parts.append(f"{'x'.join(map(str, step.window))} to {step.rows}{channels}{carried}")
        return ", ".join(parts)


def kernels(plan: ConvPlan, cores: Sequence[A], ops: ForwardOps[A]) -> list[A]:
    """The kernel of each step, ``(*window, inner, rows)``.

    The cores are ``(D_{k-1}, I_k, J_k, D_k)``, of any framework.
    """
    return [_kernel(plan, step, cores, ops) for step in plan.steps]


def run(
    plan: ConvPlan,
    window: Window,
    kernels: Sequence[A],
    inputs: A,
    convolve: Callable[[A, A, ConvStep, Window], A],
) -> A:
    """The convolution of ``inputs`` by a plan.

    Args:
        plan: the plan.
        window: how the whole window moves.
        kernels: as `kernels` makes them.
        inputs: feature maps, laid out as ``convolve`` takes them, already padded where the mode is
            not zeros.
        convolve: ``(state, kernel, step, window) -> state``: one step, which folds the channels
            that are carried along into the batch.
    """
    for step, kernel in zip(plan.steps, kernels, strict=True):
        inputs = convolve(inputs, kernel, step, window.along(step.axes))
    return inputs


@lru_cache(maxsize=4096)
def cuts(shape: ConvShape) -> tuple[int, ...]:
    """After how many cores the chain may be cut.

    No spatial axis is split, no channel axis unevenly.
    """
    found = []
    for site in range(1, shape.sites):
        ends = (prod(dims[:site]) for dims in (shape.mpo.input_dims, shape.mpo.output_dims))
        if all(_splits_cleanly(shape, axes, end) for axes, end in zip(shape.matrix_axes, ends, strict=True)):
            found.append(site)
    return tuple(found)


def candidates(shape: ConvShape) -> Iterator[ConvPlan]:
    """Every plan worth considering, that which rebuilds the kernel first."""
    places = cuts(shape)
    for count in range(min(MAX_GROUPS, len(places) + 1)):
        for chosen in combinations(places, count):
            groups = tuple(b - a for a, b in pairwise((0, *chosen, shape.sites)))
            for reverse in (False, True)[: 2 if count else 1]:
                try:
                    yield ConvPlan(shape, groups, reverse)
                except PlanError:  # a grouped convolution whose outputs would be split
                    continue


def _kernel(plan: ConvPlan, step: ConvStep, cores: Sequence[A], ops: ForwardOps[A]) -> A:
    """The merged core of a group, its axes in the order ``(*window, inner, rows)``."""
    rank = plan.shape.rank
    rows, columns = plan.pieces[step.group]
    first, end = plan.spans[step.group]
    bonds = plan.shape.mpo.bond_dims
    labels = ["left", *(axis for axis, _ in rows), *(axis for axis, _ in columns), "right"]
    sizes = (bonds[first], *(length for _, length in rows + columns), bonds[end])
    channels: list[object] = {
        "left": ["left", rank, rank + 1, "right"],
        "right": [rank, "right", "left", rank + 1],
        "last": ["left", rank, "right", rank + 1],
    }[step.side]
    order = [*range(rank), *channels]
    axes = tuple(labels.index(label) for label in order if label in labels)
    merged = ops.transpose(ops.reshape(_merged(plan, first, end, cores, ops), sizes), axes)
    return ops.reshape(merged, (*step.window, step.inner, step.rows))


def _merged(plan: ConvPlan, first: int, end: int, cores: Sequence[A], ops: ForwardOps[A]) -> A:
    """Neighbouring cores as one, its axes ``(left, inputs, outputs, right)`` flat in this order."""
    shapes = plan.shape.core_shapes[first:end]
    chain = ops.reshape(cores[first], (prod(shapes[0][:3]), shapes[0][3]))
    for core, (left, i, j, right) in zip(cores[first + 1 : end], shapes[1:], strict=True):
        chain = ops.matmul(chain, ops.reshape(core, (left, i * j * right)))
        chain = ops.reshape(chain, (-1, right))
    count = end - first
    if count == 1:
        return chain
    sizes = (shapes[0][0], *(n for _, i, j, _ in shapes for n in (i, j)), shapes[-1][3])
    order = (0, *range(1, 2 * count, 2), *range(2, 2 * count + 1, 2), 2 * count + 1)
    return ops.transpose(ops.reshape(chain, sizes), order)


def _splits_cleanly(shape: ConvShape, axes: tuple[int, ...], end: int) -> bool:
    """Whether the first ``end`` of the rows (or columns) split cleanly.

    They must be whole spatial axes and an even part of the channels.
    """
    for axis in axes:
        length = shape.kernel_shape[axis]
        if end == 1:
            return True
        if end % length:
            return axis >= shape.rank and length % end == 0
        end //= length
    return True


def _piece(shape: ConvShape, axes: tuple[int, ...], begin: int, end: int) -> tuple[tuple[int, int], ...]:
    """The ``(axis, length)`` between two clean cuts.

    Lengths of 1 are left out, but for channels.
    """
    found, before = [], 1
    for axis in axes:
        after = before * shape.kernel_shape[axis]
        low, high = max(before, begin), min(after, end)
        if high > low:
            found.append((axis, high // low))
        before = after
    return tuple(found)

"""Weights that an eager layer in eval mode keeps between calls."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

from mponet_torch.ops.arrays import Array


class Keyed(Protocol):
    """A plan, of a product or of a convolution."""

    @property
    def weights_key(self) -> Any:
        """What makes the weights of one plan differ from another's."""


Plan = TypeVar("Plan", bound=Keyed)


class _Kept(NamedTuple):
    """A snapshot; it is replaced, and never changed.

    Attributes:
        tensors: copies of the tensors that the weights are made of.
        weights: what makes one plan's weights differ from another's, and the weights.
    """

    tensors: tuple[Array, ...]
    weights: tuple[tuple[Any, list[Array]], ...]


class WeightCache:
    """Cache of the weights of the few plans used last.

    They are made again as soon as a tensor has other numbers.

    Tensors are compared number by number, because writes through ``.data``, moving averages and the
    like do not count as changes in torch.  That costs next to nothing on a CPU.  On a GPU it would
    make the processor wait at every call, so nothing is kept there.

    Threads may share a cache: each call reads the snapshot once, and a snapshot is never written
    to. A copied or pickled layer starts with an empty cache.
    """

    #: Plans whose weights are kept: prefill, decode and a last, smaller batch among them.
    LIMIT = 4

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def keeps(self, tensors: Sequence[Array]) -> bool:
        """Whether weights of such tensors are kept: plain tensors on a CPU."""
        plain = (torch.Tensor, torch.nn.Parameter)
        return all(type(tensor) in plain and tensor.device.type == "cpu" for tensor in tensors)

    def weights(
        self, plan: Plan, tensors: Sequence[Array], merge: Callable[[Plan, Sequence[Array]], list[Array]]
    ) -> list[Array]:
        """The weights of a plan, kept or made by ``merge``."""
        kept = self._kept  # read once: another thread may replace it
        if kept is not None and not all(map(_is_same, kept.tensors, tensors)):
            kept = None
        key = plan.weights_key
        for other, weights in () if kept is None else kept.weights:
            if other == key:
                return weights
        snapshot = kept.tensors if kept is not None else tuple(tensor.detach().clone() for tensor in tensors)
        # made of the snapshot, so that both belong together whoever writes to the tensors
        # meanwhile; copied, because a weight of a single tensor may be a view
        made = [weight.clone() for weight in merge(plan, snapshot)]
        others = () if kept is None else kept.weights
        self._kept = _Kept(snapshot, ((key, made), *others[: self.LIMIT - 1]))
        return made

    def clear(self) -> None:
        """Keep nothing."""
        self._kept = None

    def __len__(self) -> int:
        kept = self._kept
        return 0 if kept is None else len(kept.weights)

    def __reduce__(self) -> tuple[type["WeightCache"], tuple[()]]:
        return WeightCache, ()


def _is_same(kept: Array, tensor: Array) -> bool:
    return kept.dtype == tensor.dtype and torch.equal(kept, tensor)

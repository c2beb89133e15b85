"""What layers cost to run: multiplications for one example, operators by the plans chosen for them."""

from mponet.contraction.search import choose
from mponet.models.shapes import LayerInfo


def multiplications(info: LayerInfo, batch: int) -> int:
    """For one example, operators by their plans; what merging their cores takes, once per batch, is left out.

    Args:
        info: the layer.
        batch: examples at a time that the plans are chosen for.
    """
    if info.mpo is not None:
        return choose(info.mpo, batch).sweep_multiplications
    inside = sum(multiplications(one, batch) for branch in info.branches for one in branch)
    return inside if info.branches else info.multiplications

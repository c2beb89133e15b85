"""Which structures to offer a layer where healing follows.

One shot, the nearest operator is best, and low rank is nearest nearly always.  After healing that
is no longer so: a product of two matrices of small rank sees its inputs through a few directions
only, whatever is trained, and a chain of balanced factors has a matrix of full rank.
"""

from mponet.compress.structures import is_matrix
from mponet.compress.target import Target

#: Ranks below which balanced operators are better than low rank after healing.  It comes from FC2
#: on MNIST.  LeNet-5 and a transformer, which it was not made on, agree: there balanced operators
#: win at ranks up to 10, and about tie at 19 to 31 (docs/compression.md).
LEAST_RANK = 16.0
LOW_RANK, BALANCED, WINDOW = "low-rank", "balanced", "window"


def offered_after_healing(target: Target, structures: tuple[str, ...], keep: float) -> tuple[str, ...]:
    """The families to offer: others than low rank where the budget leaves it too small a rank.

    That is balanced operators for a matrix, and splits at the window for a convolution.

    Args:
        target: the layer.
        structures: what the config allows.
        keep: share of the layer's weights that is left on average.

    Example:
        >>> import numpy as np
        >>> sizes = {"in_features": 784, "out_features": 256, "load": lambda: np.zeros((784, 256))}
        >>> layer = Target(name="fc1", kind="linear", type_name="Linear", **sizes)
        >>> [offered_after_healing(layer, ("low-rank", "mpo"), keep) for keep in (0.5, 0.05)]
        [('low-rank', 'mpo'), ('balanced',)]
    """
    rank = keep * target.in_features * target.out_features / (target.in_features + target.out_features)
    if rank >= LEAST_RANK or target.kind == "embedding":
        return structures
    if not is_matrix(target):
        return tuple(name for name in structures if name != LOW_RANK) if WINDOW in structures else structures
    return (BALANCED,) if {"mpo", BALANCED} & set(structures) else structures

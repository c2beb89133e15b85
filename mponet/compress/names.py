"""Weights of one framework under the names of another, where both networks have the same modules.

Cores and biases of operators have the same names and axes everywhere, ``layer.core1``
``(D_{k-1}, I_k, J_k, D_k)`` and ``layer.bias``.  What is left dense has those of its framework:

========================  ====================  ======================  ======================
what                      PyTorch               flax.nnx                Keras
========================  ====================  ======================  ======================
a matrix                  ``weight`` (out, in)  ``kernel`` (in, out)    ``kernel`` (in, out)
a kernel                  ``weight`` OIHW       ``kernel`` HWIO         ``kernel`` HWIO
a table                   ``weight``            ``embedding``           ``embeddings``
a norm's factor, shift    ``weight``, ``bias``  ``scale``, ``bias``     ``gamma``, ``beta``
running mean              ``running_mean``      ``mean``                ``moving_mean``
running variance          ``running_var``       ``var``                 ``moving_variance``
========================  ====================  ======================  ======================
"""

from collections.abc import Container, Mapping
from typing import Any, TypeVar

#: Names of the same thing; the axes of a ``kernel`` are moved, see `_moved`.
SYNONYMS = (
    ("weight", "kernel"),
    ("weight", "embedding", "embeddings"),
    ("weight", "scale", "gamma"),
    ("bias", "beta"),
    ("running_mean", "mean", "moving_mean"),
    ("running_var", "var", "moving_variance"),
)
#: What a framework keeps besides, and others do not know.
COUNTERS = ("num_batches_tracked",)
A = TypeVar("A", bound=Any)


def translated(tensors: Mapping[str, A], expected: Mapping[str, tuple[int, ...]]) -> dict[str, A]:
    """The tensors of a file under the names, and with the axes, that a network expects.

    Names that fit are kept as they are, and so is what has no other name.

    Args:
        tensors: by their name in the file, arrays of any framework.
        expected: names and shapes in the network.

    Example:
        >>> import numpy as np
        >>> file = {"layer.weight": np.zeros((3, 2)), "norm.weight": np.zeros(3)}
        >>> found = translated(file, {"layer.kernel": (2, 3), "norm.scale": (3,)})
        >>> {name: value.shape for name, value in found.items()}
        {'layer.kernel': (2, 3), 'norm.scale': (3,)}
    """
    found = {name: tensor for name, tensor in tensors.items() if name in expected or not is_besides(name, tensors)}
    for name, shape in expected.items():
        if name in found:
            continue
        for other, tensor in _others(name, found, expected):
            if tuple(tensor.shape) == tuple(shape):
                del found[other]
                found[name] = tensor
                break
    return found


def is_besides(name: str, tensors: Container[str]) -> bool:
    """Whether a tensor holds nothing that other frameworks know.

    It is a counter, or the sizes that an operator of PyTorch keeps as a weight.

    Args:
        name: of the tensor.
        tensors: names of all tensors of the network.
    """
    owner, _, last = name.rpartition(".")
    return last in COUNTERS or (last == "weight" and f"{owner}.core1" in tensors)


def _others(name: str, tensors: Mapping[str, A], expected: Mapping[str, tuple[int, ...]]) -> list[tuple[str, A]]:
    """Tensors that the file may have for a name, their axes moved."""
    owner, dot, last = name.rpartition(".")
    candidates = []
    for words in SYNONYMS:
        for word in words if last in words else ():
            other = f"{owner}{dot}{word}"
            if word != last and other in tensors and other not in expected:
                candidates.append((other, _moved(tensors[other], last, word)))
    return candidates


def _moved(tensor: A, name: str, found: str) -> A:
    """The axes of a ``weight`` as those of a ``kernel``, or the other way round."""
    axes = tuple(range(len(tensor.shape)))
    if {name, found} != {"kernel", "weight"} or len(axes) < 2:
        return tensor
    order = (*axes[2:], 1, 0) if name == "kernel" else (axes[-1], axes[-2], *axes[:-2])
    return getattr(tensor, "permute", tensor.transpose)(order)  # type: ignore[no-any-return]  # torch's transpose swaps two axes

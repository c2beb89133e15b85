"""Cores of other libraries: the order of their axes by name, to and from.

No library is imported.  Their objects are read by the attribute that holds the cores; arrays are
taken as well.  ``docs/conventions.md`` says what was checked with which version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mponet.errors import InputError
from mponet.operators.arrays import Array
from mponet.operators.axes import AXES
from mponet.operators.mpo import MPO


@dataclass(frozen=True, slots=True)
class Convention:
    """How a library keeps the cores of an operator.

    Attributes:
        axes: the names of the axes of a core, in its order.
        boundary: whether the first core has the axis ``left`` and the last ``right``, of size 1.
        attribute: of the library's object, which holds the cores; empty if the object is the
            sequence of its cores.
        matrix: what the library's own dense matrix is, in terms of ``W`` of ``y = x @ W``.
    """

    axes: str
    boundary: bool
    attribute: str
    matrix: str


#: The conventions of libraries, by the name of their package.  Where a library only knows a matrix,
#: its rows are the inputs.
CONVENTIONS = {
    "quimb": Convention("left right output input", False, "arrays", "W.T"),
    "t3f": Convention("left input output right", True, "tt_cores", "W"),
    "tensorkrowch": Convention("left input right output", False, "tensors", "W"),
    "tensorly": Convention("left input output right", True, "factors", "W"),
    "tensorly-torch": Convention("left output input right", True, "factors", "W.T"),
    "tensornetwork": Convention("left right output input", True, "tensors", "W.T"),
    "torchtt": Convention("left output input right", True, "cores", "W.T"),
}


def from_library(library: str, cores: Any, *, matrix: ArrayLike | None = None) -> MPO:
    """The operator whose cores another library keeps.

    Args:
        library: a name of `CONVENTIONS`.
        cores: an object of the library (quimb's ``MatrixProductOperator`` after
            ``permute_arrays("lrud")``, tensorly's ``TTMatrix``, the ``weight`` of tensorly-torch's
            ``FactorizedLinear``, TensorNetwork's ``FiniteMPO``, t3f's and torchTT's TT-matrices,
            TensorKrowch's ``MPO``), or its cores as arrays.
        matrix: ``W`` as far as it is known, to check the convention; None checks nothing.

    Raises:
        InputError: there is no such library, or a core holds complex or non-finite numbers.
        ShapeError: the cores do not fit together, or give another matrix than ``matrix``.

    Example:
        >>> import numpy as np
        >>> from mponet.operators.convert import from_library
        >>> # quimb: (right, up, down), (left, up, down)
        >>> theirs = [np.ones((3, 5, 2)), np.ones((3, 5, 2))]
        >>> from_library("quimb", theirs)
        MPO(M^{5,5}_{2,2}(3), 60 parameters)
    """
    convention = convention_of(library)
    arrays = cores
    if convention.attribute and not isinstance(cores, Sequence) and hasattr(cores, convention.attribute):
        arrays = getattr(cores, convention.attribute)
    return MPO.from_cores(list(arrays), convention.axes, matrix=matrix)


def to_library(library: str, mpo: MPO) -> list[Array]:
    """The cores of an operator as another library keeps them, float64 numpy.

    The library's constructor takes them: ``quimb.tensor.MatrixProductOperator(cores)``,
    ``tensorly.tt_matrix.TTMatrix(cores)``, ``tensornetwork.FiniteMPO(cores)``, and so on.

    Raises:
        InputError: there is no such library.

    Example:
        >>> import numpy as np
        >>> from mponet import MPO
        >>> from mponet.operators.convert import to_library
        >>> mpo = MPO.from_matrix(np.arange(60.0).reshape(6, 10), (2, 3), (5, 2))
        >>> [core.shape for core in to_library("quimb", mpo)]
        [(2, 5, 2), (2, 2, 3)]
    """
    convention = convention_of(library)
    order = convention.axes.split()
    cores = []
    for k, core in enumerate(mpo.cores, start=1):
        dropped = {"left": k == 1, "right": k == mpo.shape.sites}
        array = core.transpose([AXES.index(name) for name in order])
        sizes = zip(order, array.shape, strict=True)
        kept = [size for name, size in sizes if convention.boundary or not dropped.get(name, False)]
        cores.append(np.ascontiguousarray(array.reshape(kept)))
    return cores


def convention_of(library: str) -> Convention:
    """The convention of a library.

    Raises:
        InputError: there is no such library.

    Example:
        >>> from mponet.operators.convert import convention_of
        >>> convention_of("tensorly-torch").axes
        'left output input right'
    """
    if library not in CONVENTIONS:
        raise InputError(
            f"library is {library!r}; expected one of {', '.join(CONVENTIONS)}; of others, name the axes in "
            "MPO.from_cores(cores, axes=...)"
        )
    return CONVENTIONS[library]

"""Implementations of a layer that are compared, and the passes that are timed."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape

#: ``ours``; ``dense``, the framework's own layer; ``peer``, another way to apply the same operator;
#: ``other``, another map of the same size, for orientation.
Kind = Literal["ours", "dense", "peer", "other"]
Numbers = NDArray[Any]
OURS, DENSE = "ours", "dense"


class Passes(Protocol):
    """A layer and a batch, ready to run; a call returns when its results are computed."""

    def forward(self) -> Any:
        """``x @ W + b`` as in inference, with nothing stored for a backward pass."""

    def step(self) -> Any:
        """Forward and backward.

        Gradients of ``sum(gradients * y)`` for every parameter and the inputs.
        """

    def outputs(self) -> Numbers:
        """The result of `forward` as a numpy array."""


@dataclass(frozen=True, slots=True)
class Implementation:
    """A way to compute a layer in one framework.

    Attributes:
        name: name in tables.
        kind: role in the comparison.
        make: makes a native layer of an operator and a bias; raises `MPONetError` for an operator
            that it does not support.
        packages: distributions that it needs in addition to the framework.
        rebuilds: whether it forms the whole matrix.
    """

    name: str
    kind: Kind
    make: Callable[[MPO, Numbers], Any]
    packages: tuple[str, ...] = ()
    rebuilds: bool = False

    @property
    def absent(self) -> tuple[str, ...]:
        """Its packages that are not installed."""
        return tuple(package for package in self.packages if not _version(package))

    @property
    def versions(self) -> dict[str, str]:
        """Versions of its packages that are installed."""
        return {package: number for package in self.packages if (number := _version(package))}


def low_rank(shape: MPOShape) -> int:
    """Rank at which the product of two matrices has about as many parameters as the operator.

    >>> low_rank(MPOShape.from_factors((16, 16), (16, 16), 8))
    8
    """
    return max(1, round(shape.parameters / (shape.in_features + shape.out_features)))


def equation(sites: int) -> str:
    """``x @ W`` as one Einstein sum: inputs ``(batch, I_1 .. I_n)``, then the cores of `bare`.

    >>> equation(2)
    'abc,bdf,fce->ade'
    """
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    inputs, outputs = letters[1 : sites + 1], letters[sites + 1 : 2 * sites + 1]
    bonds = ["", *letters[2 * sites + 1 : 3 * sites], ""]
    cores = map("".join, zip(bonds[:-1], inputs, outputs, bonds[1:], strict=True))
    return f"{letters[0]}{inputs},{','.join(cores)}->{letters[0]}{outputs}"


def einsum_expression(shape: MPOShape, batch: int, package: str) -> Callable[..., Any]:
    """`equation` along the best path that a package finds, for ``(batch, I_1 ..

    I_n)`` and the cores of `bare`.

    Args:
        shape: shape of the operator.
        batch: rows of the batch.
        package: ``opt_einsum``, which tries every path, or ``cotengra``.
    """
    sites = shape.sites
    sizes = [(batch, *shape.input_dims), *(_bare(size, k, sites) for k, size in enumerate(shape.core_shapes))]
    if package == "cotengra":
        import cotengra

        expression: Callable[..., Any] = cotengra.einsum_expression(equation(sites), *sizes, optimize="optimal")
        return expression
    import opt_einsum

    expression = opt_einsum.contract_expression(equation(sites), *sizes, optimize="optimal")
    return expression


def bare(mpo: MPO) -> tuple[Numbers, ...]:
    """The cores ``(left, input, output, right)`` without the boundary axes of length 1."""
    sites = mpo.shape.sites
    return tuple(core.reshape(_bare(core.shape, k, sites)) for k, core in enumerate(mpo.cores))


def paper_matrices(mpo: MPO) -> tuple[Numbers, ...]:
    """The cores as in the authors' code.

    Rows ``(j_k, right bond)``, columns ``(left bond, i_k)``.
    """
    return tuple(
        core.transpose(2, 3, 0, 1).reshape(core.shape[2] * core.shape[3], prod(core.shape[:2])) for core in mpo.cores
    )


def _bare(sizes: tuple[int, ...], k: int, sites: int) -> tuple[int, ...]:
    """Sizes of core ``k``, counted from 0, without the boundary axes."""
    return sizes[k == 0 : 3 if k == sites - 1 else 4]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

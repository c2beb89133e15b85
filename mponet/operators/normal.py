"""Normal equations of one core: positive definite systems, solved at once or step by step."""

from collections.abc import Callable, Sequence

import numpy as np

from mponet.operators.arrays import Array

#: This share of a matrix' mean diagonal holds a core where no input tells it from others.
DAMPING = 1e-11
#: Residual at which `conjugate_gradients` ends, squared and relative to the start.
RESIDUAL = 1e-28


def damped(gram: Array) -> Array:
    """The matrix, or a stack of them, with `DAMPING` on the diagonal."""
    size = gram.shape[-1]
    mean = np.trace(gram, axis1=-2, axis2=-1) / size
    shift = np.maximum(DAMPING * mean, np.finfo(np.float64).tiny)
    return np.asarray(gram + shift[..., None, None] * np.eye(size), np.float64)


def solve_positive(gram: Array, right: Array) -> Array:
    """The solution of a positive definite system, by Cholesky.

    By elimination where rounding made it indefinite.
    """
    return solver(gram)(right)


def solver(gram: Array) -> Callable[[Array], Array]:
    """The function that solves a positive definite system, factored once.

    Args:
        gram: ``(n, n)``, or ``(n,)`` for a diagonal one, in which zeros leave a row as it is.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve, lu_factor, lu_solve

    if gram.ndim == 1:
        diagonal = np.where(gram > 0.0, gram, 1.0)
        return lambda right: right / diagonal.reshape(-1, *[1] * (right.ndim - 1))
    try:
        cholesky = cho_factor(gram, check_finite=False)
        return lambda right: np.asarray(cho_solve(cholesky, right, check_finite=False), np.float64)
    except LinAlgError:
        factors = lu_factor(gram, check_finite=False)
        return lambda right: np.asarray(lu_solve(factors, right, check_finite=False), np.float64)


def kronecker_solver(factors: Sequence[tuple[int, Array]]) -> Callable[[Array], Array]:
    """The function that solves a system whose matrix is a Kronecker product, axis by axis.

    Args:
        factors: axis of the unknowns, and the matrix along it, as in `solver`.
    """
    solvers = [(axis, solver(gram if gram.ndim == 1 else damped(gram))) for axis, gram in factors]

    def solve(right: Array) -> Array:
        for axis, along in solvers:
            front = np.moveaxis(right, axis, 0)
            solved = along(front.reshape(len(front), -1)).reshape(front.shape)
            right = np.moveaxis(solved, 0, axis)
        return np.ascontiguousarray(right)

    return solve


def conjugate_gradients(
    apply: Callable[[Array], Array], precondition: Callable[[Array], Array], wanted: Array, steps: int
) -> Array:
    """A step towards the solution ``x`` of ``apply(x) = wanted``.

    Every step lowers the error in the norm of the system.

    Args:
        apply: a symmetric positive semidefinite matrix times an array.
        precondition: the inverse of a matrix near it times an array.
        wanted: the right-hand side.
        steps: how many are made at most.
    """
    step, residual = np.zeros_like(wanted), wanted.copy()
    direction = precondition(residual)
    square = start = float(np.vdot(residual, direction))
    for _ in range(steps):
        image = apply(direction)
        curvature = float(np.vdot(direction, image))
        if curvature <= 0.0 or square <= RESIDUAL * start:
            break
        step = step + (square / curvature) * direction
        residual = residual - (square / curvature) * image
        nearer = precondition(residual)
        previous, square = square, float(np.vdot(residual, nearer))
        direction = nearer + (square / previous) * direction
    return step

"""What a module of flax.nnx that holds a matrix is described by, or why it is left alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jax import lax
from numpy.typing import NDArray

from mponet.compress.target import Target
from mponet.errors import MPONetError
from mponet_jax.ops.arrays import to_numpy

#: Functions that users may put in the place of those of nnx, and the usual ones.
_FUNCTIONS = {
    "dot_general": (None, lax.dot_general),
    "dot_general_cls": (None,),
    "einsum_op": (jnp.einsum,),
    "conv_general_dilated": (lax.conv_general_dilated,),
    "promote_dtype": (promote_dtype,),
    "preferred_element_type": (None,),
}


def type_name(module: nnx.Module) -> str:
    """``nnx.Linear`` as users write it."""
    cls = type(module)
    return f"nnx.{cls.__name__}" if cls.__module__.startswith("flax.nnx.") else cls.__name__


def weight_of(module: Any) -> Any:
    """The variable of a module that holds its matrix."""
    return module.embedding if isinstance(module, nnx.Embed) else module.kernel


def target_of(name: str, module: Any, read: Callable[[Any], Any], axes: int, **sizes: Any) -> Target:
    """A target whose weight is read by ``read`` and has so many axes.

    What that refuses is the reason why it is left alone.
    """
    weight = weight_of(module)
    problem = sizes.pop("unsupported", "") or _problem(module, weight, axes)
    if not problem:
        try:
            read(module)
        except MPONetError as error:
            problem = str(error)
    if problem:
        return unsupported(name, module, weight, sizes["kind"], problem)
    bias = getattr(module, "bias", None)

    def load() -> NDArray[np.float64]:
        matrix = read(module).matrix
        return matrix.reshape(-1, matrix.shape[-1]).astype(np.float64)  # type: ignore[no-any-return]

    return Target(
        name=name,
        type_name=type_name(module),
        load=load,
        load_bias=None if bias is None else lambda: to_numpy(bias[...]).astype(np.float64).reshape(-1),
        itemsize=weight.dtype.itemsize,
        **sizes,
    )


def unsupported(name: str, module: nnx.Module, weight: Any, kind: str, reason: str) -> Target:
    """A module whose weight is left alone: listed with the reason."""
    return Target(
        name=name,
        kind=kind,  # type: ignore[arg-type]
        type_name=type_name(module),
        in_features=int(np.prod(weight.shape[:-1])),
        out_features=int(weight.shape[-1]),
        load=lambda: to_numpy(weight[...]).astype(np.float64).reshape(-1, weight.shape[-1]),
        itemsize=weight.dtype.itemsize,
        unsupported=reason,
    )


def _problem(module: Any, weight: Any, axes: int) -> str:
    """Why a module of a known class does not compute what its weight and bias say."""
    base = next(
        cls for cls in (nnx.Linear, nnx.LinearGeneral, nnx.Einsum, nnx.Conv, nnx.Embed) if isinstance(module, cls)
    )
    if type(module).__call__ is not base.__call__:
        return f"{type_name(module)} has a forward pass of its own, beside that of nnx.{base.__name__}"
    own = [name for name, usual in _FUNCTIONS.items() if getattr(module, name, usual[0]) not in usual]
    if own:
        return f"it has a {own[0]} of its own"
    if not isinstance(weight[...], jax.Array) or not jnp.issubdtype(weight.dtype, jnp.floating):
        return f"its weight is a {type(weight[...]).__name__} of {weight.dtype}; expected an array of real numbers"
    if len(weight.shape) != axes:
        return (
            f"its weight has the shape {weight.shape}; expected {axes} axes; stacks (nnx.vmap, nnx.scan) are "
            "not supported; hold them in an nnx.List"
        )
    return ""

"""Matrix product operators as tensor networks, lowered to PyTorch, JAX and TensorFlow.

Layers are in the adapters: `mponet_torch`, `mponet_jax`, `mponet_tensorflow`.  Everything below is
numpy and needs no framework.  Packages of mponet are imported when they are first used:
`mponet.draw`, `mponet.models`, and so on.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mponet._version import __version__ as __version__

# Frameworks
from mponet.backend import load as load
from mponet.display import provide_renderer

# Errors
from mponet.errors import MPONetError as MPONetError

# From a matrix to an operator, and to a smaller one, with the error stated
from mponet.operators.decompose import Decomposition as Decomposition
from mponet.operators.decompose import from_matrix as from_matrix
from mponet.operators.decompose import truncate as truncate

# Sizes and factors
from mponet.operators.factors import factorize as factorize

# Operators
from mponet.operators.mpo import MPO as MPO
from mponet.operators.mpo import to_matrix as to_matrix
from mponet.operators.padding import PaddedShape as PaddedShape
from mponet.operators.padding import choose_factors as choose_factors
from mponet.operators.shape import MPOShape as MPOShape
from mponet.operators.topology import NetworkShape as NetworkShape

__all__ = [
    "MPO",
    "Decomposition",
    "MPONetError",
    "MPOShape",
    "NetworkShape",
    "PaddedShape",
    "__version__",
    "choose_factors",
    "factorize",
    "from_matrix",
    "load",
    "to_matrix",
    "truncate",
]

provide_renderer(lambda: import_module("mponet.draw"))


if not TYPE_CHECKING:  # or a checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        """A package of mponet, imported when it is first used; of other names, where they are.

        Raises:
            AttributeError: there is no such name here; the message names the import that has it.
        """
        if not name.startswith("_") and find_spec(f"mponet.{name}") is not None:
            return import_module(f"mponet.{name}")
        hint = f"expected one of {', '.join(__all__)}"
        if name.startswith(("MPO", "Network")):
            hint = (
                f"layers are in the adapter of a framework: `from mponet_torch import {name}`, or from mponet_jax or "
                "mponet_tensorflow; dir(mponet_torch) lists its layers"
            )
        raise AttributeError(f"module 'mponet' has no attribute {name!r}; {hint}", name=name)


def __dir__() -> list[str]:
    """The public names; packages that happen to be imported are left out."""
    return __all__

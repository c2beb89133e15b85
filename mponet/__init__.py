"""Matrix product operators as tensor networks, lowered to PyTorch, JAX and TensorFlow.

Layers are in the adapters: `mponet_torch`, `mponet_jax`, `mponet_tensorflow`.  Everything below is
numpy and needs no framework.  Packages of mponet are imported when they are first used:
`mponet.draw`, `mponet.models`, and so on.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mponet._version import __version__ as __version__

# Frameworks
from mponet.backend import load as load
from mponet.backend import on_first_use
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


def _hint(name: str) -> str:
    """Where a name is that users look for here."""
    if not name.startswith(("MPO", "Network")):
        return ""
    return (
        f"layers are in the adapter of a framework: `from mponet_torch import {name}`, or from mponet_jax or "
        "mponet_tensorflow; dir(mponet_torch) lists its layers"
    )


if not TYPE_CHECKING:  # or a checker would take every name for one of ours
    __getattr__, __dir__ = on_first_use(__name__, __all__, hint=_hint)

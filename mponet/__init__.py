"""Matrix product operators as tensor networks, lowered to PyTorch, JAX and TensorFlow."""

from importlib import import_module as _import_module

from mponet._version import __version__ as __version__
from mponet.backend import load as load
from mponet.display import provide_renderer as _provide_renderer
from mponet.operators.decompose import Decomposition as Decomposition
from mponet.operators.decompose import from_matrix as from_matrix
from mponet.operators.decompose import truncate as truncate
from mponet.operators.mpo import MPO as MPO
from mponet.operators.mpo import to_matrix as to_matrix
from mponet.operators.shape import MPOShape as MPOShape
from mponet.operators.shape import factorize as factorize

_provide_renderer(lambda: _import_module("mponet.draw"))

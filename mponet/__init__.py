"""Matrix product operators as tensor networks, lowered to PyTorch, JAX and TensorFlow."""

from mponet.backend import load as load
from mponet.decompose import Decomposition as Decomposition
from mponet.decompose import from_matrix as from_matrix
from mponet.decompose import truncate as truncate
from mponet.mpo import MPO as MPO
from mponet.mpo import to_matrix as to_matrix
from mponet.shape import MPOShape as MPOShape
from mponet.shape import factorize as factorize

__version__ = "0.1.0"

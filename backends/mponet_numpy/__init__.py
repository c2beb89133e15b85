"""mponet for numpy.

The `backend` that ``mponet.load("numpy")`` gives, the reference of all comparisons.
"""

from mponet_numpy.adapter import backend as backend

__all__ = ["backend"]

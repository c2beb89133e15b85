"""Kernels for GPUs, in Triton, that run a sweep without its states leaving the chip; `mponet_torch` calls them.

Triton comes with PyTorch's builds for CUDA and is wanted by nothing else here: without it, or
without a GPU, every plan runs by the framework's own products.
"""

from mponet_triton.factors import factors as factors
from mponet_triton.factors import laid_out as laid_out
from mponet_triton.launch import available as available
from mponet_triton.launch import forward as forward
from mponet_triton.launch import pull as pull
from mponet_triton.launch import serves as serves
from mponet_triton.launch import slopes as slopes

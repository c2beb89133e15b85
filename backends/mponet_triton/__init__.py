"""Kernels for GPUs, in Triton, that run a sweep without its states leaving the chip.

`mponet_torch` calls them.

Triton comes with PyTorch's builds for CUDA and is wanted by nothing else here: without it, or
without a GPU, every plan runs by the framework's own products.
"""

from mponet_triton.launch import available as available
from mponet_triton.launch import forward as forward
from mponet_triton.launch import input_gradient as input_gradient
from mponet_triton.launch import supports as supports
from mponet_triton.launch import weight_gradients as weight_gradients
from mponet_triton.layout import factors as factors
from mponet_triton.layout import to_weight_layout as to_weight_layout

"""Matrix product operators as tensor networks, lowered to PyTorch, JAX and TensorFlow."""

__version__ = "0.1.0"

"""Plans on the arrays of PyTorch."""

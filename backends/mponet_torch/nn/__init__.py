"""Native layers and modules for PyTorch."""

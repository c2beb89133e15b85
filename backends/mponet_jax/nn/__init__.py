"""Native layers and modules for JAX."""

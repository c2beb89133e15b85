"""Plans on the arrays of JAX."""

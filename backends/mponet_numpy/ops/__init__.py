"""Plans on numpy arrays."""

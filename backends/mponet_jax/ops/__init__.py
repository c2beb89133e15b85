"""Plans on the framework's arrays."""

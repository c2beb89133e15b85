"""Plans on the arrays of TensorFlow."""

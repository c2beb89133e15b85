"""Native layers and modules for Keras on TensorFlow."""

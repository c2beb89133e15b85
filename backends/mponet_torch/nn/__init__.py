"""Native layers and modules."""

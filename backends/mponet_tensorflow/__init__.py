"""Placeholder while the adapter is being written."""

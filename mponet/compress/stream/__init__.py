"""Checkpoints as files: read one tensor at a time, without a framework, and written in parts."""

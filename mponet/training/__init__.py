"""Training, framework-free: the loop, checkpoints, data sets, runs and suites."""

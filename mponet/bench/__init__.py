"""Time and memory of MPO layers, next to the dense layer of the framework and to other packages.

`mponet.bench.layers` times one layer in one framework, `mponet.bench.memory` measures the memory of
a training step, `mponet.bench.networks` times whole networks.  `mponet.bench.process` runs each
measurement in a process of its own; `mponet.bench.verdict` compares the results with their targets.
"""

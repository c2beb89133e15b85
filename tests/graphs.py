"""Small tensor networks that are layers, with values and gradients as explicit sums.

Nothing of mponet but its `NetworkShape` is used: what is computed here is what everything else is
compared with.  A sum of ``n`` products of ``m`` factors, in whatever order it is evaluated, is off
by at most about ``(n + m) EPS`` times the same sum over magnitudes (Higham, Accuracy and Stability,
2nd ed., sec. 3.1); `allowed` is twice that, for two ways.
"""

from math import prod

import numpy as np

from mponet.operators.topology import NetworkShape

EPS = float(np.finfo(np.float64).eps)

WIRINGS = {
    "ring": NetworkShape.from_edges(
        {"a": "left in1 out1 middle", "b": "middle in2 out2 right", "c": "right in3 out3 left"},
        {"in1": 2, "in2": 3, "in3": 2, "out1": 3, "out2": 1, "out3": 2, "left": 2, "middle": 3, "right": 2},
    ),
    "tree": NetworkShape.from_edges(
        {"root": "one two three", "x": "in1 in2 one", "y": "two in3 out2", "z": "out1 three out3"},
        {"in1": 2, "in2": 3, "in3": 2, "out1": 2, "out2": 3, "out3": 2, "one": 4, "two": 2, "three": 3},
    ),
    "tucker": NetworkShape.from_edges(
        {"u1": "in1 r1", "u2": "r2 in2", "centre": "r1 s1 r2 s2", "v1": "s1 out1", "v2": "out2 s2"},
        {"in1": 4, "in2": 3, "out1": 3, "out2": 4, "r1": 2, "r2": 3, "s1": 2, "s2": 2},
    ),
    "two bonds, and a leg of 1": NetworkShape.from_edges(
        {"a": "in2 one two out1", "b": "two out2 one in1"},
        {"in1": 1, "in2": 4, "out1": 3, "out2": 2, "one": 2, "two": 3},
    ),
    "in two pieces": NetworkShape.from_edges(
        {"a": "in1 out2", "b": "in2 out1"}, {"in1": 3, "in2": 2, "out1": 4, "out2": 2}
    ),
    "a single node": NetworkShape.from_edges({"w": "out1 in2 in1"}, {"in1": 2, "in2": 3, "out1": 5}),
}


def tensors_of(wiring, seed=0):
    """Standard normal, one for each node."""
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=size) for size in wiring.sizes)


def batch_of(wiring, rows, seed=0):
    """(inputs, slopes of the outputs)."""
    rng = np.random.default_rng((rows, seed))
    return rng.normal(size=(rows, wiring.in_features)), rng.normal(size=(rows, wiring.out_features))


def summed(wiring, arrays, edges, result):
    """The product of arrays with these edges, summed over all edges that the result has not."""
    number = {edge: k for k, edge in enumerate(["batch", *wiring.dims])}
    operands = [item for pair in zip(arrays, edges, strict=True) for item in (pair[0], [number[e] for e in pair[1]])]
    return np.einsum(*operands, [number[edge] for edge in result])


def matrix(wiring, tensors):
    """``W``."""
    legs = (*wiring.inputs, *wiring.outputs)
    return summed(wiring, tensors, wiring.edges, legs).reshape(wiring.in_features, wiring.out_features)


def gradients(wiring, tensors, inputs, slope):
    """Of ``sum(slope * (inputs @ W))`` by the inputs and by every node, each a sum of its own."""
    x = inputs.reshape(len(inputs), *wiring.input_dims)
    y = slope.reshape(len(slope), *wiring.output_dims)
    found = [slope @ matrix(wiring, tensors).T]
    for k, edges in enumerate(wiring.edges):
        others = [*tensors[:k], *tensors[k + 1 :]]
        other_edges = [*wiring.edges[:k], *wiring.edges[k + 1 :]]
        ends = (("batch", *wiring.inputs), ("batch", *wiring.outputs))
        found.append(summed(wiring, [x, y, *others], [*ends, *other_edges], edges))
    return found


def allowed(wiring, rows, room):
    """The rounding error allowed in a value above, whose sum of magnitudes is ``room``."""
    terms = rows * prod(wiring.dims.values())
    return 2 * (terms + len(wiring.names) + 2) * EPS * room


def magnitudes(arrays):
    """Their absolute values."""
    return tuple(np.abs(array) for array in arrays)

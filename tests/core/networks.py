"""Tensor networks of many shapes as TensorNetwork nodes, for drawings."""

import numpy as np
import tensornetwork as tn


def build(spec):
    """Nodes from ``{name: [(edge, dimension), ...]}``; edges of one name join, others are open."""
    nodes, open_ends = {}, {}
    for name, axes in spec.items():
        names = [edge for edge, _ in axes]
        node = nodes[name] = tn.Node(np.zeros([dim for _, dim in axes]), name=name, axis_names=names, backend="numpy")
        for edge in names:
            if edge in open_ends:
                tn.connect(open_ends.pop(edge)[edge], node[edge], name=edge)
            else:
                open_ends[edge] = node
    for edge, node in open_ends.items():
        node[edge].set_name(edge)
    return list(nodes.values())


def legs(k, inputs=3, outputs=5):
    return [(f"in{k}", inputs), (f"out{k}", outputs)]


def ring(count, bond=4):
    before = {k: f"bond{(k - 2) % count + 1}" for k in range(1, count + 1)}
    return build({f"core{k}": [(before[k], bond), *legs(k), (f"bond{k}", bond)] for k in range(1, count + 1)})


def tree(parents, with_legs=True):
    """Node ``k`` hangs on node ``parents[k - 1]``, which comes before it."""
    spec = {f"node{k}": legs(k + 1) if with_legs else [] for k in range(len(parents) + 1)}
    for child, parent in enumerate(parents, start=1):
        spec[f"node{parent}"].append((f"edge{child}", 2 + child))
        spec[f"node{child}"].append((f"edge{child}", 2 + child))
    return build(spec)


def grid(rows, columns):
    spec = {}
    for r in range(rows):
        for c in range(columns):
            down = [(f"v{r}{c}", 3)] * (r < rows - 1) + [(f"v{r - 1}{c}", 3)] * (r > 0)
            right = [(f"h{r}{c}", 2)] * (c < columns - 1) + [(f"h{r}{c - 1}", 2)] * (c > 0)
            spec[f"g{r}{c}"] = [*right, *down, *legs(r * columns + c + 1)]
    return build(spec)


def complete(count):
    """Everything joined to everything."""
    pairs = {k: [f"e{min(j, k)}{max(j, k)}" for j in range(count) if j != k] for k in range(count)}
    return build({f"n{k}": [*((edge, 2) for edge in pairs[k]), (f"in{k + 1}", 2)] for k in range(count)})


def tucker():
    return build(
        {
            "factor1": [("in1", 8), ("rank1", 3)],
            "factor2": [("in2", 8), ("rank2", 3)],
            "core": [("rank1", 3), ("rank2", 3), ("rank3", 4)],
            "factor3": [("rank3", 4), ("out1", 9)],
        }
    )

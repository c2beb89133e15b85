"""Networks for Graphviz, as TensorNetwork's ``to_graphviz`` writes them.

Unlike there, nodes have dimensions and stable names.

``to_graphviz`` names nodes by their addresses in memory and has no dimensions; a test compares the
rest.
"""

from collections.abc import Iterator, Sequence

from mponet.contraction.plan import Plan
from mponet.draw.graph import Graph, upward
from mponet.draw.options import DrawOptions
from mponet.draw.spacing import shown, thickness
from mponet.models.outline import Line, count, dimensions, outline
from mponet.models.outline import joined as grouped
from mponet.models.shapes import Operator
from mponet.models.spec import Model


def dot(graph: Graph, name: str = "G") -> str:
    """A tensor network in the DOT language, for ``neato``; ends in a newline."""
    return "\n".join([f"graph {quoted(name)} {{", "  graph [layout=neato]", *statements(graph), "}", ""])


def statements(graph: Graph, prefix: str = "", joint: str = "--") -> Iterator[str]:
    """The statements of a network, without the frame.

    Args:
        graph: the network.
        prefix: prefix of the names of nodes, for several networks in one file.
        joint: sign between two nodes: ``--``, or ``->`` in a directed graph.
    """
    for k, node in enumerate(graph.nodes):
        yield f"  {prefix}node{k} [label={quoted(_visible(node.name))}, shape=box, style=rounded]"
    for k, edge in enumerate(graph.edges):
        ends = [f"{prefix}node{end}" for end in edge.ends]
        if len(ends) == 1:
            yield f'  {prefix}leg{k} [label="", style=invis]'
            # a directed graph is laid out along its edges: outputs above, inputs below
            ends = [*ends, f"{prefix}leg{k}"] if joint == "->" and not upward(edge) else [f"{prefix}leg{k}", *ends]
        label = quoted(" ".join(filter(None, [_visible(edge.name), str(edge.dim)])))
        yield f"  {f' {joint} '.join(ends)} [label={label}, penwidth={thickness(edge.dim):.2f}]"


def model(network: Model, options: DrawOptions) -> str:
    """A whole network, its layers from top to bottom and each operator next to its layer.

    Ends in a newline.

    Args:
        network: the network.
        options: how its operators are drawn.
    """
    lines = [f"digraph {quoted(str(network))} {{", "  node [shape=box, style=rounded]", "  image"]
    lines[-1] += f" [label={quoted(f'image {dimensions(network.input_shape)}')}]"
    before = "image"
    for number, group in enumerate(grouped(outline(network))):
        name = f"layer{number}"
        lines += [*_layer(group, name, options), f"  {before} -> {name}"]
        before = name
    return "\n".join([*lines, f"  {before} -> logits", "}", ""])


def plan(contraction: Plan) -> str:
    """A contraction plan as a tree.

    Cores are merged into groups, and the batch is multiplied by each group in turn.
    """
    lines = [f"digraph {quoted(str(contraction))} {{", "  rankdir=BT", "  node [shape=box, style=rounded]", "  batch"]
    for group, (first, end) in enumerate(contraction.spans):
        if end - first > 1:
            lines.append(f"  group{group} [label={quoted(f'cores {first + 1}-{end} merged')}]")
            lines += [f"  core{k + 1} -> group{group}" for k in range(first, end)]
    before = "batch"
    for number, (group, step) in enumerate(zip(contraction.order, contraction.steps, strict=True), start=1):
        first, end = contraction.spans[group]
        weight = f"group{group}" if end - first > 1 else f"core{first + 1}"
        label = f"step {number}: {count(step.multiplications)} products per row"
        lines.append(f"  step{number} [label={quoted(label)}]")
        lines += [f"  {before} -> step{number}", f"  {weight} -> step{number}"]
        before = f"step{number}"
    return "\n".join([*lines, "}", ""])


def _layer(group: Sequence[Line], name: str, options: DrawOptions) -> Iterator[str]:
    """A layer as a node.

    A block lists the layers inside, an operator has its network next to it.
    """
    first = group[0]
    inside = [f"{inner.name} {inner.title} {inner.output}" for branch in first.branches for inner in branch]
    title = f"{first.name} {', '.join(line.title for line in group)} {group[-1].output}"
    yield f"  {name} [label={quoted(chr(10).join([title.strip(), *(f'  {text.strip()}' for text in inside)]))}]"
    for number, operator in enumerate(_operators(first)):
        prefix = f"{name}_{number}_"
        yield f"  subgraph cluster_{prefix} {{"
        yield f"  label={quoted(f'{operator.name} {operator.shape}')}"
        yield "  edge [dir=none]"
        yield from statements(options.network(operator)[0], prefix, "->")
        yield "  }"
        yield f"  {name} -> {prefix}node0 [style=dotted, dir=none, constraint=false]"


def _operators(line: Line) -> Iterator[Operator]:
    """The operators of a line and of the lines inside, those of repeated blocks once."""
    yield from line.first.operators
    for branch in line.branches:
        for inner in branch:
            yield from _operators(inner)


def quoted(text: str) -> str:
    """A text as a quoted string of DOT."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _visible(name: str) -> str:
    return name if shown(name) else ""

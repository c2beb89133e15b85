"""Writes docs/gallery.md and its pictures: ``python docs/gallery.py``; a test compares them."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensornetwork as tn

from mponet.contraction.plan import Plan
from mponet.draw import DrawOptions, save
from mponet.models import build
from mponet.operators.decompose import from_matrix
from mponet.operators.nodes import apply
from mponet.operators.shape import MPOShape

HEAD = """# Gallery

    python docs/gallery.py

makes this page and its pictures from the code; a test compares them. [Drawing](drawing.md) explains
how to draw your own, and in which formats. The pictures follow the light or dark theme of the
screen.
"""
FIVE = ("fc2", "lenet5", "vgg16", "resnet20", "densenet40-12")
VARIANTS = ("mpo", "dense")


@dataclass(frozen=True)
class Entry:
    """A picture of the gallery.

    Attributes:
        name: name of the file, without the ending.
        title: heading of the section.
        text: description.
        how: command or code that draws it.
        thing: the value that is drawn.
        options: settings of the drawing.
        called: name in the title of the picture.
    """

    name: str
    title: str
    text: str
    how: str
    thing: Any
    options: DrawOptions = field(default_factory=DrawOptions)
    called: str = ""


def entries() -> Iterator[Entry]:
    """Every picture, in the order of the page."""
    yield from operators()
    yield from networks()
    for model in FIVE:
        for variant in VARIANTS:
            command = f"mponet draw {model} --variant {variant} -o {model}-{variant}.svg"
            text = (
                "From the image at the top to the logits; repeated blocks are drawn once and counted."
                if variant == "mpo"
                else ""
            )
            yield Entry(f"{model}-{variant}", f"{model}, {variant}", text, command, build(model, variant))


def operators() -> Iterator[Entry]:
    """One operator with all settings, and its plan."""
    shape = MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 16)
    rows, columns = np.indices((784, 256)) / 64
    mpo = from_matrix(np.exp(-((rows - 3 * columns) ** 2)), *FACTORS, max_bond=16).mpo.canonical(2)
    yield Entry(
        "operator",
        "An operator",
        "The first layer of FC2. A box is a core; factors of the outputs point up, of the inputs down.",
        "mponet draw fc2 --layer fc1 -o operator.svg",
        shape,
        called="fc1 of fc2 (mpo)",
    )
    yield Entry(
        "entropy",
        "Canonical form and entanglement",
        "A decomposed matrix. Arrows mark isometries, the frame marks the centre, S is the entropy.",
        'save(mpo.canonical(2), "entropy.svg", options=DrawOptions("entropy"))',
        mpo,
        DrawOptions("entropy"),
    )
    yield Entry(
        "error",
        "Error of a truncation",
        "The same operator: the relative error of truncating each bond alone to 4.",
        'save(mpo.canonical(2), "error.svg", options=DrawOptions("error", cut=4))',
        mpo,
        DrawOptions("error", cut=4),
    )
    yield Entry(
        "share",
        "Where the parameters are",
        "",
        "mponet draw fc2 --layer fc1 --colour share -o share.svg",
        shape,
        DrawOptions("share"),
        "fc1 of fc2 (mpo)",
    )
    yield Entry(
        "plan",
        "A contraction plan",
        "Cores in a frame are merged first. Numbers give the order in which the batch meets the groups.",
        'save(Plan(MPOShape.from_factors((8, 8, 8, 8), (8, 8, 8, 8), 8), (2, 2), (1, 0), 16), "plan.svg")',
        Plan(MPOShape.from_factors((8, 8, 8, 8), (8, 8, 8, 8), 8), (2, 2), (1, 0), 16),
    )


FACTORS = ((4, 7, 7, 4), (4, 4, 4, 4))


def networks() -> Iterator[Entry]:
    """Networks that are not chains."""
    rows, columns = np.indices((36, 24)) / 12
    mpo = from_matrix(np.exp(-((rows - columns) ** 2)), (3, 4, 3), (2, 4, 3), max_bond=4).mpo
    yield Entry(
        "input",
        "An operator and its input",
        "The graph that defines the result of a layer.",
        'save(mponet.operators.nodes.apply(mpo, inputs), "input.svg", name="An operator and five inputs")',
        apply(mpo, np.ones((5, 36))),
        called="An operator and five inputs",
    )
    ring = {f"core{k}": [(f"bond{k - 1 or 6}", 4), (f"in{k}", 3), (f"out{k}", 5), (f"bond{k}", 4)] for k in range(1, 7)}
    how = 'save(nodes, "ring.svg", name="A ring")  # TensorNetwork nodes, joined in any way'
    yield Entry("ring", "A ring", "", how, connected(ring), called="A ring")
    tree = {
        "root": [("out1", 16), ("left", 4), ("right", 8)],
        "node1": [("left", 4), ("a", 4), ("b", 4)],
        "node2": [("right", 8), ("c", 4), ("d", 2)],
        **{f"leaf{k}": [(edge, 2 if edge == "d" else 4), (f"in{k}", 7)] for k, edge in enumerate("abcd", start=1)},
    }
    yield Entry("tree", "A tree", "", 'save(nodes, "tree.svg", name="A tree")', connected(tree), called="A tree")
    tucker = {
        **{f"factor{k}": [(f"in{k}", 16), (f"rank{k}", 4)] for k in (1, 2)},
        "core": [("rank1", 4), ("rank2", 4), ("rank3", 3), ("rank4", 3)],
        **{f"factor{k}": [(f"rank{k}", 3), (f"out{k - 2}", 12)] for k in (3, 4)},
    }
    how = 'save(nodes, "tucker.svg", name="A Tucker layer")'
    yield Entry("tucker", "A Tucker layer", "", how, connected(tucker), called="A Tucker layer")


def connected(spec: dict[str, list[tuple[str, int]]]) -> list[Any]:
    """TensorNetwork nodes whose edges of one name are joined; the others dangle."""
    nodes, ends = {}, {}
    for name, axes in spec.items():
        names = [edge for edge, _ in axes]
        nodes[name] = tn.Node(np.zeros([dim for _, dim in axes]), name=name, axis_names=names, backend="numpy")
        for edge in names:
            if edge in ends:
                tn.connect(ends.pop(edge)[edge], nodes[name][edge], name=edge)
            else:
                ends[edge] = nodes[name]
    for edge, node in ends.items():
        node[edge].set_name(edge)
    return list(nodes.values())


def main(folder: Path) -> None:
    """Write the page and its pictures into ``folder``."""
    (folder / "gallery").mkdir(exist_ok=True)
    parts = [HEAD]
    for entry in entries():
        save(entry.thing, folder / "gallery" / f"{entry.name}.svg", options=entry.options, name=entry.called)
        text = f"{entry.text}\n\n" if entry.text else ""
        parts.append(f"## {entry.title}\n\n{text}    {entry.how}\n\n![{entry.title}](gallery/{entry.name}.svg)\n")
    (folder / "gallery.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

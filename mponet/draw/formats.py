"""The picture of any value that has one, in every format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mponet.compress.plan import CompressionPlan
from mponet.compress.report import Report
from mponet.contraction.plan import Plan
from mponet.draw import compression, compression_report
from mponet.draw import dot as graphviz
from mponet.draw.contraction import plan_svg, plan_text
from mponet.draw.diagram_svg import alt_text, diagram, reading
from mponet.draw.graph import Graph, node_text, of_nodes, of_wiring
from mponet.draw.markup import Markup, element
from mponet.draw.one_line import line
from mponet.draw.options import DrawOptions
from mponet.draw.overlay import Overlay
from mponet.draw.page import page
from mponet.draw.png import png
from mponet.draw.sheet_svg import sheet_svg
from mponet.draw.text import diagram as text_diagram
from mponet.draw.text import sheet as text_sheet
from mponet.draw.theme import Theme
from mponet.draw.web import STYLE as WEB
from mponet.draw.web import figure, key, plan_page, sheet_page
from mponet.errors import InputError
from mponet.files import write_atomically, writing
from mponet.layers.network import NetworkLayer
from mponet.models.outline import count
from mponet.models.spec import Model
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape
from mponet.operators.topology import NetworkShape

#: Formats by the ending of a file.
FORMATS = ("txt", "svg", "png", "html", "dot")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is drawn when one of its formats is called.

    Attributes:
        text: returns unicode text without a final newline.
        svg: returns an SVG document in a theme.
        html: returns a page.
        dot: returns a graph for Graphviz.
    """

    text: Callable[[], str]
    svg: Callable[[Theme], str]
    html: Callable[[], str]
    dot: Callable[[], str]


def render(
    thing: Any, format: str = "svg", *, options: DrawOptions | None = None, theme: Theme = "auto", name: str = ""
) -> str | bytes:
    """The picture of a value.

    Args:
        thing: an `MPO`, an `MPOShape`, a `NetworkShape`, a `Model`, a `Plan`, a
            `CompressionPlan`, its `Report`, a layer of any framework, or TensorNetwork nodes.
        format: one of `FORMATS`.
        options: how operators are coloured; None for `DrawOptions` with its defaults.
        theme: ``auto`` follows the screen, ``light`` and ``dark`` are fixed; for ``svg`` and
            ``png``.
        name: name of an operator or of a network of nodes, for its title.

    Returns:
        Bytes for ``png``, else text.  Equal values give equal bytes.

    Raises:
        InputError: there is no picture of such a value, the format is unknown, or the options need
            cores.
        GraphError: the nodes are not a network.
        BackendError: the converter for ``png`` is not installed.

    >>> print(render(MPOShape.from_factors((4, 4), (4, 4), 3), "txt").splitlines()[1])
    16 → 16; 96 weights for 256
    """
    drawn = picture(thing, options or DrawOptions(), name)
    match format:
        case "txt":
            return f"{drawn.text()}\n"
        case "svg":
            return f"{drawn.svg(theme)}\n"
        case "png":
            return png(drawn.svg(theme))
        case "html":
            return drawn.html()
        case "dot":
            return drawn.dot()
    raise InputError(f"format is {format!r}; expected one of {', '.join(FORMATS)}")


def save(
    thing: Any, path: Path | str, *, options: DrawOptions | None = None, theme: Theme = "auto", name: str = ""
) -> None:
    """Write the picture of a value to a file, atomically; the ending of its name is the format.

    Raises:
        CheckpointError: the file cannot be written.
        InputError: see `render`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save(MPOShape.from_factors((4, 4), (4, 4), 3), Path(folder, "operator.svg"))
    """
    path = Path(path)
    drawn = render(thing, path.suffix.removeprefix(".").lower(), options=options, theme=theme, name=name)
    with writing(path):
        write_atomically(path, drawn if isinstance(drawn, bytes) else drawn.encode())


def picture(thing: Any, options: DrawOptions, name: str = "") -> Picture:
    """The picture of a value, not drawn yet.

    Raises:
        InputError: there is no picture of such a value.
        GraphError: the nodes are not a network.
    """
    if isinstance(thing, Model):
        return _of_model(thing, options)
    if isinstance(thing, Plan):
        return _of_plan(thing)
    if isinstance(thing, CompressionPlan):
        return Picture(
            lambda: str(thing),
            lambda theme: compression.plan_svg(thing, theme=theme),
            lambda: compression.plan_page(thing),
            partial(_not_a_graph, thing),
        )
    if isinstance(thing, Report):
        return Picture(
            lambda: str(thing),
            lambda theme: compression_report.report_svg(thing, theme),
            lambda: compression_report.report_page(thing),
            partial(_not_a_graph, thing),
        )
    if isinstance(thing, MPO | MPOShape):
        return _of_operator(thing, options, name)
    if isinstance(thing, Graph):
        return _of_graph(thing, name or "Tensor network", [], None)
    if isinstance(thing, NetworkLayer):
        return _of_graph(of_nodes(thing.to_nodes()), name or "Tensor network", [_weights(thing.shape)], None)
    if callable(getattr(thing, "to_mpo", None)):
        return _of_operator(thing.to_mpo(), options, name)
    if isinstance(thing, NetworkShape):
        return _of_graph(of_wiring(thing), name or "Tensor network", [_weights(thing)], None)
    if isinstance(thing, Sequence | set | frozenset) and thing and all(hasattr(node, "edges") for node in thing):
        # the order of a set differs from process to process
        nodes = thing if isinstance(thing, Sequence) else sorted(thing, key=lambda node: str(node.name))
        return _of_graph(of_nodes(nodes), name or "Tensor network", [], None)
    raise InputError(
        f"there is no picture of {type(thing).__name__}; expected an MPO, MPOShape, NetworkShape, Model, Plan, "
        "CompressionPlan, Report, an mponet layer or TensorNetwork nodes; convert it to one of them"
    )


def notebook_svg(thing: Any) -> str | None:
    """The SVG that a notebook shows for a value; None for a layer whose shape is not known yet."""
    return None if _unbuilt(thing) else picture(thing, DrawOptions()).svg("auto")


def notebook_html(thing: Any) -> str | None:
    """The HTML that a notebook shows.

    A network is its page in a frame, so that styles do not mix.
    """
    if _unbuilt(thing):
        return None
    if isinstance(thing, Model):
        style = "width: 100%; height: 640px; border: 0"
        return element("iframe", srcdoc=sheet_page(thing), style=style, sandbox="allow-scripts", title=str(thing))
    return element("div", Markup(picture(thing, DrawOptions()).svg("auto")), style="max-width: 100%; overflow-x: auto")


def _unbuilt(thing: Any) -> bool:
    """Whether a layer has no cores yet; Keras makes them when it first gets inputs."""
    return getattr(thing, "built", True) is False


def _of_model(model: Model, options: DrawOptions) -> Picture:
    return Picture(
        lambda: text_sheet(model),
        lambda theme: sheet_svg(model, options, theme),
        lambda: sheet_page(model, options),
        lambda: graphviz.model(model, options),
    )


def _of_plan(plan: Plan) -> Picture:
    return Picture(
        lambda: plan_text(plan),
        lambda theme: plan_svg(plan, theme=theme),
        lambda: plan_page(plan),
        lambda: graphviz.plan(plan),
    )


def _not_a_graph(thing: CompressionPlan | Report) -> str:
    raise InputError(f"a {type(thing).__name__} is not a graph; expected txt, svg, png or html as its format")


def _of_operator(operator: MPO | MPOShape, options: DrawOptions, name: str) -> Picture:
    if isinstance(operator, MPO):
        graph, overlay = options.operator(operator)
        shape = operator.shape
    else:
        graph, overlay = options.shape(operator, str(operator))
        shape = operator
    note = _weights(shape)
    title = f"{name}: {shape}" if name else str(shape)
    drawn = _of_graph(graph, title, [note], overlay)
    text = f"{title}\n{note}\n\n{text_diagram(shape)}\n\n{line(graph)}"
    return Picture(lambda: text, drawn.svg, drawn.html, drawn.dot)


def _of_graph(graph: Graph, title: str, notes: Sequence[str], overlay: Overlay | None) -> Picture:
    return Picture(
        lambda: "\n".join([title, *notes, "", *_nodes(graph)]),
        lambda theme: diagram(graph, title, overlay=overlay, notes=notes, theme=theme),
        lambda: _page(graph, title, notes, overlay),
        lambda: graphviz.dot(graph),
    )


def _weights(shape: MPOShape | NetworkShape) -> str:
    return (
        f"{shape.in_features} → {shape.out_features}; {count(shape.parameters)} weights for "
        f"{count(shape.dense_parameters)}"
    )


def _page(graph: Graph, title: str, notes: Sequence[str], overlay: Overlay | None) -> str:
    """A page with the diagram of a network, its legend, and a list of its nodes."""
    body = (
        element("h1", title),
        *(element("p", note) for note in notes),
        figure(graph, overlay, f"{title}: {alt_text(graph)}"),
        key(reading(graph), overlay),
        element("ul", *(element("li", words) for words in _nodes(graph))),
    )
    return page(title, *body, style=WEB)


def _nodes(graph: Graph) -> list[str]:
    return [node_text(graph, node) for node in range(len(graph.nodes))]

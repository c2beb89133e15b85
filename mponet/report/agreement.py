"""Do the backends agree?  The JSON of ``mponet crosscheck`` as a map.

Backend by backend, for every quantity.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isinf, log10
from typing import Annotated

from msgspec import Meta, ValidationError, convert

from mponet.crosscheck.bounds import QUANTITIES, Norm
from mponet.crosscheck.compare import Comparison
from mponet.draw.markup import Markup, element, joined
from mponet.draw.theme import ON_SHADES, SHADES, shade
from mponet.errors import CheckpointError
from mponet.report.sources import Document
from mponet.training.schema import Magnitude, Name, Positive

MAX_BACKENDS = 12  # of a map
FAINTEST = 1e-4  # share of a bound that has the faintest shade
Found = tuple[str, Comparison]  # the network's name, and what was compared

STYLE = (
    ".heats { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 4px 28px }",
    ".heat { font-size: .87em } .heat caption { text-align: left; font-weight: 600; padding: 6px 0 2px }",
    ".heat td { text-align: center; padding: 5px 8px; min-width: 68px; border: 2px solid $surface }",
    ".heat th { font-weight: 400; border: 0; padding: 2px 8px 2px 0; vertical-align: middle }",
    ".heat thead th { text-align: center }",
    *(f".heat .s{k} {{ background: $shade{k}; color: $on{k} }}" for k in range(len(SHADES))),
    ".beyond { background: $alert; color: $surface; font-weight: 600 }",
    ".key span { display: inline-block; padding: 1px 10px }",
)


@dataclass(frozen=True, slots=True)
class CheckedComparison:
    """A `Comparison`, with null for an error that is not finite."""

    quantity: Name
    first: Name
    second: Name
    error: Magnitude | None
    worst: Name
    bound: Annotated[float, Meta(gt=0.0, le=1e300)]
    norm: Norm = "largest"

    def comparison(self) -> Comparison:
        """The same with an infinite error in place of null."""
        error = inf if self.error is None else self.error
        return Comparison(self.quantity, self.first, self.second, error, self.worst, self.bound, self.norm)


@dataclass(frozen=True, slots=True)
class CheckedReport:
    """What is used of a report in the JSON of ``mponet crosscheck``."""

    model: Name
    variant: Name
    dtype: Name
    comparisons: Annotated[list[CheckedComparison], Meta(max_length=1000)]
    bond: Positive | None = None

    @property
    def title(self) -> str:
        """Name of the network, with variant and bond."""
        bond = "" if self.bond is None else f" D={self.bond}"
        return f"{self.model} ({self.variant}{bond})"


@dataclass(frozen=True, slots=True)
class Crosscheck:
    """The JSON of ``mponet crosscheck``."""

    reports: Annotated[list[CheckedReport], Meta(max_length=1000)]


def is_crosscheck(document: Document) -> bool:
    """Whether a file means to be one of ``mponet crosscheck --json``.

    `maps` says whether it can be used.
    """
    content = document.content
    reports = content.get("reports") if isinstance(content, Mapping) else None
    return isinstance(reports, list) and all(isinstance(one, Mapping) and "comparisons" in one for one in reports)


def maps(document: Document) -> Markup:
    """The maps of a file, precision by precision; a cell shows the worst network.

    Raises:
        CheckpointError: the file is not what the command prints.
    """
    try:
        reports = convert(document.content, Crosscheck).reports
    except (ValidationError, RecursionError) as error:
        raise CheckpointError(
            f"{document.name} cannot be used ({error}); expected what mponet crosscheck --json prints; write it again"
        ) from error
    found: dict[str, list[Found]] = {}
    for report in reports:
        found.setdefault(report.dtype, []).extend((report.title, one.comparison()) for one in report.comparisons)
    return joined(_precision(dtype, pairs) for dtype, pairs in found.items())


def _precision(dtype: str, found: Sequence[Found]) -> Markup:
    broken, networks = sum(not one.ok for _, one in found), len({name for name, _ in found})
    verdict = (
        f"{broken} of {len(found)} comparisons are beyond their bounds"
        if broken
        else f"all {len(found)} comparisons are within their bounds"
    )
    quantities = [quantity for quantity in QUANTITIES if any(one.quantity == quantity for _, one in found)]
    tables = [_map(quantity, [pair for pair in found if pair[1].quantity == quantity]) for quantity in quantities]
    heading = element("h3", dtype)
    text = element("p", f"{networks} networks: {verdict}.")
    return joined([heading, text, element("div", *tables, class_="heats")], "\n")


def _map(quantity: str, found: Sequence[Found]) -> Markup:
    """Lower triangle: every pair of backends once."""
    names = list(dict.fromkeys(side for _, one in found for side in (one.first, one.second)))
    more = f" (without {len(names) - MAX_BACKENDS} more backends)" if len(names) > MAX_BACKENDS else ""
    names, rows = names[:MAX_BACKENDS], []
    for number, below in enumerate(names[1:], start=1):
        cells = []
        for left in names[:number]:
            pair = [one for one in found if {one[1].first, one[1].second} == {left, below}]
            cells.append(_cell(pair) if pair else element("td"))
        rows.append(element("tr", element("th", below, scope="row"), *cells))
    head = element("tr", element("th"), *(element("th", name, scope="col") for name in names[:-1]))
    return element(
        "table", element("caption", quantity + more), element("thead", head), element("tbody", *rows), class_="heat"
    )


def _cell(pair: Sequence[Found]) -> Markup:
    name, worst = max(pair, key=lambda one: one[1].error / one[1].bound)
    share = worst.error / worst.bound
    hint = f"{name}: {worst.worst}, {worst.error:.1e} of {worst.bound:.1e} allowed{worst.measured}"
    return element("td", _amount(worst.error), class_=_class(share, worst.ok), title=hint)


def _amount(error: float) -> str:
    return "not finite" if isinf(error) else f"{error:.0e}" if error else "0"


def _class(share: float, ok: bool) -> str:
    if not ok:
        return "beyond"
    place = 1 - log10(max(share, FAINTEST)) / log10(FAINTEST)
    return f"s{shade(place)}"


def key() -> Markup:
    """What the shades mean."""
    ends = [FAINTEST ** (1 - k / len(SHADES)) for k in range(1, len(SHADES) + 1)]
    steps = [element("span", f"to {float(f'{100 * end:.2g}'):g} %", class_=f"s{k}") for k, end in enumerate(ends)]
    beyond = element("span", "beyond", class_="beyond")
    return element("p", "Share of the bound that an error takes: ", *steps, beyond, class_="heat key muted")


def parts(documents: Sequence[Document]) -> Iterator[Markup]:
    """Everything about the agreement.

    Raises:
        CheckpointError: a document is not what the command prints.
    """
    for document in documents:
        yield joined([maps(document), key()], "\n")


assert len(SHADES) == len(ON_SHADES)

"""Reports side by side, as Markdown."""

from collections.abc import Iterator, Sequence

from mponet.crosscheck.bounds import QUANTITIES
from mponet.crosscheck.compare import Comparison, Report


def markdown(reports: Sequence[Report]) -> str:
    """One row for each report, one column for each quantity: the worst pair's ``error of bound``.

    ``l2`` marks the Euclidean norm.  The last column names the tensor that comes nearest to its
    bound.
    """
    compared = {found.quantity for report in reports for found in report.comparisons}
    quantities = [quantity for quantity in QUANTITIES if quantity in compared]
    head = ["network", "variant", "dtype", *quantities, "nearest its bound"]
    rows = [head, ["---"] * len(head), *(list(_row(report, quantities)) for report in reports)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(report: Report, quantities: Sequence[str]) -> Iterator[str]:
    yield from (report.model, report.variant, report.dtype)
    for quantity in quantities:
        found = [one for one in report.comparisons if one.quantity == quantity]
        yield _cell(max(found, key=lambda one: one.error)) if found else ""
    nearest = max(report.comparisons, key=lambda one: one.error / one.bound)
    yield f"{nearest.worst} of {nearest.quantity}"


def _cell(found: Comparison) -> str:
    norm = " l2" if found.norm == "euclidean" else ""
    sign = "of" if found.ok else "BEYOND"
    return f"{found.error:.0e} {sign} {found.bound:.0e}{norm}"

"""Reports as one Markdown table."""

from collections.abc import Iterator, Sequence

from mponet.crosscheck.bounds import QUANTITIES
from mponet.crosscheck.compare import Comparison, Report


def markdown(reports: Sequence[Report]) -> str:
    """One row per report, one column per quantity with the ``error of bound`` of the worst pair.

    ``l2`` marks the Euclidean norm.  The last column names the tensor that is closest to its bound.
    """
    compared = {comparison.quantity for report in reports for comparison in report.comparisons}
    quantities = [quantity for quantity in QUANTITIES if quantity in compared]
    head = ["network", "variant", "dtype", *quantities, "nearest its bound"]
    rows = [head, ["---"] * len(head), *(list(_row(report, quantities)) for report in reports)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(report: Report, quantities: Sequence[str]) -> Iterator[str]:
    yield from (report.model, report.variant, report.dtype)
    for quantity in quantities:
        comparisons = [comparison for comparison in report.comparisons if comparison.quantity == quantity]
        yield _cell(max(comparisons, key=lambda comparison: comparison.error)) if comparisons else ""
    nearest = max(report.comparisons, key=lambda comparison: comparison.error / comparison.bound)
    yield f"{nearest.worst} of {nearest.quantity}"


def _cell(comparison: Comparison) -> str:
    norm = " l2" if comparison.norm == "euclidean" else ""
    sign = "of" if comparison.ok else "BEYOND"
    return f"{comparison.error:.0e} {sign} {comparison.bound:.0e}{norm}"

"""``mponet report``: everything about suites, runs and compressed networks on one page."""

from pathlib import Path

import click

from mponet.cli.output import WritableFile, json_option, print_json
from mponet.files import write_atomically, writing
from mponet.report import report as page_of

NAME = "report.html"


@click.command(
    epilog="""\b
Examples:
  mponet report runs/suite-torch-short
  mponet report runs/fc2-digits-torch-short-seed0 -o fc2.html
  mponet report small
  mponet report runs --with crosscheck.json --with bench.json
"""
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=WritableFile(),
    metavar="FILE",
    help=f"Output file.  Default: {NAME} in DIR.",
)
@click.option(
    "--with",
    "given",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON file of mponet crosscheck, mponet bench or benchmarks/plumbing.py.  Those in DIR are found without it.",
)
@json_option
def report(folder: Path, out: Path | None, given: tuple[Path, ...], as_json: bool) -> None:
    """Make one page of a suite, a run or a compressed network, with tables, curves and spectra.

    DIR is the folder of one, or has such folders in it: then they are compared, such as one suite
    on three frameworks.  The page needs no network.  The same DIR gives the same
    bytes.
    """
    file = out or folder / NAME
    page = page_of(folder, given).encode(errors="replace")  # names on disk may be no Unicode
    with writing(file):
        write_atomically(file, page)
    print_json({"file": str(file), "bytes": len(page)}) if as_json else click.echo(f"{file}: {len(page) / 1000:.0f} kB")

"""``mponet spectrum``: how well each matrix of a checkpoint compresses."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from mponet.cli.output import WritableFile, error_console, json_option, print_json, refusing
from mponet.compress.calibrate import Calibration
from mponet.compress.match import check_used, matcher
from mponet.compress.spectrum import SHARES, LayerSpectrum, spectra
from mponet.compress.stream.rules import matrices, targets
from mponet.compress.stream.sources import open_source, read_json
from mponet.compress.structures import structure_names
from mponet.compress.target import Target
from mponet.errors import CompressionError, InputError
from mponet.files import to_json, write_atomically, writing
from mponet.report.spectrum import effective_rank, spectrum_page, spectrum_rows

PLAIN = "Errors are those of the weights: no calibration was given."
WEIGHTED = "Errors are those of the outputs on the calibration's inputs."
ENDINGS = (".html", ".json")


@click.command(
    epilog="""\b
Examples:
  mponet spectrum model.safetensors
  mponet spectrum model --include '.*q_proj' --structure low-rank --structure mpo
  mponet spectrum model --calibration sums.safetensors -o spectrum.html
"""
)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.option("--calibration", type=click.Path(path_type=Path), metavar="FILE", help="Sums that an adapter gathered.")
@click.option("--include", multiple=True, metavar="REGEX", help="Only these modules.  May be repeated.")
@click.option(
    "--structure",
    "structures",
    multiple=True,
    type=click.Choice(structure_names()),
    default=("low-rank", "balanced"),
    show_default=True,
    help="Operators to compare.",
)
@click.option("--min-weights", type=int, default=4096, show_default=True, metavar="N", help="Leave smaller ones out.")
@click.option("-o", "--output", type=WritableFile(), metavar="FILE", help="A page, .html, or all points, .json.")
@json_option
def spectrum(
    source: Path,
    calibration: Path | None,
    include: tuple[str, ...],
    structures: tuple[str, ...],
    min_weights: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show how well each matrix of a checkpoint compresses.

    IN is a safetensors file, a folder of them, or an .npz, .pt or .gguf file.  For every matrix and
    structure: the relative error at several shares of the weights, and the entropy of the singular
    values at each bond, beside the largest possible one.
    """
    with refusing():
        if output is not None and output.suffix not in ENDINGS:
            raise InputError(f"{output} ends in {output.suffix!r}; expected one of {', '.join(ENDINGS)}; rename it")
        sums = None if calibration is None else Calibration.load(calibration)
        chosen = _chosen(source, include, min_weights)
        with error_console().status("reading") as status:
            layers = list(
                spectra(chosen, structures, sums, progress=lambda _, done, count: status.update(f"{done} of {count}"))
            )
    note = PLAIN if sums is None else WEIGHTED
    facts = {"note": note, "layers": [asdict(layer) for layer in layers]}
    if output is not None:
        page = output.suffix == ".html"
        text = spectrum_page(f"Spectrum of {source.name}", layers, note) if page else f"{to_json(facts, indent=1)}\n"
        with writing(output):
            write_atomically(output, text.encode(errors="replace"))
    if as_json:
        print_json(json.loads(json.dumps(facts)))
    else:
        _show(layers, note)


def _chosen(path: Path, include: tuple[str, ...], min_weights: int) -> list[Target]:
    """The matrices of a checkpoint that can be compressed, in its order.

    Raises:
        CompressionError: none is left.
    """
    source = open_source(path)
    described = {file.name: file for file in source.carried}
    found = matrices(source, read_json(described["config.json"]) if "config.json" in described else {})
    every = targets(source, found)
    pattern = "|".join(f"(?:{one})" for one in include) or ".*"
    check_used(pattern, "include", every)
    included = matcher(pattern, "include")
    chosen = [one for one in every if not one.unsupported and one.weights >= min_weights and included(one)]
    if not chosen:
        raise CompressionError(f"{path} holds no matrix to compare; include more, or lower min_weights")
    return chosen


def _show(layers: list[LayerSpectrum], note: str) -> None:
    click.echo(note)
    click.echo(f"{'':<37}{'error at keep':<35}entropy at bonds, nats")
    click.echo(f"{'layer':<26} {'structure':<9}" + "".join(f"{share:>7g}" for share in SHARES))
    entropies = iter([effective_rank(one) for layer in layers for one in layer.structures])
    before = ""
    for name, _, structure, errors in spectrum_rows(layers):
        shown = "" if name == before else name if len(name) <= 26 else f"..{name[-24:]}"
        numbers = "".join(f"{'-' if error is None else format(error, '.3f'):>7}" for error in errors)
        click.echo(f"{shown:<26} {structure:<9}{numbers}  {next(entropies)}")
        before = name

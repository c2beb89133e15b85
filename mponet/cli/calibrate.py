"""``mponet calibrate``: sums over the inputs of layers, for ``mponet compress --calibration``."""

from importlib import import_module
from itertools import islice
from pathlib import Path
from re import fullmatch
from typing import Any

import click

from mponet.backend import choose, package_of
from mponet.cli.networks import from_function
from mponet.cli.output import json_option, print_json, print_status, refusing
from mponet.compress.calibrate import Calibration
from mponet.compress.config import METRICS, CompressConfig
from mponet.errors import CheckpointError, InputError
from mponet.files import check_writable, read_bytes

#: Bytes of a text that are read.
MAX_TEXT = 256 << 20


@click.command(
    epilog="""\b
Examples:
  mponet calibrate model text.txt -o sums.safetensors
  mponet calibrate model text.txt -o sums.safetensors --tokens 65536 --metric covariance
  mponet calibrate network:make -o sums.safetensors --backend torch
  mponet calibrate model text.txt -o sums-2.safetensors --share 2/4
"""
)
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="[DATA]", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="File of the sums.")
@click.option("--include", metavar="REGEX", help="Gather sums of these modules only.")
@click.option("--exclude", metavar="REGEX", help="Gather no sums of these modules.")
@click.option("--min-weights", type=int, default=4096, show_default=True, metavar="N", help="Skip smaller ones.")
@click.option(
    "--metric", type=click.Choice(METRICS), default="auto", show_default=True, help="What layers will be fitted in."
)
@click.option("--tokens", type=click.IntRange(1), default=8192, show_default=True, help="Tokens of the text, at most.")
@click.option("--window", type=click.IntRange(1), default=512, show_default=True, help="Tokens at a time.")
@click.option(
    "--share",
    metavar="K/N",
    callback=lambda context, option, value: _share(value),
    help="Take batches K, K + N, K + 2 N, ... only: one of N processes.",
)
@click.option("--backend", metavar="B", help="Framework of MODULE:FUNCTION: torch, jax or tensorflow.")
@json_option
def calibrate(
    model: str,
    data: Path | None,
    out: Path,
    include: str | None,
    exclude: str | None,
    min_weights: int,
    metric: str,
    tokens: int,
    window: int,
    share: tuple[int, int],
    backend: str | None,
    as_json: bool,
) -> None:
    """Run a network on data, and write the sums that compression fits its layers to.

    MODEL is a folder of Hugging Face, and DATA a text; or MODEL is MODULE:FUNCTION, a function of
    Python that returns the network and batches of its inputs.  Nothing of the data is kept but sums
    over rows.  Sums over shares of the data add up: `mponet compress` takes the files of all.
    """
    with refusing():
        check_writable(out)
        config = CompressConfig(
            keep=0.5, include=include, exclude=exclude or (), min_weights=min_weights, metric=metric
        )
        adapter, network, batches = _network(model, data, tokens, window, backend)
        number, count = share
        sums: Calibration = adapter.calibrate(network, config, islice(batches, number - 1, None, count))
        sums.save(out)
    rows = max((s.count for s in sums.sums.values()), default=0)
    if as_json:
        told = {"modules": sorted(sums.inputs), "rows": rows, "gradients": bool(sums.gradients)}
        print_json({"out": str(out), **told, "warnings": sums.warnings()})
        return
    for warning in sums.warnings():
        print_status(f"warning: {warning}")
    click.echo(f"sums of {len(sums.inputs)} modules over {rows:,} rows written to {out}")


def _share(value: str | None) -> tuple[int, int]:
    """``(K, N)`` of ``K/N``, from 1; all of it for None."""
    if value is None:
        return 1, 1
    match = fullmatch(r"(\d{1,6})/(\d{1,6})", value)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"it is {value!r}; expected K/N with K from 1 to N, such as 2/4")
    return int(match[1]), int(match[2])


def _network(model: str, data: Path | None, tokens: int, window: int, backend: str | None) -> tuple[Any, Any, Any]:
    """The adapter, the network and batches of its inputs."""
    if (folder := Path(model)).is_dir():
        if data is None:
            raise InputError(f"{model} is a folder, and no DATA is given; expected a text file")
        pretrained = import_module(f"{package_of('torch')}.compression.pretrained")
        text = read_bytes(data, MAX_TEXT).decode("utf-8", errors="replace")
        batches = pretrained.text_batches(folder, text, window, tokens)
        return import_module(package_of("torch")), pretrained.open_pretrained(folder), batches
    if ":" not in model or data is not None:
        raise CheckpointError(f"{model} is not a folder; expected one with DATA, or MODULE:FUNCTION without")
    adapter = import_module(package_of(choose(backend).name))
    if not hasattr(adapter, "calibrate"):
        raise InputError(f"{adapter.__name__} calibrates no networks; expected another --backend")
    return adapter, *from_function(model)

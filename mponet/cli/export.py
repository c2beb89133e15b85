"""``mponet export``: a trained or compressed network as a file that runs elsewhere."""

from importlib import import_module
from pathlib import Path
from typing import Any

import click
import numpy as np

from mponet.backend import choose, load, package_of
from mponet.cli.evaluate import find
from mponet.cli.networks import from_function
from mponet.cli.output import json_option, print_json, print_status, refusing
from mponet.errors import CheckpointError, InputError
from mponet.export import FORMATS, TOLERANCE, Exported
from mponet.files import read_json
from mponet.training.checkpoint import load as read
from mponet.training.loop import evaluated

#: Written by `mponet_torch.save_compressed` and its twins.
PLAN = "compression_plan.json"
#: Images of the example that a network is traced with.
EXAMPLES = 4
#: Tokens of the example of a Hugging Face model.
TOKENS = 16


@click.command(
    epilog="""\b
Examples:
  mponet export runs/fc2-digits-torch-short-seed0/mpo --to onnx -o fc2.onnx
  mponet export runs/fc2-digits-torch-short-seed0/mpo --to litert -o fc2.tflite --backend tensorflow
  mponet export small --model network:make --to torch-export -o small.pt2 --merge
"""
)
@click.argument("source", metavar="SOURCE", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Choice(list(FORMATS)), help="Format.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), metavar="OUT", help="File to be made.")
@click.option(
    "--model",
    metavar="MODULE:FUNCTION",
    help="Python function that returns the network as it was before compression, and an example of its inputs.",
)
@click.option(
    "--backend", metavar="B", help="Framework: torch, jax or tensorflow.  Default: one that writes the format."
)
@click.option("--merge", is_flag=True, help="Multiply the operators out: a larger file, faster where dense layers are.")
@click.option(
    "--dynamic", type=int, multiple=True, default=(0,), show_default=True, metavar="AXIS", help="Axes of any length."
)
@click.option(
    "--tolerance", type=float, default=TOLERANCE, show_default=True, metavar="E", help="Largest relative deviation."
)
@json_option
def export(
    source: Path,
    to: str,
    out: Path,
    model: str | None,
    backend: str | None,
    merge: bool,
    dynamic: tuple[int, ...],
    tolerance: float,
    as_json: bool,
) -> None:
    """Write a network to a file that runs elsewhere.

    SOURCE is a checkpoint or the folder of a run; a folder of Hugging Face, dense or as `mponet
    compress` writes it; or a folder that save_compressed wrote, which needs --model.  The file is
    loaded and run before it gets its name, and its outputs are compared with those of the network.
    """
    with refusing():
        name = _backend(to, backend)
        adapter = import_module(package_of(name))
        native, inputs = _network(source, name, model, adapter)
        options: dict[str, Any] = {"to": to, "merge": merge, "dynamic": dynamic, "tolerance": tolerance}
        written: Exported = adapter.export(native, out, inputs, **options)
    if as_json:
        row = {"out": str(out), "to": to, "backend": name, "merged": merge}
        print_json({**row, "deviation": written.deviation, "bytes": written.nbytes})
    else:
        click.echo(written)


def _backend(to: str, asked: str | None) -> str:
    """The framework that writes a format."""
    able = tuple(FORMATS[to].needs)
    if asked is None and len(able) == 1:
        return able[0]
    chosen = choose(asked)
    if chosen.name not in able:
        raise InputError(f"{chosen.name} does not write {to}; expected one of {', '.join(able)}; pass --backend")
    print_status(f"backend: {chosen.name}, {chosen.why}")
    return chosen.name


def _network(source: Path, backend: str, model: str | None, adapter: Any) -> tuple[Any, Any]:
    """The network of a source, and an example of its inputs."""
    if (source / PLAN).is_file():
        return _compressed(source, model, adapter)
    if backend == "torch" and "architectures" in _config(source):
        pretrained = import_module(f"{package_of(backend)}.compression.pretrained")
        network = pretrained.open_pretrained(source)
        return network, np.arange(2 * TOKENS).reshape(2, TOKENS)
    return _trained(source, backend)


def _config(source: Path) -> dict[str, Any]:
    """The ``config.json`` of a folder; empty if there is none."""
    path = source / "config.json"
    return read_json(path, dict) if path.is_file() else {}


def _trained(source: Path, backend: str) -> tuple[Any, Any]:
    """The network of a checkpoint, and random images."""
    found = find(source)
    if len(found) > 1:
        raise CheckpointError(f"{source} holds {len(found)} networks; expected one; name one: {found[0].parent}")
    checkpoint = read(found[0])
    framework = load(backend)
    native = framework.build(checkpoint.model, evaluated(checkpoint.parameters, checkpoint.optimizer))
    images = np.random.default_rng(0).normal(size=(EXAMPLES, *checkpoint.model.input_shape))
    return native, import_module(f"{package_of(backend)}.exporting").image_inputs(native, images)


def _compressed(source: Path, model: str | None, adapter: Any) -> tuple[Any, Any]:
    """The network of a folder of ``save_compressed``, and the example that its function gives."""
    if model is None:
        raise InputError(f"{source} holds a compressed network; expected --model MODULE:FUNCTION, which makes it dense")
    if not hasattr(adapter, "load_compressed"):
        raise InputError(f"{adapter.__name__} loads no compressed networks; expected one of another framework")
    network, inputs = from_function(model)
    return adapter.load_compressed(network, source), inputs

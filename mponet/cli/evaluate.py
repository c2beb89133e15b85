"""``mponet evaluate``: the test accuracy of what was trained, on any backend."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from mponet.backend import Backend, choose, load
from mponet.cli.output import json_option, people, print_json, print_status
from mponet.errors import CheckpointError
from mponet.models.dropout import Masks, dropout_layers, sample_masks
from mponet.training import data as datasets
from mponet.training.checkpoint import NAME, Checkpoint
from mponet.training.checkpoint import load as read
from mponet.training.data import Arrays
from mponet.training.loop import accuracy, evaluated, no_masks


@click.command(
    epilog="""\b
Examples:
  mponet evaluate runs/fc2-digits-torch-short-seed0
  mponet evaluate runs/fc2-digits-torch-short-seed0/mpo --backend jax
  mponet evaluate checkpoint.safetensors --data mnist --json
"""
)
@click.argument("checkpoint", type=click.Path(path_type=Path), metavar="CHECKPOINT")
@click.option(
    "--backend",
    metavar="B",
    help="Framework: torch, jax or tensorflow.  Default: $MPONET_BACKEND, else the first installed.",
)
@click.option("--data", metavar="NAME", help="Data set.  Default: the one used for training.")
@click.option(
    "--device", metavar="D", help="Device, as `mponet backends --devices` lists them.  Default: the backend's own."
)
@click.option("--dropout", is_flag=True, help="Keep dropout active, as the authors' VGG code does in its evaluation.")
@json_option
def evaluate(
    checkpoint: Path, backend: str | None, data: str | None, device: str | None, dropout: bool, as_json: bool
) -> None:
    """Measure a trained network on its test set.

    Where the recipe keeps a moving average of the parameters, that is measured.

    CHECKPOINT is a file, or the folder of a run, written by any backend.
    """
    loaded = {path: read(path) for path in find(checkpoint)}
    chosen = choose(backend)
    print_status(f"backend: {chosen.name}, {chosen.why}")
    framework = load(chosen.name)
    rows = [measured(path, one, framework, data, device, dropout=dropout) for path, one in loaded.items()]
    print_json({"backend": chosen.name, "checkpoints": rows}) if as_json else _show(rows)


def find(path: Path) -> list[Path]:
    """The checkpoints that a path means: itself, or those in a folder of a run or of a variant.

    Raises:
        CheckpointError: there is none.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - unlike Path.is_dir it raises nothing, whatever the path is
        return [path]
    found = sorted((*path.glob(NAME), *path.glob(f"*/{NAME}")))
    if not found:
        raise CheckpointError(f"{path} holds no {NAME}; expected the folder of a run; train one with: mponet run")
    return found


def measured(
    path: Path,
    checkpoint: Checkpoint,
    backend: Backend,
    data: str | None,
    device: str | None,
    *,
    dropout: bool = False,
) -> dict[str, Any]:
    """Accuracy of one checkpoint, for JSON."""
    dataset = datasets.load(data or checkpoint.data)
    arrays = Arrays.of(dataset, checkpoint.model.input_shape, checkpoint.recipe)
    values = evaluated(checkpoint.parameters, checkpoint.optimizer)
    native = backend.build(checkpoint.model, values, device=device)

    def kept(begin: int, count: int) -> Masks:
        return sample_masks(dropout_layers(checkpoint.model), count, checkpoint.seed, begin)

    return {
        "checkpoint": str(path),
        "model": checkpoint.model.name,
        "variant": checkpoint.model.variant,
        "bond": checkpoint.model.bond,
        "step": checkpoint.step,
        "data": dataset.name,
        "images": len(arrays.test_images),
        "dropout": dropout,
        "accuracy": accuracy(backend, native, arrays.test_images, arrays.test_labels, kept if dropout else no_masks),
    }


def _show(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("model", "variant", "step", "data", "images", "accuracy", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        cells = (row["model"], row["variant"], row["step"], row["data"], row["images"], f"{row['accuracy']:.2%}")
        table.add_row(*map(str, cells))
    people().print(table)

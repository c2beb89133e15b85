"""Folders of compressed networks: the plan as JSON, the weights as safetensors, the plan last."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

from mponet.compress.names import translated
from mponet.compress.plan import CompressionPlan
from mponet.errors import CheckpointError, CompressionError
from mponet.files import replacing, writing

PLAN, WEIGHTS = "compression_plan.json", "model.safetensors"
A = TypeVar("A", bound=Any)


def save_folder(
    folder: Path, plan: CompressionPlan, operators: Collection[str], kind: str, write: Callable[[str], None]
) -> None:
    """Write a compressed network to a folder.

    Args:
        folder: is made if it is not there.
        plan: what was carried out.
        operators: names of the operators that the network has.
        kind: name of the network's class, for messages.
        write: writes the weights to a file of that name.

    Raises:
        CompressionError: the plan is not that of the network.
        CheckpointError: the folder cannot be written.
    """
    planned = {layer.name for layer in plan.replaced}
    found = planned & set(operators)
    if not planned or found != planned:
        raise CompressionError(
            f"the plan replaces {len(planned)} layers, and {len(found)} of them are operators in this {kind}; expected "
            "the network and the plan of the same compression"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as part:
            write(str(part))
    plan.save(folder / PLAN)


@contextmanager
def reading(folder: Path, kind: str) -> Iterator[Path]:
    """The file of the weights in a folder, while it is read and matched.

    Args:
        folder: what `save_folder` wrote.
        kind: name of the network's class, for messages.

    Raises:
        CheckpointError: the file is damaged, or holds the weights of another network.
        CompressionError: as the block raises it.
    """
    try:
        yield folder / WEIGHTS
    except CompressionError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not hold the weights of this compressed {kind} ({error}); expected a folder that "
            "save_compressed wrote for the same class and sizes"
        ) from error


def matched(tensors: Mapping[str, A], expected: Mapping[str, tuple[int, ...]]) -> dict[str, A]:
    """The tensors of a file under the names that a network expects, of whatever framework.

    Args:
        tensors: by their name in the file.
        expected: names and shapes in the network.

    Raises:
        ValueError: names or shapes differ.
    """
    found = translated(tensors, expected)
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"{missing[0]} is missing")
    if unknown := sorted(found.keys() - expected.keys()):
        raise ValueError(f"{unknown[0]} is not in the network")
    for name, shape in expected.items():
        if tuple(found[name].shape) != tuple(shape):
            raise ValueError(f"{name} has the shape {tuple(found[name].shape)}; expected {tuple(shape)}")
    return found

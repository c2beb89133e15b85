"""What one backend does with the task: ``python -m mponet.crosscheck.worker BACKEND FOLDER...``.

Reads the case in each folder, writes ``BACKEND.safetensors`` and ``BACKEND.json``.  A tensor's name is
``<quantity>:<name>``.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from mponet.backend import Backend, Numbers, load
from mponet.crosscheck.case import RECIPES, Case
from mponet.crosscheck.case import load as load_case
from mponet.crosscheck.margin import REFERENCE
from mponet.recipe import Recipe


def answers(backend: Backend, case: Case) -> dict[str, Numbers]:
    """Everything that is compared, by ``<quantity>:<name>``; forward and loss only from the reference."""
    first = case.legs[0]
    native = backend.build(case.model, first.parameters, dtype=case.dtype)
    logits = backend.predict(native, first.images)
    if backend.name == REFERENCE:
        return {"forward:logits": logits, "loss:loss": np.asarray(cross_entropy(logits, first.labels))}
    loss, slopes = backend.gradients(native, first.images, first.labels)
    found = {"forward:logits": logits, "loss:loss": np.asarray(loss, dtype=np.float64)}
    found |= {f"gradients:{name}": value for name, value in slopes.items()}
    for recipe in RECIPES:
        found |= {f"{recipe.name}:{name}": value for name, value in _training(backend, case, recipe).items()}
    return found


def cross_entropy(logits: Numbers, labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy of logits ``(batch, classes)``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - chosen))


def _training(backend: Backend, case: Case, recipe: Recipe) -> dict[str, Numbers]:
    """Of every leg: the losses of all steps, parameters and optimiser state behind the last."""
    native = backend.build(case.model, case.legs[0].parameters, dtype=case.dtype)
    trainer = backend.trainer(native, recipe)
    found: dict[str, Numbers] = {}
    for number, leg in enumerate(case.legs, start=1):
        backend.assign(native, leg.parameters)
        trainer.restore(leg.velocity if recipe.momentum else {})
        losses = [float(trainer.step(leg.images, leg.labels, rate)) for rate in leg.rates]
        tensors = {**backend.parameters(native), **trainer.state(), "losses": np.array(losses)}
        found |= {f"{name} ({number})" if len(case.legs) > 1 else name: value for name, value in tensors.items()}
    return found


def main(name: str, folders: Sequence[Path]) -> None:
    """Read the tasks, compute, write the answers."""
    backend = load(name)
    facts = json.dumps({"versions": backend.versions(), "device": backend.devices()[0]})
    for folder in folders:
        found = answers(backend, load_case(folder))
        save_file({key: np.ascontiguousarray(value) for key, value in found.items()}, folder / f"{name}.safetensors")
        (folder / f"{name}.json").write_text(facts, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], [Path(folder) for folder in sys.argv[2:]])

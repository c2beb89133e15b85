"""What one backend does with the task: ``python -m mponet.crosscheck.worker BACKEND FOLDER...``.

Reads ``case.*`` in each folder, writes ``BACKEND.safetensors`` and ``BACKEND.json``.  A tensor's name is
``<quantity>:<name>``.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from mponet.backend import Backend, Numbers, load
from mponet.crosscheck.case import RATES, RECIPES, REFERENCE, Case
from mponet.crosscheck.case import load as load_case
from mponet.recipe import Recipe


def answers(backend: Backend, case: Case) -> dict[str, Numbers]:
    """Everything that is compared, by ``<quantity>:<name>``; forward and loss only from the reference."""
    native = _built(backend, case)
    logits = backend.predict(native, case.images)
    if backend.name == REFERENCE:
        return {"forward:logits": logits, "loss:loss": np.asarray(cross_entropy(logits, case.labels))}
    loss, slopes = backend.gradients(native, case.images, case.labels)
    found = {"forward:logits": logits, "loss:loss": np.asarray(loss, dtype=np.float64)}
    found |= {f"gradients:{name}": value for name, value in slopes.items()}
    for recipe in RECIPES:
        found |= {f"{recipe.name}:{name}": value for name, value in _trajectory(backend, case, recipe).items()}
    return found


def cross_entropy(logits: Numbers, labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy of logits ``(batch, classes)``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - chosen))


def _trajectory(backend: Backend, case: Case, recipe: Recipe) -> dict[str, Numbers]:
    """Losses of all steps, then parameters and optimiser state behind the last."""
    native = _built(backend, case)
    trainer = backend.trainer(native, recipe)
    losses = [float(trainer.step(case.images, case.labels, rate)) for rate in RATES]
    return {**backend.parameters(native), **trainer.state(), "losses": np.array(losses)}


def _built(backend: Backend, case: Case) -> Any:
    return backend.build(case.model, case.parameters, dtype=case.dtype)


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

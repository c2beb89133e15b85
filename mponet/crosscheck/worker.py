"""What one backend does with the task: ``python -m mponet.crosscheck.worker BACKEND FOLDER...``.

Reads the case in each folder, writes ``BACKEND.safetensors`` and ``BACKEND.json``.  A tensor's name
is ``<quantity>:<name>``.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from mponet.backend import Backend, Numbers, load
from mponet.crosscheck.case import Case
from mponet.crosscheck.case import load as load_case
from mponet.crosscheck.margin import REFERENCE
from mponet.models.shapes import statistic_shapes
from mponet.recipe import Recipe, average_share


def answers(backend: Backend, case: Case) -> dict[str, Numbers]:
    """Everything that is compared, by ``<quantity>:<name>``; the reference's are those of passes forward."""
    first, masks = case.legs[0], case.legs[0].masks[0]
    native = backend.build(case.model, first.parameters, dtype=case.dtype)
    found = {"forward:logits": backend.predict(native, first.images)}
    if masks:
        found["dropout:logits"] = backend.predict(native, first.images, masks)
    if backend.name == REFERENCE:
        return found | _training_pass(native, case)
    loss, slopes = backend.gradients(native, first.images, first.labels, masks)
    found["loss:loss"] = np.asarray(loss, dtype=np.float64)
    found |= _named("gradients", slopes)
    for recipe in case.recipes:
        found |= _training(backend, case, recipe)
    return found


def cross_entropy(logits: Numbers, labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy of logits ``(batch, classes)``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - chosen))


def _training_pass(native: Any, case: Case) -> dict[str, Numbers]:
    """Of the reference: the loss in training mode, and the running statistics behind that one pass."""
    leg = case.legs[0]
    loss = cross_entropy(native(leg.images, training=True, masks=leg.masks[0]), leg.labels)
    return {"loss:loss": np.asarray(loss), **_statistics(case, native.parameters)}


def _training(backend: Backend, case: Case, recipe: Recipe) -> dict[str, Numbers]:
    """Of every leg: the losses of all steps, parameters, statistics and optimiser state behind the last.

    And the running statistics behind the very first step, which the reference knows as well.
    """
    native = backend.build(case.model, case.legs[0].parameters, dtype=case.dtype)
    trainer = backend.trainer(native, recipe)
    kinds = ("velocity/",) * bool(recipe.momentum) + ("average/",) * bool(recipe.average)
    found: dict[str, Numbers] = {}
    for number, leg in enumerate(case.legs, start=1):
        backend.assign(native, leg.parameters)
        trainer.restore({name: value for name, value in leg.state.items() if name.startswith(kinds)})
        losses = []
        for step, (rate, masks) in enumerate(zip(leg.rates, leg.masks, strict=True), start=leg.begun):
            share = average_share(recipe, step)
            losses.append(float(trainer.step(leg.images, leg.labels, rate, masks=masks, share=share)))
            if number == len(losses) == 1:
                found |= _statistics(case, backend.parameters(native))
        tensors = {**backend.parameters(native), **trainer.state(), "losses": np.array(losses)}
        of_leg = f" ({number})" if len(case.legs) > 1 else ""
        found |= _named(recipe.name, {f"{name}{of_leg}": value for name, value in tensors.items()})
    return found


def _statistics(case: Case, values: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return _named("statistics", {name: values[name] for name in statistic_shapes(case.model)})


def _named(quantity: str, tensors: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return {f"{quantity}:{name}": value for name, value in tensors.items()}


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

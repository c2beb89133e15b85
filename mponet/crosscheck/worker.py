"""The answers of one backend: ``python -m mponet.crosscheck.worker BACKEND FOLDER...``.

Reads the case in each folder and writes ``BACKEND.safetensors`` and ``BACKEND.json``.  A tensor's
name is ``<quantity>:<name>``.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from mponet.backend import Backend, Numbers, load
from mponet.crosscheck.case import Case, Facts
from mponet.crosscheck.case import load as load_case
from mponet.crosscheck.margin import REFERENCE
from mponet.files import write_json
from mponet.models.shapes import statistic_shapes
from mponet.recipe import Recipe, average_share


def answers(backend: Backend, case: Case) -> dict[str, Numbers]:
    """All tensors that are compared, by ``<quantity>:<name>``.

    The reference gives those of forward passes.
    """
    first, masks = case.starts[0], case.starts[0].masks[0]
    native = backend.build(case.model, first.parameters, dtype=case.dtype)
    tensors = {"forward:logits": backend.predict(native, first.images)}
    if masks:
        tensors["dropout:logits"] = backend.predict(native, first.images, masks)
    if backend.name == REFERENCE:
        return tensors | _training_pass(native, case)
    loss, gradients = backend.gradients(native, first.images, first.labels, masks)
    tensors["loss:loss"] = np.asarray(loss, dtype=np.float64)
    tensors |= _named("gradients", gradients)
    for recipe in case.recipes:
        tensors |= _training(backend, case, recipe)
    return tensors


def cross_entropy(logits: Numbers, labels: NDArray[np.int64]) -> float:
    """Mean cross-entropy of logits ``(batch, classes)``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    chosen = shifted[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - chosen))


def _training_pass(native: Any, case: Case) -> dict[str, Numbers]:
    """The loss of the reference in training mode, and the running statistics after that pass."""
    start_state = case.starts[0]
    loss = cross_entropy(native(start_state.images, training=True, masks=start_state.masks[0]), start_state.labels)
    return {"loss:loss": np.asarray(loss), **_statistics(case, native.parameters)}


def _training(backend: Backend, case: Case, recipe: Recipe) -> dict[str, Numbers]:
    """Losses of all steps and the values after the last step, for every start state.

    The values are parameters, statistics and optimiser state.

    Also the running statistics after the first step, which the reference computes as well.
    """
    native = backend.build(case.model, case.starts[0].parameters, dtype=case.dtype)
    trainer = backend.trainer(native, recipe)
    kinds = ("velocity/",) * bool(recipe.momentum) + ("average/",) * bool(recipe.average)
    found: dict[str, Numbers] = {}
    for number, start_state in enumerate(case.starts, start=1):
        backend.assign(native, start_state.parameters)
        trainer.restore({name: value for name, value in start_state.state.items() if name.startswith(kinds)})
        losses = []
        for step, (rate, masks) in enumerate(
            zip(start_state.rates, start_state.masks, strict=True), start=start_state.first_step
        ):
            share = average_share(recipe, step)
            losses.append(float(trainer.step(start_state.images, start_state.labels, rate, masks=masks, share=share)))
            if number == len(losses) == 1:
                found |= _statistics(case, backend.parameters(native))
        tensors = {**backend.parameters(native), **trainer.state(), "losses": np.array(losses)}
        suffix = f" ({number})" if len(case.starts) > 1 else ""
        found |= _named(recipe.name, {f"{name}{suffix}": value for name, value in tensors.items()})
    return found


def _statistics(case: Case, values: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return _named("statistics", {name: values[name] for name in statistic_shapes(case.model)})


def _named(quantity: str, tensors: Mapping[str, Numbers]) -> dict[str, Numbers]:
    return {f"{quantity}:{name}": value for name, value in tensors.items()}


def main(name: str, folders: Sequence[Path]) -> None:
    """Read the tasks, compute the answers and write them."""
    backend = load(name)
    facts = Facts(backend.versions(), backend.devices()[0])
    for folder in folders:
        found = answers(backend, load_case(folder))
        save_file({key: np.ascontiguousarray(value) for key, value in found.items()}, folder / f"{name}.safetensors")
        write_json(folder / f"{name}.json", asdict(facts))


if __name__ == "__main__":
    main(sys.argv[1], [Path(folder) for folder in sys.argv[2:]])

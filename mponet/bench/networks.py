"""Times of both variants of a network: training steps and inference, as in a run."""

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np

from mponet.backend import Backend, load
from mponet.bench.layers import bench_of
from mponet.bench.rounds import ROUNDS, interleave
from mponet.bench.rows import Network
from mponet.bench.statistics import Summary
from mponet.bench.verdict import mark
from mponet.errors import DivergedError
from mponet.models import PAPER_VARIANTS, build
from mponet.models.dropout import dropout_layers, sample_masks
from mponet.models.init import start
from mponet.models.shapes import parameter_count
from mponet.models.spec import Model
from mponet.recipe import Recipe

#: Small enough that no network diverges; the rate does not change the time.
RATE = 1e-3
RECIPE = Recipe("bench", 1, 1, RATE, momentum=0.9, nesterov=True, weight_decay=2e-4)
PASSES = ("step", "inference")


def measure(backend: str, network: Network, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Times of both variants, as data for JSON."""
    adapter = load(backend)
    models = {kind: build(network.model, kind, network.bond if kind == "mpo" else None) for kind in PAPER_VARIANTS}
    steps = {kind: _step(adapter, model, network.batch) for kind, model in models.items()}
    logits = {kind: _inference(adapter, model, network.batch) for kind, model in models.items()}
    times = {
        which: interleave(calls, rounds, always=PAPER_VARIANTS)
        for which, calls in zip(PASSES, (steps, logits), strict=True)
    }
    entry: dict[str, Any] = {
        "backend": backend,
        "network": network.name,
        "model": network.model,
        "bond": network.bond,
        "batch": network.batch,
        "rounds": rounds,
        **bench_of(backend).settings(),
        "versions": adapter.versions(),
        "parameters": {kind: parameter_count(model) for kind, model in models.items()},
        "targets": {"step": network.step, "inference": network.inference},
    }
    for which in PASSES:
        entry[which] = {kind: Summary.of(times[which][kind]).as_dict() for kind in PAPER_VARIANTS}
        ratio, least = (entry[which]["mpo"][figure] / entry[which]["dense"][figure] for figure in ("median", "minimum"))
        noise = max(entry[which][kind]["spread"] for kind in PAPER_VARIANTS)
        verdict = mark(ratio, least, entry["targets"][which], noise)
        entry[which] |= {"ratio": ratio, "ratio_of_minima": least, "mark": verdict, "spread": noise}
    return entry


def _step(adapter: Backend, model: Model, batch: int) -> Callable[[], float]:
    """A training step on a fixed batch and fixed dropout masks.

    They are fixed because a run prepares both in another thread.
    """
    images, labels = _examples(model, batch)
    trainer = adapter.trainer(adapter.build(model, start(model, 0)), RECIPE)
    masks = sample_masks(dropout_layers(model), batch, 0, 0)

    def step() -> float:
        loss = float(trainer.step(images, labels, RATE, masks=masks))  # reading it waits for the computation
        if not isfinite(loss):
            raise DivergedError(f"the loss of {model.name} is {loss}; expected a finite number")
        return loss

    return step


def _inference(adapter: Backend, model: Model, batch: int) -> Callable[[], Any]:
    """The logits of one batch, by a separate model that stays in inference mode."""
    images, _ = _examples(model, batch)
    native = adapter.build(model, start(model, 0))
    return lambda: adapter.predict(native, images)


def _examples(model: Model, batch: int) -> tuple[Any, Any]:
    """Normally distributed images, and labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, *model.input_shape)).astype(np.float32), rng.integers(0, 10, batch)

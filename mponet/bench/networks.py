"""A network with operators against its normal twin: training steps and inference, as a run makes them."""

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
from mponet.models import VARIANTS, build
from mponet.models.dropout import dropout_layers, sample_masks
from mponet.models.init import start
from mponet.models.shapes import parameter_count
from mponet.models.spec import Model
from mponet.recipe import Recipe

#: Takes as long as any other rate, and nothing diverges from whatever start.
RATE = 1e-3
RECIPE = Recipe("bench", 1, 1, RATE, momentum=0.9, nesterov=True, weight_decay=2e-4)
PASSES = ("step", "inference")


def measure(backend: str, network: Network, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Times of both variants, as data for JSON."""
    adapter = load(backend)
    models = {kind: build(network.model, kind, network.bond if kind == "mpo" else None) for kind in VARIANTS}
    steps = {kind: _step(adapter, model, network.batch) for kind, model in models.items()}
    logits = {kind: _inference(adapter, model, network.batch) for kind, model in models.items()}
    times = {
        which: interleave(calls, rounds, always=VARIANTS) for which, calls in zip(PASSES, (steps, logits), strict=True)
    }
    found: dict[str, Any] = {
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
        found[which] = {kind: Summary.of(times[which][kind]).as_dict() for kind in VARIANTS}
        ratio, least = (found[which]["mpo"][figure] / found[which]["dense"][figure] for figure in ("median", "minimum"))
        noise = max(found[which][kind]["spread"] for kind in VARIANTS)
        verdict = mark(ratio, least, found["targets"][which], noise)
        found[which] |= {"ratio": ratio, "ratio_of_minima": least, "mark": verdict, "spread": noise}
    return found


def _step(adapter: Backend, model: Model, batch: int) -> Callable[[], float]:
    """A training step on one batch that is there already, masks of dropouts too: they are made ahead of their step."""
    images, labels = _examples(model, batch)
    trainer = adapter.trainer(adapter.build(model, start(model, 0)), RECIPE)
    masks = sample_masks(dropout_layers(model), batch, 0, 0)

    def step() -> float:
        loss = float(trainer.step(images, labels, RATE, masks=masks))  # read, so that nothing is left to be computed
        if not isfinite(loss):
            raise DivergedError(f"the loss of {model.name} is {loss}; expected a finite number")
        return loss

    return step


def _inference(adapter: Backend, model: Model, batch: int) -> Callable[[], Any]:
    """The logits of one batch, by a model of its own that stays in inference mode."""
    images, _ = _examples(model, batch)
    native = adapter.build(model, start(model, 0))
    return lambda: adapter.predict(native, images)


def _examples(model: Model, batch: int) -> tuple[Any, Any]:
    """Images like normalised ones, and labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, *model.input_shape)).astype(np.float32), rng.integers(0, 10, batch)

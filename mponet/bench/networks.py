"""Times of both variants of a network: training steps and inference, as in a run."""

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np

from mponet.backend import Backend, load
from mponet.bench.layers import Bench, bench_of
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
#: A training step as in a run; one of the compiled network, where the framework does not compile
#: anyway; logits; and logits of the network after ``freeze``.
PASSES = ("step", "compiled step", "inference", "frozen inference")


def measure(backend: str, network: Network, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Times of both variants, as data for JSON."""
    adapter = load(backend)
    models = {kind: build(network.model, kind, network.bond if kind == "mpo" else None) for kind in PAPER_VARIANTS}
    calls: dict[str, dict[str, Callable[[], Any]]] = {which: {} for which in PASSES}
    for kind, model in models.items():
        for which, call in _calls(adapter, bench_of(backend), model, network.batch).items():
            calls[which][kind] = call
    wanted = {which: network.target(which) for which in PASSES if calls[which]}
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
        "targets": wanted,
    }
    for which, target in wanted.items():
        times = interleave(calls[which], rounds, always=PAPER_VARIANTS)
        entry[which] = {kind: Summary.of(times[kind]).as_dict() for kind in PAPER_VARIANTS}
        ratio, least = (entry[which]["mpo"][figure] / entry[which]["dense"][figure] for figure in ("median", "minimum"))
        noise = max(entry[which][kind]["spread"] for kind in PAPER_VARIANTS)
        entry[which] |= {"ratio": ratio, "ratio_of_minima": least, "mark": mark(ratio, least, target, noise)}
        entry[which]["spread"] = noise
    return entry


def _calls(adapter: Backend, bench: Bench, model: Model, batch: int) -> dict[str, Callable[[], Any]]:
    """The passes of a network, each of a model of its own."""

    def native() -> Any:
        return adapter.build(model, start(model, 0))

    compiled = bench.compiled(native())
    steps = {"step": native(), **({} if compiled is None else {"compiled step": compiled})}
    logits = {"inference": native(), "frozen inference": bench.frozen(native())}
    return {
        **{which: _step(adapter, one, model, batch) for which, one in steps.items()},
        **{which: _inference(adapter, one, model, batch) for which, one in logits.items()},
    }


def _step(adapter: Backend, native: Any, model: Model, batch: int) -> Callable[[], float]:
    """A training step on a fixed batch and fixed dropout masks.

    They are fixed because a run prepares both in another thread.
    """
    images, labels = _examples(model, batch)
    trainer = adapter.trainer(native, RECIPE)
    masks = sample_masks(dropout_layers(model), batch, 0, 0)

    def step() -> float:
        loss = float(trainer.step(images, labels, RATE, masks=masks))  # reading it waits for the computation
        if not isfinite(loss):
            raise DivergedError(f"the loss of {model.name} is {loss}; expected a finite number")
        return loss

    return step


def _inference(adapter: Backend, native: Any, model: Model, batch: int) -> Callable[[], Any]:
    """The logits of one batch."""
    images, _ = _examples(model, batch)
    return lambda: adapter.predict(native, images)


def _examples(model: Model, batch: int) -> tuple[Any, Any]:
    """Normally distributed images, and labels."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, *model.input_shape)).astype(np.float32), rng.integers(0, 10, batch)

"""One of the processes of a group: trains small networks with it, and writes what came out.

    python tests/group_run.py BACKEND FILE STEPS [time] [shard] [change] [bytes]

The environment says which process this is; process 0 writes FILE.
With ``time``, the seconds of the steps after the first few are in it, too.
With ``shard``, each process keeps a share of the parameters; with ``change``, it does so from the
second third of the steps to the last, and goes on from checkpoints.  With ``bytes``, TensorFlow
also tells how many bytes its graph sums in a step.
"""

import os
import subprocess
import sys
from dataclasses import replace
from time import perf_counter

import numpy as np

from mponet.backend import load
from mponet.models.dropout import dropout_layers, sample_masks
from mponet.models.init import start
from mponet.models.miniatures import networks
from mponet.recipe import Recipe
from mponet.training.launch import group_environments

BATCH = 16
WARM = 5  # steps before the time is taken
RECIPE = Recipe("test", 50, BATCH, 0.05, momentum=0.9, weight_decay=1e-3, clip=1.0, average=0.9)
SHARDED = ("fc2", "densenet-small")  # plain; with batch norm and dropout
NAMES = (*SHARDED, "vgg-small")


def models(options=()):
    """Dense and MPO."""
    names = SHARDED if {"shard", "change"} & {*options} else NAMES
    for variant in ("dense", "mpo"):
        for model in networks(variant):
            if model.name in names:
                yield f"{model.name}/{variant}", model


def summed_bytes(trainer, *arguments):
    """The bytes that TensorFlow's graph of a step sums over the processes."""
    graph = trainer.compiled.get_concrete_function(*arguments).graph
    inputs = [one.inputs[0] for one in graph.get_operations() if one.type.startswith("CollectiveReduce")]
    return np.array(sum(value.shape.num_elements() * value.dtype.size for value in inputs))


def resumed(backend, model, native, trainer, group):
    """A model and a trainer as a checkpoint gives them back, with or without shares."""
    values, state = backend.parameters(native), trainer.state()
    native = backend.build(model, values, dtype="float64")
    trainer = backend.trainer(native, RECIPE, group)
    trainer.restore(state)
    return native, trainer


def trained(backend, group, steps, options):
    """Parameters, losses and logits of all models after some steps."""
    found = {}
    for name, model in models(options):
        values = start(model, 0)
        native = backend.build(model, values, dtype="float64")
        trainer = backend.trainer(native, RECIPE, group)
        rng, losses, began = np.random.default_rng(0), [], 0.0
        for step in range(steps):
            images = rng.normal(size=(BATCH, *model.input_shape))
            labels = rng.integers(0, 10, BATCH)
            masks = sample_masks(dropout_layers(model), BATCH, 0, step)
            rows = slice(group.rank * BATCH // group.count, (group.rank + 1) * BATCH // group.count)
            mine = tuple(mask[rows] for mask in masks)
            if "change" in options and step in (steps // 3, 2 * steps // 3):
                now = replace(group, sharded=step == steps // 3)
                native, trainer = resumed(backend, model, native, trainer, now)
            if step == WARM:
                float(losses[-1])
                began = perf_counter()
            losses.append(trainer.step(images[rows], labels[rows], 0.05, masks=mine, share=0.5))
        if "bytes" in options:
            arrays = images[rows], labels[rows], np.float64(0.05), np.float64(0.5), mine
            found[f"{name}:bytes"] = summed_bytes(trainer, *arrays)
        if "time" in options:
            float(losses[-1])
            found[f"{name}:seconds"] = np.array(perf_counter() - began)
        found[f"{name}:losses"] = np.array([float(loss) for loss in losses])
        found |= {f"{name}:{key}": value for key, value in backend.parameters(native).items()}
        found |= {f"{name}:{key}": value for key, value in trainer.state().items()}
        found[f"{name}:logits"] = backend.predict(native, images)
    return found


def processes(backend, count, command):
    """Start a command as the processes of a group."""
    path = os.pathsep.join(filter(None, sys.path))
    common = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "JAX_ENABLE_X64": "1"}
    several = group_environments(backend, count) if count > 1 else [{}]
    return [
        subprocess.Popen(
            [sys.executable, *command], env=common | own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for own in several
    ]


def main(name, file, steps, *rest):
    """Join the group, train, and write."""
    backend = load(name)
    group = replace(backend.group(), sharded="shard" in rest)
    with group.losing():
        found = trained(backend, group, int(steps), rest)
        group.wait()
    if group.leads:
        np.savez(file, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])

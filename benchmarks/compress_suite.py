"""The paper's question asked the other way round: its operators compressed from trained networks.

FC2 and LeNet-5 are trained dense on MNIST, then their layers become the operators of the paper,
with its factors and bonds, and low rank at the same number of weights.  Each is measured one shot
and after distillation from the dense network.  ``mponet suite --variants mpo,low-rank`` trains the
same operators from scratch.  Run from the root of the repository::

    python benchmarks/compress_suite.py --epochs 8
"""

import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from cells import Cells, parser

from mponet import load as load_backend
from mponet.compress import CompressConfig, Override
from mponet.models import build
from mponet.models.shapes import compression_ratio, operators
from mponet.training.checkpoint import load as load_checkpoint
from mponet.training.data import load as load_data
from mponet.training.data.dataset import fit, scaled
from mponet.training.run import resolve, run
from mponet_torch.compression import compress

FC2_BONDS = (4, 16, 2, 8, 22)
BATCH = 200


def trained(name, dataset, epochs, folder):
    """The dense network as a torch module, trained in a folder or loaded from it."""
    backend = load_backend("torch")
    settings = resolve(name, data=dataset.name, images=len(dataset.train_images), epochs=epochs)
    path = folder / f"{name}-{dataset.name}-{epochs}"
    result = run(settings, backend, dataset, path, variants=("dense",), resume=True)["dense"]
    checkpoint = load_checkpoint(Path(result.checkpoint))
    return backend.build(checkpoint.model, checkpoint.parameters).eval()


def batches(dataset, model, seed=0):
    """Training images as the module takes them, in a random order."""
    images = scaled(fit(dataset, model.input_shape).train_images)
    order = np.random.default_rng(seed).permutation(len(images))
    return [torch.from_numpy(images[rows]).permute(0, 3, 1, 2) for rows in order.reshape(-1, BATCH)]


def accuracy(module, dataset, model):
    """Share of the test images."""
    test = torch.from_numpy(scaled(fit(dataset, model.input_shape).test_images)).permute(0, 3, 1, 2)
    module.eval()
    with torch.inference_mode():
        found = torch.cat([module(part).argmax(1) for part in test.split(1000)])
    return float((found == torch.tensor(dataset.test_labels)).double().mean())


def given(model):
    """The config that makes the operators of a network of the suite."""
    overrides = {
        rf"(.*\.)?{re.escape(one.name)}": Override(
            input_dims=one.shape.input_dims, output_dims=one.shape.output_dims, bond=one.shape.bond_dims[1:-1]
        )
        for one in operators(model)
    }
    return CompressConfig(keep=1.0, include="|".join(overrides), overrides=overrides, min_weights=0)


def distilled(student, teacher, data, epochs, rate):
    """Heal for so many epochs."""
    from mponet.compress import HealConfig
    from mponet_torch import heal

    config = HealConfig(steps=epochs * len(data), learning_rate=rate, log_every=len(data))
    return heal(student, teacher, data, config)


def main():
    """Measure every network, bond and structure."""
    options = parser(__doc__, "compress-suite")
    options.add_argument("--epochs", type=int, default=8, help="of the dense network's training")
    options.add_argument("--heal-epochs", type=int, default=8)
    options.add_argument("--bonds", type=int, nargs="+", default=list(FC2_BONDS), help="of FC2")
    options.add_argument("--rate", type=float, default=3e-3)
    options.add_argument("--folder", type=Path, default=Path("runs/compress-suite"))
    options = options.parse_args()
    cells = Cells(
        options,
        {
            "benchmark": "compress-suite",
            "epochs": options.epochs,
            "heal_epochs": options.heal_epochs,
            "learning_rate": options.rate,
            "data": "mnist",
        },
    )
    dataset = load_data("mnist")

    for name, bonds in (("fc2", options.bonds), ("lenet5", (None,))):
        dense = trained(name, dataset, options.epochs, options.folder)
        model = build(name, "dense")
        cells.measure(f"{name} dense", lambda d=dense, m=model: {"accuracy": accuracy(d, dataset, m)})
        data = batches(dataset, model)
        for bond in bonds:
            for variant in ("mpo", "low-rank"):

                def measured(dense=dense, data=data, name=name, bond=bond, variant=variant):
                    target = build(name, variant, bond)
                    small, report = compress(dense, given(target), data[:25])
                    found = {
                        "weights": sum(one.shape.parameters for one in operators(target)),
                        "rho": compression_ratio(target),
                        "one_shot": accuracy(small, dataset, target),
                        "output_errors": dict(report.output_errors),
                    }
                    student = deepcopy(small)
                    healing = distilled(student, dense, data, options.heal_epochs, options.rate)
                    return found | {"healed": accuracy(student, dataset, target), "heal_seconds": healing.seconds}

                cells.measure(f"{name} {bond or 'published'} {variant}", measured)


if __name__ == "__main__":
    main()

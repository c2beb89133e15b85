"""Low rank against operators of two and three sites, one shot and healed: where do they cross?

Every network is compressed to the same share of its weights by each structure, fitted to the
covariance of its inputs, every layer to the same share.  It is then distilled from the original for
the same number of steps, and for as many steps as take the time of low rank's.  Step times are of
the processor with one thread, so that other work on the machine does not count.  ``plan`` is what
a config with ``heal=True`` chooses, layer by layer.  Run from the root of the repository, with
``MPONET_DATA`` naming the folder of MNIST::

    python benchmarks/compress_structures.py --networks lenet5 transformer minilm fc2
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import torch
from cells import Cells, parser
from compress_suite import accuracy, batches, trained
from torch import nn
from uniform import uniform_config

from mponet.compress import CompressConfig, HealConfig
from mponet.models import build
from mponet.training.data import load as load_data
from mponet_torch import heal
from mponet_torch.compression import calibrate, compress

KEEPS = (0.5, 0.3, 0.1, 0.03)
STRUCTURES = {"low-rank": None, "2 sites": 2, "3 sites": 3}
PLAN = "plan"
#: Steps that are timed.
TIMED_STEPS = 6


@dataclass(frozen=True)
class Network:
    """A trained network with what healing and judging it takes.

    Attributes:
        model: the module.
        data: batches for calibration and healing.
        quality: what a module of its kind reaches, the larger the better.
        steps: of healing.
        rate: learning rate of healing.
        include: names of the layers.
        options: further options of `HealConfig`.
    """

    model: nn.Module
    data: list[Any]
    quality: Callable[[nn.Module], float]
    steps: int
    rate: float
    include: str | None = None
    options: dict[str, Any] | None = None


# ---------------------------------------------------------------- the networks


def suite_network(name, folder):
    """A network of the suite on MNIST."""
    dataset, model = load_data("mnist"), build(name, "dense")
    dense = trained(name, dataset, 8, folder)
    return Network(dense, batches(dataset, model), lambda m: accuracy(m, dataset, model), 200, 3e-3)


class Block(nn.Module):
    """Attention and feed-forward, normalised before."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        """Causal attention."""
        batch, length, width = x.shape
        normed = self.norm1(x)
        parts = [
            layer(normed).view(batch, length, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        ]
        mixed = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Predicts the next byte."""

    def __init__(self, width=128, depth=2, heads=4, context=64):
        super().__init__()
        self.table, self.position = nn.Embedding(256, width), nn.Parameter(0.02 * torch.randn(context, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256, bias=False)

    def forward(self, tokens):
        """Logits of the bytes that follow."""
        return self.head(self.norm(self.blocks(self.table(tokens) + self.position[: tokens.shape[1]])))


def transformer(folder):
    """A transformer of half a million weights, trained here on half of Python's help topics."""
    from pydoc_data.topics import topics

    entries = [topics[name] for name in sorted(topics)]
    learnt, held_out = (
        torch.tensor(list("\n".join(part).encode()), dtype=torch.long) for part in (entries[0::2], entries[1::2])
    )
    context, count = 64, 32

    def windows(text, number, seed):
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(0, len(text) - context - 1, (number * count,), generator=generator)
        return list(torch.stack([text[s : s + context + 1] for s in starts]).split(count))

    torch.manual_seed(0)
    model, path = Transformer(), folder / "transformer.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
        steps = windows(learnt, 700, 0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=len(steps))
        for batch in steps:
            loss = nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    judged = windows(held_out, 6, 1)

    def quality(module):
        with torch.inference_mode():
            losses = [
                nn.functional.cross_entropy(module.eval()(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
                for batch in judged
            ]
        return -float(torch.stack(losses).mean())

    data = [batch[:, :-1] for batch in windows(learnt, 150, 2)]
    return Network(model.eval(), data, quality, 150, 2e-3, include=r"blocks\..*")


def sentence_encoder(_):
    """MiniLM-L6, judged by Lee's documents."""
    from compress_minilm import ENCODER, quality, texts
    from pretrained import minilm

    model, tokenizer = minilm()
    chosen = texts(1)
    data = [
        dict(tokenizer(chosen[k : k + 8], padding=True, truncation=True, max_length=48, return_tensors="pt"))
        for k in range(0, 480, 8)
    ]
    hidden = {"objective": "mse", "hidden": tuple(f"encoder.layer.{k}" for k in range(5))}
    return Network(model, data, lambda m: quality(m.eval(), tokenizer)["lee"], 40, 1e-3, ENCODER, hidden)


NETWORKS = {
    "lenet5": lambda folder: suite_network("lenet5", folder),
    "transformer": transformer,
    "minilm": sentence_encoder,
    "fc2": lambda folder: suite_network("fc2", folder),
}


# ---------------------------------------------------------------- one cell


def step_seconds(student, network):
    """Processor time of a step of healing, after a first one."""
    options = network.options or {}
    copy = deepcopy(student)
    heal(copy, network.model, network.data[:2], HealConfig(steps=2, **options))
    began = process_time()
    heal(copy, network.model, network.data[:4], HealConfig(steps=TIMED_STEPS, log_every=10**6, **options))
    return (process_time() - began) / (TIMED_STEPS)


def healed(student, network, steps):
    """Quality and loss of a copy after so many steps."""
    copy = deepcopy(student)
    options = network.options or {}
    report = heal(copy, network.model, network.data, HealConfig(steps=steps, learning_rate=network.rate, **options))
    return {"steps": steps, "quality": network.quality(copy), "loss": report.after}


def planned(network, keep):
    """What a plan that knows of the healing reaches, and the structures that it chooses."""
    config = CompressConfig(keep=keep, include=network.include, heal=True)
    small, report = compress(network.model, config, network.data[:20])
    chosen = [layer.layout.structure for layer in report.plan.replaced]
    return {
        "keep": report.plan.keep,
        "one_shot": network.quality(small),
        "steps": healed(small, network, network.steps),
        "structures": {name: chosen.count(name) for name in sorted(set(chosen))},
    }


def main():
    """Measure every network, share and structure."""
    options = parser(__doc__, "compress-structures")
    options.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    options.add_argument("--folder", type=Path, default=Path("runs/compress-suite"))
    options = options.parse_args()
    torch.set_num_threads(1)
    cells = Cells(options, {"benchmark": "compress-structures"})
    for name in options.networks:
        if not cells.wants(*(f"{name} {keep} {structure}" for keep in KEEPS for structure in (*STRUCTURES, PLAN))):
            continue
        network = NETWORKS[name](options.folder)
        cells.measure(f"{name} dense", lambda n=network: {"quality": n.quality(n.model)})
        plain = CompressConfig(keep=0.5, include=network.include, allocation="uniform", metric="covariance")
        sums = calibrate(network.model, plain, network.data[:20])
        for keep in KEEPS:
            for structure, sites in STRUCTURES.items():

                def measured(keep=keep, structure=structure, sites=sites, network=network, sums=sums, name=name):
                    small, report = compress(
                        network.model, uniform_config(network.model, keep, sites, include=network.include), sums
                    )
                    seconds = step_seconds(small, network)
                    found = {
                        "keep": report.plan.keep,
                        "one_shot": network.quality(small),
                        "step_seconds": seconds,
                        "steps": healed(small, network, network.steps),
                    }
                    base = cells.figures.get(f"{name} {keep} low-rank")
                    if sites is not None and base:
                        steps = max(round(network.steps * base["step_seconds"] / seconds), 1)
                        found["time"] = healed(small, network, steps)
                    return found

                cells.measure(f"{name} {keep} {structure}", measured)
            cells.measure(f"{name} {keep} {PLAN}", lambda network=network, keep=keep: planned(network, keep))


if __name__ == "__main__":
    main()

"""Bits per byte of a flax.nnx transformer after compression, one shot and healed.

The model reads bytes, and is trained here from scratch, in some minutes on two cores: on every
other topic of ``pydoc_data.topics`` (a part of Python) and on the news of ``lee_background.cor``
(in the package ``gensim``, ``pip install --no-deps gensim``).  The other topics and the news of
``lee.cor`` are held out.  Compression and healing see the topics only, so the news show what that
costs elsewhere.  Run from the root of the repository::

    python benchmarks/compress_flax.py --weights /tmp/flax.safetensors
"""

from importlib.util import find_spec
from math import log
from pathlib import Path
from time import perf_counter

import jax.numpy as jnp
import numpy as np
import optax
from cells import Cells, parser
from flax import nnx
from safetensors.flax import load_file, save_file

from mponet.compress import CompressConfig, HealConfig
from mponet_jax import calibrate, compress, heal

WIDTH, HEADS, DEPTH, CONTEXT, BYTES = 128, 4, 4, 128, 128
BATCH, HELD_OUT = 16, 256  # windows
STRUCTURES = {"low rank": ("low-rank",), "MPO": ("mpo",), "balanced MPO": ("balanced",)}


class Block(nnx.Module):
    """Attention and two linear layers, each on the normalised sum so far."""

    def __init__(self, rngs):
        self.before, self.between = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs), nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x, mask):
        """The sum after the block."""
        x = x + self.attention(self.before(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.between(x))))


class Transformer(nnx.Module):
    """Logits of the next byte; the table of the bytes is the head, too."""

    def __init__(self, rngs):
        self.bytes, self.places = nnx.Embed(BYTES, WIDTH, rngs=rngs), nnx.Embed(CONTEXT, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(DEPTH)])
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)

    def __call__(self, tokens):
        """Logits ``(..., length, bytes)``."""
        x = self.bytes(tokens) + self.places(jnp.arange(tokens.shape[-1]))
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.bytes.attend(self.norm(x))


def loss_of(logits, windows):
    """Mean loss of the bytes that follow."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:]).mean()


def summed_loss(logits, tokens):
    """The summed loss of the bytes that follow within the windows."""
    return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:]).sum()


def windows_of(text):
    """Rows of one byte more than the context."""
    data = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int32)
    return data[: len(data) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1)


def texts():
    """Windows to train on, of topics and of all, and held-out ones by domain."""
    from pydoc_data.topics import topics

    spec = find_spec("gensim")
    if spec is None or spec.origin is None:
        raise SystemExit("gensim is missing; pip install --no-deps gensim, for the texts in its test data")
    folder = Path(spec.origin).parent / "test" / "test_data"
    news, held = (windows_of((folder / name).read_text("latin-1")) for name in ("lee_background.cor", "lee.cor"))
    entries = [topics[name] for name in sorted(topics)]
    known, other = (windows_of("\n".join(entries[k::2])) for k in range(2))
    rng = np.random.default_rng(0)
    some = {name: rng.permutation(w)[:HELD_OUT] for name, w in (("topics", other), ("news", held))}
    return known, np.concatenate([known, news]), some


def trained(windows, steps, path):
    """The model, trained on windows or read from a file."""
    model = Transformer(nnx.Rngs(0))
    if path and path.exists():
        state = nnx.state(model)
        for name, variable in nnx.to_flat_state(state):
            variable.set_value(load_file(path)[".".join(map(str, name))])
        return model
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 20 + 1, steps)
    optimizer = nnx.Optimizer(model, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, batch):
        loss, gradients = nnx.value_and_grad(lambda model: loss_of(model(batch[:, :-1]), batch))(model)
        optimizer.update(model, gradients)
        return loss

    rng, began = np.random.default_rng(1), perf_counter()
    for number in range(steps):
        loss = step(model, optimizer, windows[rng.integers(0, len(windows), BATCH)])
        if number % 100 == 99:
            print(f"step {number + 1} of {steps}: loss {float(loss):.3f}, {perf_counter() - began:.0f} s", flush=True)
    if path:
        save_file({".".join(map(str, n)): v[...] for n, v in nnx.to_flat_state(nnx.state(model))}, path)
    return model


@nnx.jit
def _total(model, batch):
    return loss_of(model(batch[:, :-1]), batch)


def bits(model, held_out):
    """Bits per byte of each domain."""
    means = {}
    for name, windows in held_out.items():
        losses = [_total(model, windows[k : k + BATCH]) for k in range(0, len(windows) - BATCH + 1, BATCH)]
        means[name] = float(np.mean(losses)) / log(2)
    return means


def measured(model, teacher, held_out, batches, steps):
    """Bits per byte of a compressed model, and after healing."""
    found = {"one_shot": bits(model, held_out)}
    if steps:
        began = perf_counter()
        heal(model, teacher, batches, HealConfig(steps=steps, learning_rate=1e-3))
        found |= {"healed": bits(model, held_out), "heal_seconds": perf_counter() - began}
    return found


def main():
    """Measure every budget and structure."""
    made = parser(__doc__, "compress-flax")
    made.add_argument("--steps", type=int, default=1200, help="of training")
    made.add_argument("--keep", type=float, nargs="+", default=[0.5, 0.25])
    made.add_argument("--heal", type=int, default=300, help="steps of healing; 0 for none")
    made.add_argument("--weights", type=Path, help="file of the trained model; read if it exists, else written")
    options = made.parse_args()
    cells = Cells(options, {"benchmark": "compress-flax", "steps": options.steps, "heal_steps": options.heal})
    names = {f"{keep} {name}": (keep, name) for keep in options.keep for name in STRUCTURES}
    if not cells.wants("dense", *names):
        return
    topics, every, held_out = texts()
    model = trained(every, options.steps, options.weights)
    cells.measure("dense", lambda: bits(model, held_out))
    rng = np.random.default_rng(2)
    batches = [topics[rng.integers(0, len(topics), BATCH), :-1] for _ in range(64)]
    common = {"min_weights": 1, "exclude": ["places"]}
    sums = calibrate(model, CompressConfig(keep=0.5, **common), batches, loss=summed_loss)

    def cell(keep, name):
        config = CompressConfig(keep=keep, structures=STRUCTURES[name], **common)
        small, report = compress(model, config, sums)
        return {"keep": report.plan.keep, **measured(small, model, held_out, batches, options.heal)}

    for label, (keep, name) in names.items():
        cells.measure(label, lambda keep=keep, name=name: cell(keep, name))


if __name__ == "__main__":
    main()

"""A transformer of operators in flax.nnx: scan, remat and `jax.shard_map` over four devices."""

import os
import subprocess
import sys

import pytest

if "jax" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name jax", allow_module_level=True)

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P
from mponet_jax import MPOEmbed, MPOLinear

DEPTH, WIDTH, VOCABULARY = 3, 16, 29
options = {"param_dtype": jnp.float64}


class Block(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = (nnx.LayerNorm(WIDTH, rngs=rngs, **options) for _ in range(2))
        self.attention = MPOLinear((4, 4), (8, 6), 4, rngs=rngs, **options)
        self.output = MPOLinear((4, 4), (4, 4), 4, rngs=rngs, **options)
        self.up = MPOLinear(WIDTH, 31, 4, rngs=rngs, **options)  # padded
        self.down = MPOLinear(31, WIDTH, 4, rngs=rngs, **options)

    def __call__(self, x):
        query, key, value = jnp.split(self.attention(self.first(x)), 3, -1)
        scores = jax.nn.softmax(query @ key.swapaxes(-1, -2) / 4)
        x = x + self.output(scores @ value)
        return x + self.down(nnx.gelu(self.up(self.second(x))))


class Transformer(nnx.Module):
    def __init__(self, rngs):
        self.embed = MPOEmbed(VOCABULARY, WIDTH, 4, rngs=rngs, **options)
        self.blocks = nnx.split_rngs(splits=DEPTH)(nnx.vmap(Block, in_axes=0, out_axes=0))(rngs)

    def __call__(self, tokens):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        @nnx.remat
        def run(block, x):
            return block(x)

        return self.embed.attend(run(self.blocks, self.embed(tokens)))


def plain(model, tokens):
    \"\"\"Block after block, without scan and remat.\"\"\"
    x = model.embed(tokens)
    block_graph, stacked = nnx.split(model.blocks)
    for number in range(DEPTH):
        x = nnx.merge(block_graph, jax.tree.map(lambda part: part[number], stacked))(x)
    return model.embed.attend(x)


model = Transformer(nnx.Rngs(0))
graph, start = nnx.split(model)
tokens = jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY, (8, 7)))


def loss(call, state, tokens):
    logits = call(nnx.merge(graph, state), tokens[:, :-1])
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, 1:, None], -1).mean()


def alone(state, tokens):
    return jax.value_and_grad(lambda state: loss(plain, state, tokens))(state)


def scanned(state, tokens):
    return jax.value_and_grad(lambda state: loss(Transformer.__call__, state, tokens))(state)


mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


@jax.shard_map(mesh=mesh, in_specs=(P(), P("data")), out_specs=(P(), P()))
def shared(state, tokens):
    # gradients of what all devices hold are summed over them
    own, slopes = jax.value_and_grad(lambda state: loss(Transformer.__call__, state, tokens) / 4)(state)
    return jax.lax.psum(own, "data"), slopes


def trained(step):
    step, state, losses = jax.jit(step), start, []
    for _ in range(5):
        value, slopes = step(state, tokens)
        losses.append(float(value))
        state = jax.tree.map(lambda a, b: a - 0.3 * b, state, slopes)
    return losses, state


assert any(model.blocks.up.padding)
expected, last = trained(alone)
assert expected[-1] < expected[0]
for step in (scanned, shared):
    losses, state = trained(step)
    assert np.allclose(losses, expected, rtol=0, atol=1e-11), (step, losses, expected)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(last), strict=True):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-10), step
print("same")
"""


def test_scan_remat_and_four_devices_equal_plain_code_on_one():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_ENABLE_X64": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=400)
    assert run.stdout.strip() == "same", run.stderr[-2000:]

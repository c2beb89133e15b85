"""An MPO layer in JAX (flax.nnx): build it, train it under jit, convert it to a dense layer."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from mponet_jax import MPOLinear

layer = MPOLinear(784, 256, bond=16, rngs=nnx.Rngs(0))
print(layer)

keys = jax.random.split(jax.random.key(0))
inputs, targets = jax.random.normal(keys[0], (100, 784)), jax.random.normal(keys[1], (100, 256))
optimizer = nnx.Optimizer(layer, optax.adam(1e-2), wrt=nnx.Param)


@nnx.jit
def train(layer, optimizer, inputs, targets):
    """One training step; returns the loss before it."""
    loss, gradients = nnx.value_and_grad(lambda layer: jnp.mean((layer(inputs) - targets) ** 2))(layer)
    optimizer.update(layer, gradients)
    return loss


for step in range(51):
    loss = train(layer, optimizer, inputs, targets)
    if step % 25 == 0:
        print(f"step {step:2d}  loss {loss:.4f}")

dense = layer.to_dense()
difference = jnp.abs(dense(inputs) - layer(inputs)).max()
print(f"as nnx.Linear: largest difference {difference:.1e}")
assert difference < 1e-5

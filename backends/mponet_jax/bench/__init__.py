"""Implementations of a layer in this framework that `mponet bench` times."""

from typing import Any

import jax
from flax import nnx

from mponet.bench.implementation import DENSE, OURS, Implementation, Numbers
from mponet.contraction.machine import cores
from mponet.operators.mpo import MPO
from mponet_jax.bench.peers import PEERS
from mponet_jax.freezing import freeze
from mponet_jax.nn.linear import MPOLinear
from mponet_jax.ops.arrays import Array, to_numpy


class Passes:
    """A layer and a batch, as `mponet.bench.implementation.Passes`: under `jax.jit`."""

    def __init__(self, native: nnx.Module, inputs: Numbers, gradients: Numbers) -> None:
        self.inputs, self.gradients = jax.numpy.asarray(inputs), jax.numpy.asarray(gradients)
        graph, state = nnx.split(native)
        self.leaves, structure = jax.tree.flatten(state)

        def apply(leaves: list[Array], inputs: Array) -> Array:
            with jax.default_matmul_precision("highest"):  # a GPU rounds the factors to TF32 unless told not to
                outputs: Array = nnx.merge(graph, jax.tree.unflatten(structure, leaves))(inputs)
                return outputs

        def step(leaves: list[Array], inputs: Array, gradients: Array) -> tuple[Array, Any]:
            outputs, pull = jax.vjp(apply, leaves, inputs)
            return outputs, pull(gradients)  # outputs that nobody asks for would not be computed

        self._forward, self._step = jax.jit(apply), jax.jit(step)

    def forward(self) -> Array:
        """The outputs."""
        outputs: Array = jax.block_until_ready(self._forward(self.leaves, self.inputs))
        return outputs

    def step(self) -> tuple[Array, Any]:
        """The outputs, and the gradients by every parameter and by the inputs."""
        results: tuple[Array, Any] = jax.block_until_ready(self._step(self.leaves, self.inputs, self.gradients))
        return results

    def outputs(self) -> Numbers:
        """The outputs, numpy."""
        return to_numpy(self.forward())

    def compiled(self) -> Any:
        """The step as XLA compiled it."""
        return self._step.lower(self.leaves, self.inputs, self.gradients).compile()


def implementations() -> tuple[Implementation, ...]:
    """All implementations that are compared."""
    return (Implementation(DENSE, "dense", dense), Implementation(OURS, "ours", ours), *PEERS)


def settings() -> dict[str, Any]:
    """Number of threads and device."""
    # XLA takes a thread for every core that the process may run on, and does not say so
    return {"threads": cores(), "device": str(jax.devices()[0])}


def step_memory(passes: Passes) -> int:
    """Bytes that a step has in use at its peak beyond what was there before it, results included.

    XLA's own account.
    """
    found = passes.compiled().memory_analysis()
    return int(found.temp_size_in_bytes + found.output_size_in_bytes)


def compiled(native: nnx.Module) -> None:
    """Nothing: training steps always run under `jax.jit`."""
    del native


def frozen(native: nnx.Module) -> nnx.Module:
    """A network after `freeze`."""
    return freeze(native)[0]


def ours(mpo: MPO, bias: Numbers) -> nnx.Module:
    """Our layer."""
    return MPOLinear.from_mpo(mpo, bias)


def dense(mpo: MPO, bias: Numbers) -> nnx.Module:
    """The layer of flax with the same matrix."""
    layer: nnx.Module = MPOLinear.from_mpo(mpo, bias).to_dense()
    return layer

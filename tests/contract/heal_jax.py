"""What `tests.backends.test_heal` asks of JAX and flax.nnx."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from mponet.compress import CompressConfig
from mponet_jax import MPOConv, MPOLinear, compress, heal  # noqa: F401
from mponet_jax.compression.healing import NativeHealing
from mponet_jax.compression.streaming import named_modules
from mponet_jax.ops.arrays import to_numpy

#: What the data hold a whole pass of.
BATCHES = 12


class Network(nnx.Module):
    """A convolution, statistics, dropout, and two layers that are a matrix."""

    def __init__(self, rngs):
        options = {"param_dtype": jnp.float64, "rngs": rngs}
        self.first = nnx.Conv(3, 12, (3, 3), **options)
        self.norm = nnx.BatchNorm(12, **options)
        for statistic in (self.norm.mean, self.norm.var):  # which nnx keeps in float32
            statistic.set_value(statistic[...].astype(jnp.float64))
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.hidden = nnx.Linear(12 * 4, 30, **options)
        self.head = nnx.Linear(30, 5, **options)

    def __call__(self, maps):
        maps = nnx.max_pool(nnx.relu(self.norm(self.first(maps))), (4, 4), (4, 4))
        return self.head(nnx.relu(self.hidden(self.drop(maps.reshape(len(maps), -1)))))


def networks():
    """A compressed network and the original, float64, both in eval mode."""
    teacher = Network(nnx.Rngs(0))
    teacher.head.kernel.set_value(3 * teacher.head.kernel[...])  # logits that say something
    teacher.eval()
    config = CompressConfig(keep=0.5, min_weights=1, structures=("low-rank", "balanced", "window"))
    student, _ = compress(teacher, config, batches())
    assert isinstance(student.first, MPOConv) and isinstance(student.hidden, MPOLinear)
    return student, teacher


def batches():
    """Inputs of the networks."""
    return list(jnp.asarray(np.random.default_rng(1).normal(size=(BATCHES, 16, 8, 8, 3))))


def copied(network):
    """A network with parameters of its own."""
    return nnx.clone(network)


def arrays(network):
    """Parameters, statistics and random streams by name."""
    found = nnx.to_flat_state(nnx.state(network, nnx.Not(nnx.RngKey)))
    return {".".join(map(str, path)): to_numpy(variable[...]) for path, variable in found}


def outputs(network, batch):
    """Of the network in inference mode."""
    ready = nnx.clone(network)
    ready.eval()
    return to_numpy(ready(batch))


def operators(network):
    """The operators of a network as `mponet.MPO`, by name."""
    return {name: m.to_mpo() for name, m in named_modules(network) if isinstance(m, MPOConv | MPOLinear)}


def adapter(student, teacher, config):
    """The two as the core sees them."""
    return NativeHealing(student, teacher, config)


def modes(network):
    """What healing must give back."""
    names = ("deterministic", "use_running_average")
    return [getattr(module, name, None) for _, module in named_modules(network) for name in names]

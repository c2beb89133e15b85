"""The dense networks and their training step written in flax by hand, for `plumbing.py`.

Nothing here knows of mponet.  The networks are those of the paper in the authors' wiring: units of
batch norm, ReLU and a convolution without bias.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import optax
from flax import nnx

STAGES = (
    ((64, 3), (64, 3)),
    ((128, 3), (128, 3)),
    ((256, 3), (256, 3), (256, 1)),
    ((512, 3), (512, 3), (512, 1)),
    ((512, 3), (512, 3), (512, 1)),
)


def conv(inputs: int, outputs: int, kernel: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    """A convolution without bias."""
    return nnx.Conv(inputs, outputs, (kernel, kernel), stride, use_bias=False, rngs=rngs)


class Activation(nnx.Module):
    """Batch norm, ReLU."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(features, momentum=0.99, epsilon=1e-3, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Of feature maps."""
        return nnx.relu(self.norm(inputs))


class Unit(nnx.Module):
    """Batch norm, ReLU, convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, rngs: nnx.Rngs) -> None:
        self.begin = Activation(inputs, rngs)
        self.conv = conv(inputs, outputs, kernel, 1, rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps of ``outputs`` channels."""
        return self.conv(self.begin(inputs))


class VGG16(nnx.Module):
    """Configuration C, whose last convolutions of stages 3 to 5 are 1 x 1."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        channels, stages = 3, []
        for stage in STAGES:
            units = []
            for features, kernel in stage:
                units.append(Unit(channels, features, kernel, rngs))
                channels = features
            stages.append(nnx.Sequential(*units))
        self.stages = nnx.List(stages)
        self.hidden = nnx.List([nnx.Linear(*sizes, rngs=rngs) for sizes in pairwise((512, 4096, 4096))])
        self.dropouts = nnx.List([nnx.Dropout(0.2, rngs=rngs) for _ in self.hidden])
        self.last = nnx.Linear(4096, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Ten logits."""
        maps = images
        for stage in self.stages:
            maps = nnx.max_pool(stage(maps), (2, 2), (2, 2))
        vectors = maps.reshape(len(maps), -1)
        for linear, dropout in zip(self.hidden, self.dropouts, strict=True):
            vectors = dropout(nnx.relu(linear(vectors)))
        return self.last(vectors)


class Block(nnx.Module):
    """A ResNet block with pre-activation; a projected shortcut starts after the first ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs) -> None:
        self.begin = Activation(inputs, rngs)
        self.conv = conv(inputs, outputs, 3, stride, rngs)
        self.rest = Unit(outputs, outputs, 3, rngs)
        self.project = nnx.data(conv(inputs, outputs, 1, stride, rngs) if inputs != outputs else None)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """The sum of both branches."""
        begun = self.begin(inputs)
        return self.rest(self.conv(begun)) + (inputs if self.project is None else self.project(begun))


class End(nnx.Module):
    """From the last map to ten logits."""

    def __init__(self, features: int, rngs: nnx.Rngs) -> None:
        self.begin = Activation(features, rngs)
        self.linear = nnx.Linear(features, 10, rngs=rngs)

    def __call__(self, maps: jax.Array) -> jax.Array:
        """Of the mean over all positions."""
        return self.linear(self.begin(maps).mean((1, 2)))


def resnet20(rngs: nnx.Rngs) -> nnx.Module:
    """Three groups of three blocks, 64, 128 and 256 wide."""
    layers: list[nnx.Module] = [conv(3, 16, 3, 1, rngs)]
    for inputs, outputs, stride in ((16, 64, 1), (64, 128, 2), (128, 256, 2)):
        layers += [Block(inputs, outputs, stride, rngs), *(Block(outputs, outputs, 1, rngs) for _ in range(2))]
    return nnx.Sequential(*layers, End(256, rngs))


class Grown(nnx.Module):
    """A layer of a DenseNet: the input, and behind it what a unit makes of it."""

    def __init__(self, inputs: int, growth: int, rngs: nnx.Rngs) -> None:
        self.unit = Unit(inputs, growth, 3, rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """``growth`` channels more."""
        return jax.numpy.concatenate((inputs, self.unit(inputs)), axis=-1)


def densenet40(rngs: nnx.Rngs) -> nnx.Module:
    """Three blocks of twelve layers, each twelve channels more."""
    channels, growth = 16, 12
    layers: list[Any] = [conv(3, channels, 3, 1, rngs)]
    for block in range(3):
        if block:
            layers += [Unit(channels, channels, 1, rngs), partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2))]
        for _ in range(12):
            layers.append(Grown(channels, growth, rngs))
            channels += growth
    return nnx.Sequential(*layers, End(channels, rngs))


NETWORKS = {"vgg16": VGG16, "resnet20": resnet20, "densenet40-12": densenet40}


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3, 4))
def train(
    optimizer: optax.GradientTransformation, graph: Any, params: Any, rest: Any, momentum: Any, images: Any, labels: Any
) -> tuple[jax.Array, Any, Any, Any]:
    """One training step: the loss before it, and what there is behind it."""

    def loss(params: Any) -> tuple[jax.Array, Any]:
        model = nnx.merge(graph, params, rest, copy=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(model(images), labels)
        return losses.mean(), nnx.state(model, nnx.Not(nnx.Param))

    (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, momentum = optimizer.update(gradients, momentum, params)
    return value, optax.apply_updates(params, updates), rest, momentum


class Step:
    """One training step after another.

    Attributes:
        parameters: number of parameters.
    """

    def __init__(self, model: nnx.Module) -> None:
        self.graph, self.params, self.rest = nnx.split(model, nnx.Param, ...)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        decay = optax.add_decayed_weights(2e-4)
        # the time does not depend on the rate, and at 0.1 VGG-16 may diverge within a few steps
        self.optimizer = optax.chain(decay, optax.sgd(1e-3, momentum=0.9, nesterov=True))
        self.momentum = self.optimizer.init(self.params)

    def __call__(self, images: Any, labels: Any) -> jax.Array:
        """The loss of images ``(batch, height, width, channels)`` before the step, numpy both."""
        loss, self.params, self.rest, self.momentum = train(
            self.optimizer, self.graph, self.params, self.rest, self.momentum, images, labels
        )
        return loss


def trainer(name: str) -> Step:
    """The training step of a new network: ``step(images, labels)`` gives the loss."""
    return Step(NETWORKS[name](nnx.Rngs(0)))

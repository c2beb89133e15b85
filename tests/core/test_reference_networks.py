"""The numpy reference on whole networks, against their wiring written out by hand from the paper.

Nothing here knows the layer vocabulary: only names of parameters, and the formulas.
"""

import numpy as np
import pytest

import mponet
import small
from mponet.models import VARIANTS
from mponet.models.dropout import dropout_layers, sample_masks

REFERENCE = mponet.load("numpy")
EPSILON = 1e-3
SIZE = 3  # images in a batch


def relu(x):
    return np.maximum(x, 0)


def pooled(x, reduce):
    batch, height, width, channels = x.shape
    return reduce(x.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))


class Net:
    """Parameters by name, and the operations that take a name."""

    def __init__(self, values, training, kept):
        self.values, self.training, self.kept = values, training, iter(kept)
        self.seen = set()

    def get(self, name):
        self.seen.add(name)
        return self.values[name]

    def norm(self, x, name):
        scale, shift, mean, variance = (self.get(f"{name}/{part}") for part in ("scale", "shift", "mean", "variance"))
        if self.training:
            values = x.reshape(-1, x.shape[-1])
            mean = values.sum(0) / len(values)
            variance = ((values - mean) ** 2).sum(0) / len(values)
        return scale * (x - mean) / (variance + EPSILON) ** 0.5 + shift

    def conv(self, x, name, stride=1):
        """3 x 3 or 1 x 1 without bias: shifted sums; at stride 2 the odd zero is bottom right."""
        kernel = self.get(f"{name}/kernel")
        reach, size = kernel.shape[0], x.shape[1]
        count = -(-size // stride)
        missing = max((count - 1) * stride + reach - size, 0)
        padded = np.zeros((len(x), size + missing, size + missing, x.shape[3]))
        begin = missing // 2
        padded[:, begin : begin + size, begin : begin + size] = x
        ends = (count - 1) * stride + 1
        return sum(
            padded[:, i : i + ends : stride, j : j + ends : stride] @ kernel[i, j]
            for i in range(reach)
            for j in range(reach)
        )

    def matrix(self, name):
        """The operator as a matrix, core by core; the first factor is the most significant."""
        product = np.ones((1, 1, 1))
        k = 1
        while f"{name}/core{k}" in self.values:
            core = self.get(f"{name}/core{k}")
            product = np.einsum("abl,lijr->aibjr", product, core)
            product = product.reshape(-1, product.shape[2] * core.shape[2], core.shape[3])
            k += 1
        return product[:, :, 0]

    def dense(self, x, name, *, mpo, bias):
        y = x @ (self.matrix(name) if mpo else self.get(f"{name}/kernel"))
        return y + self.get(f"{name}/bias") if bias else y

    def drop(self, x):
        return x * next(self.kept) / 0.8 if self.training else x


def vgg_head(net, x, mpo):
    x = x.reshape(len(x), -1)
    x = net.drop(relu(net.dense(x, "fc1", mpo=mpo, bias=True)))
    x = net.drop(relu(net.dense(x, "fc2", mpo=mpo, bias=not mpo)))
    return net.dense(x, "fc3", mpo=mpo, bias=not mpo)


def vgg_16_like(net, x, mpo):
    x = pooled(net.conv(relu(net.norm(x, "bn1_1")), "conv1_1"), np.max)
    x = relu(net.norm(x, "bn2_1"))
    if mpo:
        x = net.dense(x.reshape(len(x), 64), "conv2_1", mpo=True, bias=True).reshape(x.shape)
    else:
        x = net.conv(x, "conv2_1")
    x = net.conv(relu(net.norm(x, "bn2_2")), "conv2_2")
    return vgg_head(net, pooled(x, np.max), mpo)


def vgg_19_like(net, x, mpo):
    x = pooled(net.conv(relu(net.norm(x, "bn1_1")), "conv1_1"), np.max)
    x = net.conv(relu(net.norm(x, "bn2_1")), "conv2_1")
    x = relu(net.norm(x, "bn2_2"))
    if mpo:  # flat from here on: the second norm is over all 64 values
        x = net.dense(x.reshape(len(x), 64), "conv2_2", mpo=True, bias=True)
        x = net.dense(relu(net.norm(x, "bn2_3")), "conv2_3", mpo=True, bias=True).reshape(-1, 4, 4, 4)
    else:
        x = net.conv(relu(net.norm(net.conv(x, "conv2_2"), "bn2_3")), "conv2_3")
    return vgg_head(net, pooled(x, np.max), mpo)


def resnet(net, x, mpo, *, blocks, unit):
    x = net.conv(x, "conv")
    for group, stride in ((1, 1), (2, 2), (3, 2)):
        for block in range(1, blocks + 1):
            here = f"group{group}_block{block}_"
            h = relu(net.norm(x, f"{here}bn1"))
            if mpo and unit and (group, block) == (3, blocks):
                h = net.dense(h.reshape(len(h), -1), f"{here}conv1", mpo=True, bias=True)
                h = net.dense(relu(net.norm(h, f"{here}bn2")), f"{here}conv2", mpo=True, bias=True)
                x = x + h.reshape(x.shape)
            else:
                if block == 1:  # the projection is taken from behind the first ReLU
                    x = net.conv(h, f"{here}shortcut", stride)
                h = net.conv(h, f"{here}conv1", stride if block == 1 else 1)
                x = x + net.conv(relu(net.norm(h, f"{here}bn2")), f"{here}conv2")
    return head(net, x, mpo)


def densenet(net, x, mpo):
    x = net.conv(x, "conv")
    for block in (1, 2, 3):
        for layer in (1, 2):
            here = f"block{block}_layer{layer}_"
            h = relu(net.norm(x, f"{here}bn"))
            if mpo and (block, layer) == (3, 2):
                h = np.concatenate([h, np.zeros((*h.shape[:3], 1))], axis=3)
                h = net.dense(h.reshape(len(h), -1), f"{here}conv", mpo=True, bias=True).reshape(*x.shape[:3], 3)
            else:
                h = net.conv(h, f"{here}conv")
            x = np.concatenate([x, h], axis=3)
        if block < 3:
            h = net.conv(relu(net.norm(x, f"transition{block}_bn")), f"transition{block}_conv")
            x = pooled(h, np.mean)
    return head(net, x, mpo)


def head(net, x, mpo):
    x = relu(net.norm(x, "bn")).mean(axis=(1, 2))
    if mpo:
        return net.dense(relu(net.norm(x, "fc_bn")), "fc", mpo=True, bias=False)
    return net.dense(x, "fc", mpo=False, bias=True)


WRITTEN_OUT = {
    "vgg-small": vgg_16_like,
    "vgg-small-late": vgg_19_like,
    "resnet-small": lambda net, x, mpo: resnet(net, x, mpo, blocks=1, unit=False),
    "resnet-small-unit": lambda net, x, mpo: resnet(net, x, mpo, blocks=2, unit=True),
    "densenet-small": densenet,
}
NETWORKS = [model for variant in VARIANTS for model in small.networks(variant) if model.name in WRITTEN_OUT]


def test_every_network_on_cifar_is_written_out():
    assert {model.name for model in NETWORKS} == set(WRITTEN_OUT)


@pytest.mark.parametrize("model", NETWORKS, ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_the_reference_computes_what_is_written_out_by_hand(model, training):
    values, images = small.values(model), np.random.default_rng(7).normal(size=(SIZE, *model.input_shape))
    kept = sample_masks(dropout_layers(model), SIZE, 0, 0) if training else ()
    net = Net(values, training, kept)
    wanted = WRITTEN_OUT[model.name](net, images, model.variant != "dense")
    found = REFERENCE.build(model, values)(images, training=training, masks=kept)
    # what docs/numerics.md promises of a forward pass in float64
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    assert np.ptp(wanted, axis=0).min() > 1e-3  # the images make a difference, so all was not lost on the way
    assert net.seen == set(values)
    assert next(net.kept, None) is None

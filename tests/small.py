"""A small instance of each network of the paper: few blocks, narrow, every kind of layer that the large one has."""

import numpy as np

from mponet.models.densenet import LastConv, densenet
from mponet.models.dropout import masks
from mponet.models.fc2 import fc2
from mponet.models.lenet5 import lenet5
from mponet.models.resnet import resnet
from mponet.models.start import start
from mponet.models.vgg import Row, network

IMAGE = (8, 8, 3)
VGG_16_LIKE = Row(
    stages=(((4, 3),), ((4, 3), (4, 1))),
    replaced=(1,),
    conv=((4, 4, 4), (4, 4, 4), 3),  # of a 4 x 4 map of 4 channels
    head=(
        (12, True, ((4, 4), (3, 4), 2)),
        (12, False, ((3, 4), (3, 4), 2)),
        (10, False, ((3, 4), (2, 5), 2)),
    ),
    image=IMAGE,
)
VGG_19_LIKE = Row(
    stages=(((4, 3),), ((4, 3), (4, 3), (4, 3))),
    replaced=(2, 3),
    conv=((4, 4, 4), (4, 4, 4), 3),
    head=VGG_16_LIKE.head,
    image=IMAGE,
)


def networks(variant):
    """The five networks, small; VGG and ResNet in both wirings."""
    return (
        fc2(variant, None if variant == "dense" else 2),
        lenet5(variant, None),
        network("vgg-small", VGG_16_LIKE, variant, None),
        network("vgg-small-late", VGG_19_LIKE, variant, None),
        resnet("resnet-small", 8, 1, variant, None, image=IMAGE),
        resnet("resnet-small-unit", 14, 1, variant, None, unit=True, image=IMAGE),
        densenet(
            "densenet-small", 10, 3, 4, variant, None, conv=True, image=IMAGE, last=LastConv(1, (4, 5, 4), (3, 2, 2), 4)
        ),
    )


def values(model, seed=0, spread=0.3):
    """Parameters and running statistics of which none is at its starting value."""
    rng = np.random.default_rng(seed)
    found = start(model, seed)
    for name, value in found.items():
        kind = name.rpartition("/")[2]
        if kind in ("bias", "shift", "mean"):
            found[name] = rng.normal(0.0, spread, value.shape)
        elif kind in ("scale", "variance"):
            found[name] = rng.uniform(0.5, 1.5, value.shape)
    return found


def batch(model, count=6, seed=0):
    """(images, labels, dropout masks)."""
    rng = np.random.default_rng(seed + 1)
    return rng.random((count, *model.input_shape)), rng.integers(0, 10, count), masks(model, count, seed, 0)

"""Small instances of the networks of the paper, with every kind of layer that the large ones have.

The frameworks are compared on them where the published sizes would take too long.  FC2 and LeNet-5
are small already.
"""

from mponet.models.densenet import LastConv, densenet
from mponet.models.fc2 import fc2
from mponet.models.lenet5 import lenet5
from mponet.models.low_rank import low_rank
from mponet.models.resnet import resnet
from mponet.models.spec import Model
from mponet.models.vgg import Sizes, network

IMAGE = (8, 8, 3)
FC2_BOND = 2
#: Like VGG-16: the first convolutions of the last stage are replaced, and one convolution is 1 x 1.
VGG = Sizes(
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
#: Like VGG-19: the last two of three are replaced, with a batch norm over all features in between.
VGG_LATE = Sizes(
    stages=(((4, 3),), ((4, 3), (4, 3), (4, 3))),
    replaced=(2, 3),
    conv=VGG.conv,
    head=VGG.head,
    image=IMAGE,
)
#: For a 2 x 2 map of 19 channels and one channel of zeros, padded like DenseNet-40-12.
DENSENET_LAST = LastConv(1, (4, 5, 4), (3, 2, 2), 4)


def networks(variant: str) -> tuple[Model, ...]:
    """The five networks, small, with VGG and ResNet in both wirings.

    Args:
        variant: ``dense``, ``mpo`` or ``low-rank``.
    """
    if variant == "low-rank":
        return tuple(map(low_rank, networks("mpo")))
    return (
        fc2(variant, None if variant == "dense" else FC2_BOND),
        lenet5(variant, None),
        network("vgg-small", VGG, variant, None),
        network("vgg-small-late", VGG_LATE, variant, None),
        resnet("resnet-small", 8, 1, variant, None, image=IMAGE),
        resnet("resnet-small-unit", 14, 1, variant, None, unit=True, image=IMAGE),
        densenet("densenet-small", 10, 3, 4, variant, None, conv=True, image=IMAGE, last=DENSENET_LAST),
    )

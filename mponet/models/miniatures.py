"""A small instance of each network of the paper: few blocks, narrow, with every kind of layer that the large one has.

They are what the frameworks are compared on where the published sizes would take too long.  FC2 and
LeNet-5 are small as they are.
"""

from mponet.models.densenet import LastConv, densenet
from mponet.models.fc2 import fc2
from mponet.models.lenet5 import lenet5
from mponet.models.resnet import resnet
from mponet.models.spec import Model
from mponet.models.vgg import Row, network

IMAGE = (8, 8, 3)
FC2_BOND = 2
#: As VGG-16: neighbours are replaced from the first convolution of the last stage on, and there is
#: a 1 x 1 convolution.
VGG = Row(
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
#: As VGG-19: the last two of three are replaced, with a batch norm over all features in between.
VGG_LATE = Row(
    stages=(((4, 3),), ((4, 3), (4, 3), (4, 3))),
    replaced=(2, 3),
    conv=VGG.conv,
    head=VGG.head,
    image=IMAGE,
)
#: Of a 2 x 2 map of 19 channels, and one of zeros so that the inputs can be factorised, as in
#: DenseNet-40-12.
DENSENET_LAST = LastConv(1, (4, 5, 4), (3, 2, 2), 4)


def networks(variant: str) -> tuple[Model, ...]:
    """The five networks, small; VGG and ResNet in both wirings.

    Args:
        variant: ``dense`` or ``mpo``.
    """
    return (
        fc2(variant, None if variant == "dense" else FC2_BOND),
        lenet5(variant, None),
        network("vgg-small", VGG, variant, None),
        network("vgg-small-late", VGG_LATE, variant, None),
        resnet("resnet-small", 8, 1, variant, None, image=IMAGE),
        resnet("resnet-small-unit", 14, 1, variant, None, unit=True, image=IMAGE),
        densenet("densenet-small", 10, 3, 4, variant, None, conv=True, image=IMAGE, last=DENSENET_LAST),
    )

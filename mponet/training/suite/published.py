"""The paper's accuracies as rows of data.

Best over all evaluations on the test set, mean of five trainings.

Those of the figures are read off the published vector graphics, to about 1e-4; the others are
printed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mponet.models import build
from mponet.models.spec import PAPER, Model


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean with its deviation, shares from 0 to 1; None where a deviation is not given."""

    mean: float
    deviation: float | None


@dataclass(frozen=True, slots=True)
class Published:
    """What the paper says of a network.

    Attributes:
        model: name of the network.
        bond: of the MPO variant; None for the usual one.
        data: name of the data set.
        normal: accuracy of the dense network.
        mpo: accuracy of the MPO network; None where no number is given.
        rho: compression ratio as printed or plotted; None where none is given.
        source: where it stands.
        note: what stands there in place of a number.
    """

    model: str
    bond: int | None
    data: str
    normal: Figure
    mpo: Figure | None
    rho: float | None
    source: str
    note: str | None = None


#: D, accuracy, half of its error bar, rho (Fig. 2); only the bond of the first layer varies.
FC2 = (
    (2, 0.9757, 0.0036, 0.0050),
    (4, 0.9780, 0.0034, 0.0087),
    (6, 0.9795, 0.0020, 0.0145),
    (8, 0.9799, 0.0018, 0.0225),
    (10, 0.9815, 0.0011, 0.0327),
    (12, 0.9817, 0.0014, 0.0452),
    (14, 0.9824, 0.0017, 0.0598),
    (16, 0.9835, 0.0012, 0.0767),
    (18, 0.9840, 0.0014, 0.0855),
    (20, 0.9841, 0.0012, 0.0943),
    (22, 0.9841, 0.0013, 0.1031),
)
FC2_NORMAL = Figure(0.9835, 0.0020)

#: Name, data set, normal, its deviation, MPO network, its deviation, rho as printed (Table I).
TABLE_I = (
    ("lenet5", "mnist", 0.9917, 0.0004, 0.9917, 0.0008, 0.05),
    ("vgg16", "cifar10", 0.9313, 0.0039, 0.9376, 0.0016, 0.0005),
    ("vgg19", "cifar10", 0.9336, 0.0026, 0.9380, 0.0009, 0.0005),
)

#: Depth, normal, its deviation, MPO network, its deviation (Fig. 3, k = 4).
RESNETS = (
    (14, 0.9338, 0.0022, 0.9338, 0.0013),
    (20, 0.9396, 0.0013, 0.9395, 0.0025),
    (26, 0.9409, 0.0014, 0.9409, 0.0015),
    (32, 0.9412, 0.0015, 0.9412, 0.0016),
    (38, 0.9412, 0.0021, 0.9415, 0.0019),
    (44, 0.9416, 0.0043, 0.9421, 0.0021),
    (50, 0.9431, 0.0030, 0.9431, 0.0026),
    (56, 0.9433, 0.0049, 0.9433, 0.0014),
    (86, 0.9459, 0.0033, 0.9466, 0.0020),
    (104, 0.9498, 0.0048, 0.9513, 0.0022),
    (110, 0.9496, 0.0040, 0.9515, 0.0026),
    (116, 0.9514, 0.0031, 0.9517, 0.0026),
)
RESNET_RHO = 0.11

#: Name, normal, its deviation, MPO network, its deviation, rho as printed (Table II; the last one:
#: text).
DENSENETS = (
    ("densenet40-12", 0.9356, 0.0026, 0.9359, 0.0013, 0.129, "Table II"),
    ("densenet40-24", 0.9512, 0.0015, 0.9513, 0.0013, 0.089, "Table II"),
    ("densenet100-12", 0.9536, 0.0015, 0.9558, 0.0007, 0.070, "Table II"),
    ("densenet100-24", 0.9574, 0.0009, 0.9609, 0.0007, 0.044, "Table II"),
    ("densenet40-12-conv", 0.9356, 0.0026, 0.9352, 0.0040, 0.497, "text, and Table II for the dense network"),
)


def rows() -> Iterator[Published]:
    """Every figure of the paper."""
    for bond, accuracy, error, rho in FC2:
        yield Published("fc2", bond, "mnist", FC2_NORMAL, Figure(accuracy, error), rho, _at("Fig. 2"))
    for name, data, normal, deviation, accuracy, error, rho in TABLE_I:
        yield Published(name, None, data, Figure(normal, deviation), Figure(accuracy, error), rho, _at("Table I"))
    for depth, normal, deviation, accuracy, error in RESNETS:
        pair = Figure(normal, deviation), Figure(accuracy, error)
        yield Published(f"resnet{depth}", None, "cifar10", *pair, RESNET_RHO, _at("Fig. 3"))
        if depth == 56:
            text = _at("text, and Fig. 3 for the dense network")
            yield Published("resnet56-unit", None, "cifar10", pair[0], None, None, text, "the same accuracy")
    for name, normal, deviation, accuracy, error, rho, place in DENSENETS:
        yield Published(name, None, "cifar10", Figure(normal, deviation), Figure(accuracy, error), rho, _at(place))


def find(model: Model, data: str) -> Published | None:
    """What the paper says of an MPO network on a data set, whatever bond it was asked for with."""
    for row in rows():
        if (row.model, row.data) == (model.name, data) and build(row.model, "mpo", row.bond).layers == model.layers:
            return row
    return None


def _at(place: str) -> str:
    return f"{PAPER}, {place}"

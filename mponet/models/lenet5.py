"""LeNet-5 on MNIST: paper Table I and the authors' LeNet5/.

With ReLU and max pooling instead of the historical tanh and average pooling.  The third convolution
covers its whole 5 x 5 map, so it equals the fully connected layer 400 -> 120 of the MPO variant.
"""

from mponet.models.spec import PAPER, Conv2D, Dense, Flatten, Layer, MaxPool, Model, ReLU
from mponet.operators.shape import MPOShape

CLASSES = 10
SOURCE = f"{PAPER}, Table I; biases as in the authors' code"
#: name, features, input factors, output factors, published bond
MPO_LAYERS = (
    ("conv3", 120, (2, 10, 10, 2), (2, 5, 6, 2), 4),
    ("fc1", 84, (2, 5, 6, 2), (2, 3, 7, 2), 4),
    ("fc2", CLASSES, (2, 3, 7, 2), (1, 5, 2, 1), 2),
)


def lenet5(variant: str, bond: int | None) -> Model:
    """Two convolutions, then 400 -> 120 -> 84 -> 10.

    All three operators have ``bond`` (None: 4, 4, 2).
    """
    head = _mpo(bond) if variant == "mpo" else _dense()
    return Model("lenet5", variant, bond, (28, 28, 1), (*_features(), *head), SOURCE)


def _features() -> tuple[Layer, ...]:
    return (
        Conv2D("conv1", 6, (5, 5), padding="SAME"),
        ReLU(),
        MaxPool(),
        Conv2D("conv2", 16, (5, 5), padding="VALID"),
        ReLU(),
        MaxPool(),
    )


def _dense() -> tuple[Layer, ...]:
    return (
        Conv2D("conv3", 120, (5, 5), padding="VALID"),
        ReLU(),
        Flatten(),
        Dense("fc1", 84, bias=False),
        ReLU(),
        Dense("fc2", CLASSES, bias=False),
    )


def _mpo(bond: int | None) -> tuple[Layer, ...]:
    layers: list[Layer] = [Flatten()]
    for name, features, inputs, outputs, published in MPO_LAYERS:
        shape = MPOShape.from_factors(inputs, outputs, published if bond is None else bond)
        layers += [Dense(name, features, mpo=shape), ReLU()]
    return tuple(layers[:-1])

"""Layers and networks to measure, with the ratios that they should reach."""

from dataclasses import dataclass

from mponet.operators.shape import MPOShape


@dataclass(frozen=True, slots=True)
class Row:
    """A layer at one size of batch.

    Attributes:
        name: name on the command line.
        shape: factors and bond dimensions.
        batch: rows of the batch.
        forward: target of the time of a forward pass over that of the framework's dense layer; None
            for no target.
        step: the same for forward and backward, with the gradients of parameters and inputs.
        compared: whether a dense layer of this size is measured as well.
    """

    name: str
    shape: MPOShape
    batch: int
    forward: float | None = None
    step: float | None = None
    compared: bool = True

    def target(self, which: str) -> float | None:
        """The target of a pass, ``forward`` or ``step``."""
        return self.forward if which == "forward" else self.step


def _square(factors: tuple[int, ...], bond: int) -> MPOShape:
    return MPOShape.from_factors(factors, factors, bond)


FC2_INPUTS, FC2_OUTPUTS = (4, 7, 7, 4), (4, 4, 4, 4)  # paper, FC2, layer 1
VGG = (4, 4, 8, 8, 4)  # paper, VGG, FC2: 4096 -> 4096
UNIT = (2, 4, 4, 4, 4, 4, 4, 2)  # paper, ResNet, last unit: 16384 -> 16384

#: The targets are this project's own, for a machine of two cores.
ROWS = (
    Row("4096-n2-d4", _square((64, 64), 4), 512, 0.18, 0.25),
    Row("4096-n2-d16", _square((64, 64), 16), 512, 0.60, 0.95),
    Row("4096-n3-d4", _square((16, 16, 16), 4), 512, 0.17, 0.28),
    Row("4096-n4-d8", _square((8, 8, 8, 8), 8), 512, 0.28, 0.38),
    Row("vgg-fc2", _square(VGG, 4), 100, 0.20, 0.28),
    # its matrix would take a gigabyte, so no dense layer is measured and the speed itself is
    # reported
    Row("resnet-unit", _square(UNIT, 4), 100, compared=False),
    Row("1024-n2-d8", _square((32, 32), 8), 128, 1.00, 1.10),
    Row("fc2-d4", MPOShape.from_factors(FC2_INPUTS, FC2_OUTPUTS, 4), 100, 1.20, 1.30),
    Row("fc2-d16", MPOShape.from_factors(FC2_INPUTS, FC2_OUTPUTS, 16), 100, 1.50, 1.80),
)
#: How much faster than the best peer, geometric mean over the rows.
OVER_PEERS = {"forward": 3.0, "step": 2.5}
#: How much memory a step may take, as a multiple of the dense layer's activations and our
#: parameters.
MEMORY = 1.1


@dataclass(frozen=True, slots=True)
class Network:
    """A network in both variants.

    Attributes:
        name: name on the command line.
        model: name of the network.
        bond: bond dimension; None for the published ones.
        batch: images per step.
        step: target of the time of a training step, mpo over dense; None for no target.
        compiled: the same where the network is compiled and the framework does not do that anyway.
        inference: the same for the logits of a batch, frozen or not.
    """

    name: str
    model: str
    bond: int | None
    batch: int
    step: float | None = None
    compiled: float | None = None
    inference: float | None = None

    def target(self, which: str) -> float | None:
        """The target of a pass, as `mponet.bench.networks.PASSES` names it."""
        return {"step": self.step, "compiled step": self.compiled}.get(which, self.inference)


NETWORKS = (
    Network("fc2-d4", "fc2", 4, 100, step=1.3, compiled=1.2, inference=1.02),
    Network("fc2-d16", "fc2", 16, 100, step=1.6, compiled=1.5, inference=1.02),
    Network("lenet5", "lenet5", None, 100, step=1.1, inference=1.02),
    Network("vgg16", "vgg16", None, 32, step=1.0),
)

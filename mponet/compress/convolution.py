"""From a fitted layer to the operator that a convolution layer takes."""

from mponet.compress.fitting import FittedLayer
from mponet.layers.convolution import STRUCTURES
from mponet.operators.mpo import MPO


def kernel_operator(layer: FittedLayer) -> tuple[str, MPO]:
    """A convolution layer's structure and its operator.

    The structure is one of `mponet.layers.convolution.STRUCTURES`.

    A fit keeps all of a window among the inputs.  The structure ``separable`` has the window's
    first axis among the outputs, so the second core's legs move there; no number changes.

    Args:
        layer: the fitted operator of a convolution.
    """
    assert layer.plan.layout is not None
    name = layer.plan.layout.structure
    if name not in STRUCTURES:
        return "kernel", layer.mpo
    if name != "separable":
        return name, layer.mpo
    first, second = layer.mpo.cores
    bond, height, outputs, _ = second.shape
    return name, MPO.from_cores([first, second.reshape(bond, 1, height * outputs, 1)])

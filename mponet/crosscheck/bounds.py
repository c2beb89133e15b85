"""How far two correct backends may be apart.

In float64 the bounds are fixed: 1e-12 forward and loss, 1e-10 gradients, 1e-8 training.  Rounding alone reaches
``u sqrt(K)`` with ``u = 1.1e-16`` and at most some 10^5 terms in a sum, which is 4e-14: anything beyond the bounds is a
different formula.

In float32 they follow from the lengths of the sums.  A sum of ``K`` rounded products, in whatever order a library adds
them, is off by about ``u sqrt(K)`` of its size (``u = 2^-24 = 6e-8``; the roundings are as good as independent).  Two
backends differ by up to twice that, and the layers of a network hand their errors on; so

* forward and loss: ``1e-6 sqrt(K)``, ``1e-6 = 16 u``: two backends, times up to eight layers one after the other.
  ``K`` is the longest sum of the forward pass: the inputs of a dense layer or operator, ``kernel height x width x
  channels`` of a convolution.
* gradients: the same with ``K`` the longest sum of forward and backward.  The gradient of a weight sums over the batch,
  times the positions of a convolution, times the rows that an operator's core is applied to (the product of the other
  input or output factors, whichever is larger).  The gradient of an input sums over what each input feeds.
* training: that of the gradients, for one step from a given state.  A velocity takes over the error of its gradient; a
  parameter takes ``lr`` times that, on top of its own rounding.

Training is 20 steps on end in float64, but single steps from four given states in float32.  A network with ReLUs is no
smooth function of its parameters: where a value lands within rounding error of 0, one framework lets a gradient through
and the other does not, and both are right.  Free-running float32 trajectories therefore part for good at the first such
place, as LeNet-5's did on 8 images.  Single steps start from
states whose images keep away from every jump (`mponet.crosscheck.margin`); so do the gradients.  In float64 such a
meeting has a chance of about 1e-8.
"""

from math import prod, sqrt

from mponet.crosscheck.case import RECIPES
from mponet.models.infer import LayerInfo, layers
from mponet.models.layers import Conv2D, Model
from mponet.shape import MPOShape

DOUBLE = {"forward": 1e-12, "loss": 1e-12, "gradients": 1e-10}
DOUBLE_TRAINING = 1e-8
SINGLE = 1e-6


def bounds(model: Model, dtype: str, batch: int) -> dict[str, float]:
    """The largest error allowed, by quantity.

    Args:
        model: the network.
        dtype: ``float64`` or ``float32``.
        batch: number of examples.
    """
    training = [recipe.name for recipe in RECIPES]
    if dtype == "float64":
        return DOUBLE | dict.fromkeys(training, DOUBLE_TRAINING)
    infos = [info for info in layers(model) if info.parameters]
    forward = max(map(forward_terms, infos))
    gradient = max(forward, *(gradient_terms(info, batch) for info in infos))
    there, back = SINGLE * sqrt(forward), SINGLE * sqrt(gradient)
    return {"forward": there, "loss": there, "gradients": back} | dict.fromkeys(training, back)


def forward_terms(info: LayerInfo) -> int:
    """Length of the sums that a layer's outputs are."""
    return prod(info.layer.kernel) * info.input_shape[2] if isinstance(info.layer, Conv2D) else info.input_shape[0]


def gradient_terms(info: LayerInfo, batch: int) -> int:
    """Length of the longest sum in the gradients of a layer's parameters and inputs."""
    if isinstance(info.layer, Conv2D):
        positions, fed = prod(info.output_shape[:2]), prod(info.layer.kernel) * info.output_shape[2]
    else:
        positions, fed = (_rows(info.mpo) if info.mpo else 1), info.output_shape[0]
    return max(batch * positions, fed)


def _rows(shape: MPOShape) -> int:
    """The most rows, per example, that a core is applied to."""
    full = shape.in_features, shape.out_features
    return max(max(full[0] // i, full[1] // j) for i, j in zip(shape.input_dims, shape.output_dims, strict=True))

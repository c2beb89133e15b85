"""How far two correct backends may be apart.

In float64 the bounds are fixed: 1e-12 for the results of a forward pass, 1e-10 for gradients, 1e-8
for training.  Rounding reaches a few thousand roundings of ``u = 1.1e-16`` in the deepest network
(`mponet.crosscheck.rounding`), which is 5e-13.  Any error above the bounds comes from a different
formula.

In float32 the bounds follow from the layers.  A pass makes a number of roundings of ``u = 2^-24 =
6e-8`` relative to the largest value of a tensor, and two backends differ by up to twice that:

* logits: the roundings of the forward pass in inference mode;
* loss and running statistics: those of the forward pass in training mode, where the statistics of a
  batch are sums as well;
* gradients: those of the forward pass, the backward pass, and the longest sum that a parameter's
  gradient is;
* training: that of the gradients, for one step from a given state.  A velocity has the error of its
  gradient; a parameter has ``lr`` times that, in addition to its own rounding.

Training runs for 20 consecutive steps in float64, but for single steps from four given states in
float32.  A network with ReLUs is not a smooth function of its parameters: where a value lies within
rounding error of 0, one framework passes a gradient and another does not, and both are right.
Long float32 trajectories therefore diverge at the first such value, as those of LeNet-5 did on 8
images.  Single steps start from states whose values keep away from every jump
(`mponet.crosscheck.margin`); so do the gradients.  In float64 such a value has a probability of
about 1e-8.

The rounding of a sum is relative to its terms.  A tensor below 1e-4 of the largest tensor of its
quantity is measured against that share instead.  One kind of gradient cancels altogether: a batch
norm subtracts any constant, so a bias directly before one has a gradient that is 0 except for
rounding, whatever its terms were (`cancelling`).  In float32 those alone are measured against a
hundredth of the largest gradient, where a hundredth of a bound is a few roundings.

Where a published network has jumps within reach of rounding on any batch, the change that they may
cause is added to the bounds of gradients and training, and the norm is the Euclidean one: a single
value on the other side changes one small gradient completely, and the whole very little.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from mponet.crosscheck.case import RECIPES, Case
from mponet.crosscheck.rounding import LOSS, SINGLE, forward, gradient
from mponet.models.shapes import LayerInfo, layers
from mponet.models.spec import BatchNorm, Model

FORWARD, GRADIENTS, TRAINING = 1e-12, 1e-10, 1e-8
FLOOR, CANCELLING_FLOOR = 1e-4, 1e-2
#: The quantities that are compared, in the order of a report.
QUANTITIES = ("forward", "dropout", "loss", "statistics", "gradients", *(recipe.name for recipe in RECIPES))
Norm = Literal["largest", "euclidean"]


@dataclass(frozen=True, slots=True)
class Bound:
    """The largest allowed error of a quantity.

    Attributes:
        error: largest allowed error.
        norm: norm of tensors and differences: the largest absolute value, or the Euclidean norm.
        cancelling: names of tensors that are 0 except for rounding, which have a larger floor.
    """

    error: float
    norm: Norm = "largest"
    cancelling: frozenset[str] = frozenset()

    def floor(self, name: str) -> float:
        """A tensor below this share of the largest one is measured against the share."""
        return CANCELLING_FLOOR if name in self.cancelling else FLOOR


def bounds(case: Case) -> Mapping[str, Bound]:
    """The bound of every quantity, in the order of a report."""
    model, batch = case.model, case.batch
    if case.dtype == "float64":
        logits = passed = Bound(FORWARD)
        gradients, training = Bound(GRADIENTS), Bound(TRAINING)
    else:
        logits = Bound(2 * SINGLE * forward(model))
        passed = Bound(2 * SINGLE * (forward(model, batch) + LOSS))
        norm: Norm = "euclidean" if case.share else "largest"
        training = Bound(2 * SINGLE * gradient(model, batch) + case.share, norm)
        gradients = replace(training, cancelling=frozenset(cancelling(model)))
    fixed = {"forward": logits, "dropout": logits, "loss": passed, "statistics": passed, "gradients": gradients}
    return fixed | {recipe.name: training for recipe in case.recipes}


def cancelling(model: Model) -> Iterator[str]:
    """Names of biases directly before a batch norm over the same values.

    Their gradients are 0 in training.
    """
    return _cancelling(layers(model))


def _cancelling(infos: Sequence[LayerInfo]) -> Iterator[str]:
    for info, after in pairwise(infos):
        if isinstance(after.layer, BatchNorm) and not info.branches:
            yield from (name for name in info.parameters if name.endswith("/bias"))
    for info in infos:
        for branch in info.branches:
            yield from _cancelling(branch)

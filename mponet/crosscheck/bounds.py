"""How far two correct backends may be apart.

In float64 the bounds are fixed: 1e-12 for what a pass forward gives, 1e-10 for gradients, 1e-8 for
training.  Rounding reaches a few thousand roundings of ``u = 1.1e-16`` in the deepest network
(`mponet.crosscheck.rounding`), which is 5e-13: anything beyond the bounds is a different formula.

In float32 they follow from the layers.  A pass makes so many roundings of ``u = 2^-24 = 6e-8``
relative to the largest value of a tensor, and two backends differ by up to twice that:

* logits: the roundings of the pass forward in inference mode;
* loss and running statistics: those in training mode, where the norms of a batch are sums as well;
* gradients: those of the pass forward and of the pass backward, and of the longest sum that a
parameter's gradient is;
* training: that of the gradients, for one step from a given state.  A velocity takes over the error
  of its gradient; a parameter takes ``lr`` times that, on top of its own rounding.

Training is 20 steps on end in float64, but single steps from four given states in float32.  A
network with ReLUs is no smooth function of its parameters: where a value lands within rounding
error of 0, one framework lets a gradient through and the other does not, and both are right.
Free-running float32 trajectories therefore part for good at the first such place, as LeNet-5's did
on 8 images.  Single steps start from states whose images keep away from every jump
(`mponet.crosscheck.margin`); so do the gradients.  In float64 such a meeting has a chance of about
1e-8.

The rounding of a sum is relative to its terms.  A tensor below 1e-4 of the largest of its quantity
is measured against that share instead.  One kind of gradient cancels altogether: a batch norm takes
off any constant, so a bias right in front of one has a gradient that is 0 but for rounding,
whatever its terms were (`cancelling`).  In float32 those alone are measured against a hundredth of
the largest gradient, where a hundredth of a bound is a few roundings.

Where a published network has jumps left within reach of rounding on any batch, what they may change
is added to the bounds of gradients and training, and the norm is the Euclidean one: a single value
on the wrong side changes all of one small gradient, and next to nothing of the whole.
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
#: What is compared, in the order of a report.
QUANTITIES = ("forward", "dropout", "loss", "statistics", "gradients", *(recipe.name for recipe in RECIPES))
Norm = Literal["largest", "euclidean"]


@dataclass(frozen=True, slots=True)
class Bound:
    """What is allowed.

    Attributes:
        error: the largest allowed.
        norm: what tensors and their differences are measured by: the largest value, or the
            Euclidean norm.
        cancelling: names of tensors that are 0 but for rounding, which have a floor of their own.
    """

    error: float
    norm: Norm = "largest"
    cancelling: frozenset[str] = frozenset()

    def floor(self, name: str) -> float:
        """A tensor below this share of the largest is measured against it."""
        return CANCELLING_FLOOR if name in self.cancelling else FLOOR


def bounds(case: Case) -> Mapping[str, Bound]:
    """What is allowed by quantity, in the order of a report."""
    model, batch = case.model, case.batch
    if case.dtype == "float64":
        logits = passed = Bound(FORWARD)
        slopes, training = Bound(GRADIENTS), Bound(TRAINING)
    else:
        logits = Bound(2 * SINGLE * forward(model))
        passed = Bound(2 * SINGLE * (forward(model, batch) + LOSS))
        norm: Norm = "euclidean" if case.share else "largest"
        training = Bound(2 * SINGLE * gradient(model, batch) + case.share, norm)
        slopes = replace(training, cancelling=frozenset(cancelling(model)))
    fixed = {"forward": logits, "dropout": logits, "loss": passed, "statistics": passed, "gradients": slopes}
    return fixed | {recipe.name: training for recipe in case.recipes}


def cancelling(model: Model) -> Iterator[str]:
    """Names of the biases right in front of a batch norm over the same values, whose gradients are 0 in training."""
    return _cancelling(layers(model))


def _cancelling(infos: Sequence[LayerInfo]) -> Iterator[str]:
    for info, behind in pairwise(infos):
        if isinstance(behind.layer, BatchNorm) and not info.branches:
            yield from (name for name in info.parameters if name.endswith("/bias"))
    for info in infos:
        for branch in info.branches:
            yield from _cancelling(branch)

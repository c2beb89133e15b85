"""How far two correct backends may be apart.

In float64 the bounds are fixed: 1e-12 for what a pass forward gives, 1e-10 for gradients, 1e-8 for training.  Rounding
reaches a few thousand roundings of ``u = 1.1e-16`` in the deepest network (`mponet.crosscheck.rounding`), which is
5e-13: anything beyond the bounds is a different formula.

In float32 they follow from the layers.  A pass makes so many roundings of ``u = 2^-24 = 6e-8`` relative to the largest
value of a tensor, and two backends differ by up to twice that:

* logits: the roundings of the pass forward in inference mode;
* loss and running statistics: those in training mode, where the norms of a batch are sums as well;
* gradients: those of the pass forward and of the pass backward, and of the longest sum that a parameter's gradient is;
* training: that of the gradients, for one step from a given state.  A velocity takes over the error of its gradient; a
  parameter takes ``lr`` times that, on top of its own rounding.

Training is 20 steps on end in float64, but single steps from four given states in float32.  A network with ReLUs is no
smooth function of its parameters: where a value lands within rounding error of 0, one framework lets a gradient through
and the other does not, and both are right.  Free-running float32 trajectories therefore part for good at the first such
place, as LeNet-5's did on 8 images.  Single steps start from states whose images keep away from every jump
(`mponet.crosscheck.margin`); so do the gradients.  In float64 such a meeting has a chance of about 1e-8.

The rounding of a sum is relative to its terms.  Where they cancel, as in the gradient of a bias in front of a batch
norm, which takes off any constant, the sum is nothing but rounding, and does not show how large its terms were.  So
what is small is measured against a share of the largest tensor of its quantity: 1e-4 in float64, where 1e-4 of 1e-10
is a hundred roundings of it; a hundredth in float32, where a hundredth of a bound is a few.

The published ResNets have a million activations, and no batch keeps away from all of their jumps.  There the share of
the jumps within reach is added to the bounds of gradients and training, and the norm is the Euclidean one: a single
value on the wrong side changes all of one small gradient, and next to nothing of the whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mponet.crosscheck.case import RECIPES, Case
from mponet.crosscheck.rounding import LOSS, SINGLE, forward, gradient

FORWARD, GRADIENTS, TRAINING = 1e-12, 1e-10, 1e-8
FLOOR, SINGLE_FLOOR = 1e-4, 1e-2
#: What is compared, in the order of a report.
QUANTITIES = ("forward", "dropout", "loss", "statistics", "gradients", *(recipe.name for recipe in RECIPES))
Norm = Literal["largest", "euclidean"]


@dataclass(frozen=True, slots=True)
class Bound:
    """What is allowed.

    Attributes:
        error: the largest allowed.
        norm: what tensors and their differences are measured by: the largest value, or the Euclidean norm.
        floor: tensors below this share of the largest are measured against it.
    """

    error: float
    norm: Norm = "largest"
    floor: float = FLOOR


def bounds(case: Case) -> Mapping[str, Bound]:
    """What is allowed by quantity, in the order of a report."""
    model, batch = case.model, case.batch
    if case.dtype == "float64":
        logits = passed = Bound(FORWARD)
        slopes, training = Bound(GRADIENTS), Bound(TRAINING)
    else:
        logits = _single(forward(model))
        passed = _single(forward(model, batch) + LOSS)
        slopes = training = _single(gradient(model, batch), case.share)
    fixed = {"forward": logits, "dropout": logits, "loss": passed, "statistics": passed, "gradients": slopes}
    return fixed | {recipe.name: training for recipe in case.recipes}


def _single(roundings: float, share: float = 0.0) -> Bound:
    return Bound(2 * SINGLE * roundings + share, "euclidean" if share else "largest", SINGLE_FLOOR)

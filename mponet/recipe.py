"""How to train, as data: optimiser, schedule, length.  One meaning on every backend.

Gradients are those of the mean cross-entropy plus ``weight_decay / 2 * sum |w|^2`` over all parameters (paper Eq. 7,
coupled).  Momentum is ``v <- momentum v + g``, then ``w <- w - lr v`` (Nesterov: ``w <- w - lr (g + momentum v)``): the
learning rate is not folded into the velocity, so changing it acts at once.
"""

from dataclasses import asdict, dataclass, replace
from math import cos, pi
from typing import Any, Literal

from mponet.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training recipe.

    Attributes:
        name: ``paper``, ``short``, or your own.
        steps: optimiser steps in all.
        batch: images per step.
        learning_rate: at the first step.
        schedule: ``exponential`` multiplies it by ``decay`` every ``decay_steps``, continuously; ``cosine`` takes it to
            zero at the last step along half a cosine.
        warm_up: share of the steps over which the rate first grows linearly from near zero, on top of the schedule.
        decay: factor of the exponential schedule.
        decay_steps: steps of the exponential schedule.
        momentum: 0 for plain SGD.
        nesterov: Nesterov's form of momentum.
        weight_decay: coefficient of the coupled L2 term, biases included.
        initializer: a scheme of `mponet.models.start`.
        evaluate_every: steps between evaluations on the test set; 0 for once per epoch.
    """

    name: str
    steps: int
    batch: int
    learning_rate: float
    schedule: Literal["exponential", "cosine"] = "cosine"
    warm_up: float = 0.0
    decay: float = 1.0
    decay_steps: int = 1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    initializer: str = "exact"
    evaluate_every: int = 0

    def __post_init__(self) -> None:
        for field, value, least in (
            ("steps", self.steps, 1),
            ("batch", self.batch, 1),
            ("decay_steps", self.decay_steps, 1),
        ):
            if value < least:
                raise RecipeError(f"{field} of recipe {self.name!r} is {value}; expected at least {least}")
        if not 0 <= self.warm_up < 1:
            raise RecipeError(f"warm_up of recipe {self.name!r} is {self.warm_up}; expected a share in [0, 1)")
        if not (self.learning_rate > 0 and 0 <= self.momentum < 1 and self.weight_decay >= 0):
            raise RecipeError(
                f"recipe {self.name!r} has learning_rate {self.learning_rate}, momentum {self.momentum}, weight_decay "
                f"{self.weight_decay}; expected a positive one, one in [0, 1), and one of at least 0"
            )

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Learning rate of step ``step``, counted from 0."""
    rate = recipe.learning_rate * min((step + 1) / max(recipe.warm_up * recipe.steps, 1.0), 1.0)
    if recipe.schedule == "cosine":
        return rate * (1 + cos(pi * min(step / recipe.steps, 1.0))) / 2
    return float(rate * recipe.decay ** (step / recipe.decay_steps))


EPOCH = 600  # steps of 100 images in MNIST's 60 000

#: The authors' MNIST recipe (FC2/mpo and LeNet5/mpo train.py, 2019-04-14): plain SGD, 0.99 per epoch, L2 on everything.
PAPER_MNIST = Recipe(
    name="paper",
    steps=300_000,
    batch=100,
    learning_rate=0.8,
    schedule="exponential",
    decay=0.99,
    decay_steps=EPOCH,
    weight_decay=1e-4,
    initializer="paper",
    evaluate_every=1000,
)
#: Ten epochs with momentum, and a rate that grows over the first and ends at zero: most of the paper's accuracy in a
#: fiftieth of its steps.  At a rate of 0.05 the normal networks train as well, but some seeds of the MPO-Nets end at
#: chance or diverge, with a slow start or without.
SHORT_MNIST = Recipe(
    name="short",
    steps=10 * EPOCH,
    batch=100,
    learning_rate=0.03,
    warm_up=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
)

PRESETS: dict[str, dict[str, Recipe]] = {
    "fc2": {"paper": PAPER_MNIST, "short": replace(SHORT_MNIST, steps=15 * EPOCH)},
    "lenet5": {"paper": replace(PAPER_MNIST, learning_rate=0.01), "short": SHORT_MNIST},
}


def preset(model: str, name: str) -> Recipe:
    """The preset ``name`` of a model.

    Raises:
        RecipeError: there is none.
    """
    try:
        return PRESETS[model][name]
    except KeyError:
        known = ", ".join(PRESETS.get(model, {})) or f"none for {model!r}"
        raise RecipeError(f"preset is {name!r}; expected one of: {known}") from None

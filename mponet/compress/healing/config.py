"""`HealConfig`: how a compressed network is trained to do what the original does."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Literal

from mponet.errors import CompressionError
from mponet.recipe import Recipe, learning_rate

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("cosine", "constant")
OBJECTIVES = ("auto", "kl", "mse")
ROLES = ("all", "operators", "central", "auxiliary")
#: Positions of a training whose length is a time: the schedule is read at one of them.
POSITIONS = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class HealConfig:
    """How to heal a compressed network by distillation from the original.

    The loss is ``logits * D(outputs) + hidden_weight * D(hidden) + labels * L``, each a mean over
    rows: tokens, examples.  Exactly one of ``steps`` and ``seconds`` is given.

    Attributes:
        steps: number of optimiser steps, one batch each.
        seconds: how long to train; resumed trainings count what earlier processes took.
        learning_rate: the highest rate.
        schedule: ``cosine`` takes the rate to zero at the end along half a cosine; ``constant``.
        warm_up: share of the training over which the rate grows linearly from near zero.
        optimizer: ``adam``, or ``sgd`` with momentum.
        betas: decay of Adam's first and second moment; the first is the momentum of ``sgd``.
        clip: gradients are scaled down to this Euclidean norm over all parameters; 0 does not clip.
        objective: ``kl`` takes outputs as logits of classes in their last axis, ``mse`` as numbers,
            with errors relative to the mean square of the teacher's; ``auto`` takes ``kl`` for
            outputs that have ``logits`` or are one array, and ``mse`` for others.
        temperature: logits are divided by it, and the divergence multiplied by its square.
        logits: weight of the outputs.
        hidden: names of modules whose outputs are compared as well, by relative squared error.
        hidden_weight: weight of their mean.
        labels: weight of the loss of the labels.
        train: which parameters move: ``all``; ``operators``, cores and biases of operators;
            ``central``, of each operator the core with most weights; ``auxiliary``, its other cores
            and its bias; or a list of names of parameters, or of their last parts.
        rates: factors of the learning rate, by role (``central``, ``auxiliary``) or by regular
            expression of the parameter's name; the first match counts.
        weight_decay: adds the gradient of ``weight_decay / 2 * ||W||_F^2`` of each operator ``W``,
            which does not depend on the gauge of its cores; other parameters do not decay.
        retruncate: operators become smaller at steps of the training: a whole number is the
            largest bond, a float the share of their weights that each operator keeps.
        dropout: whether the student is in training mode: dropout and other noise are active, and
            batch norms take the statistics of each batch.  Otherwise it is in inference mode.
        seed: seed of the order of batches and of dropout.
        log_every: steps between two entries of the loss curve.

    Raises:
        CompressionError: a value is out of range, or does not go with another.

    Example:
        >>> config = HealConfig(steps=100, learning_rate=1e-3, warm_up=0.1)
        >>> [round(config.rate(share), 6) for share in (0.05, 0.1, 0.55, 1.0)]
        [0.000497, 0.000976, 0.000422, 0.0]
    """

    steps: int | None = None
    seconds: float | None = None
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warm_up: float = 0.05
    optimizer: Literal["adam", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    objective: Literal["auto", "kl", "mse"] = "auto"
    temperature: float = 1.0
    logits: float = 1.0
    hidden: tuple[str, ...] = ()
    hidden_weight: float = 1.0
    labels: float = 0.0
    train: str | tuple[str, ...] = "all"
    rates: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0
    retruncate: Mapping[int, float] = field(default_factory=dict)
    dropout: bool = False
    seed: int = 0
    log_every: int = 10

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise CompressionError(
                f"steps is {self.steps} and seconds {self.seconds}; expected exactly one of them, as in "
                "HealConfig(steps=1000)"
            )
        for name, words in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("objective", OBJECTIVES)):
            if getattr(self, name) not in words:
                raise CompressionError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(words)}")
        if isinstance(self.train, str) and self.train not in ROLES:
            raise CompressionError(
                f"train is {self.train!r}; expected one of {', '.join(ROLES)}, or a list of names of parameters"
            )
        for name in ("hidden", "betas", *(() if isinstance(self.train, str) else ("train",))):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("rates", "retruncate"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in (
            "learning_rate",
            "temperature",
            "log_every",
            *(("seconds",) if self.steps is None else ("steps",)),
        ):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise CompressionError(f"{name} is {getattr(self, name)}; expected a number above 0")
        for name in ("clip", "logits", "hidden_weight", "labels", "weight_decay", "seed"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise CompressionError(f"{name} is {getattr(self, name)}; expected a number of at least 0")
        for name, value in (("warm_up", self.warm_up), *(("betas", beta) for beta in self.betas)):
            if not 0 <= value < 1:
                raise CompressionError(f"{name} is {getattr(self, name)}; expected a number in [0, 1)")
        if len(self.betas) != 2:
            raise CompressionError(f"betas are {self.betas}; expected two numbers")
        if not (self.logits or self.labels or (self.hidden and self.hidden_weight)):
            raise CompressionError("logits, labels and hidden weigh nothing; expected a weight above 0 for one of them")
        for pattern, factor in self.rates.items():
            if not (isfinite(factor) and factor >= 0):
                raise CompressionError(f"rates[{pattern!r}] is {factor}; expected a factor of at least 0")
        for step, target in self.retruncate.items():
            whole = isinstance(target, int)
            if step < 1 or (target < 1 if whole else not 0 < target <= 1):
                raise CompressionError(
                    f"retruncate has {target!r} at step {step}; expected a step of at least 1 and a bond of at least 1 "
                    "or a share in (0, 1]"
                )

    def rate(self, share: float) -> float:
        """The learning rate when a share of the training is done."""
        recipe = Recipe(
            name="heal",
            steps=POSITIONS,
            batch=1,
            learning_rate=self.learning_rate,
            schedule="cosine" if self.schedule == "cosine" else "exponential",
            warm_up=self.warm_up,
        )
        return learning_rate(recipe, int(share * POSITIONS))

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        fields = asdict(self)
        fields["retruncate"] = {str(step): target for step, target in self.retruncate.items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

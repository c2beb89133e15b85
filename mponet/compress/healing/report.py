"""`HealReport`: what healing did."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mponet.compress.healing.retruncate import Truncation


@dataclass(frozen=True, slots=True)
class HealRecord:
    """A point of the loss curve.

    Attributes:
        step: optimiser steps done.
        loss: mean over the batches since the entry before, each before its step.
        learning_rate: of the last step, before factors.
        seconds: since healing began, pauses between two processes excluded.
    """

    step: int
    loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class HealReport:
    """What `heal` did.

    Attributes:
        config: the fields of its `HealConfig`.
        before: mean loss on the batches for validation before the first step.
        after: the same after the last one, in inference mode both times.
        steps: optimiser steps.
        seconds: how long they took, pauses between two processes excluded.
        trained: number of weights that moved, at the end.
        records: the loss curve.
        truncations: what became of the operators' bonds.
    """

    config: Mapping[str, Any]
    before: float
    after: float
    steps: int
    seconds: float
    trained: int
    records: tuple[HealRecord, ...]
    truncations: tuple[Truncation, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        from dataclasses import asdict

        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"healed in {self.steps} steps, {self.seconds:.0f} s; {self.trained} weights moved",
            f"loss {self.before:.4g} -> {self.after:.4g}",
        ]
        for cut in self.truncations:
            lines.append(
                f"at step {cut.step} operators went from {cut.weights_before} to {cut.weights} weights, "
                f"relative error up to {cut.error:.2g}"
            )
        return "\n".join(lines)

"""What came out of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from mponet.models.shapes import compression_ratio, parameter_count
from mponet.operators.measure import parameter_ratio
from mponet.training.loop import Record
from mponet.training.run.settings import Settings
from mponet.training.schema import Amount, Count, Positive, Share, Text


@dataclass(frozen=True, slots=True)
class Result:
    """What came out for one variant.

    Attributes:
        accuracy: on the test set at the end, 0 to 1; None if training diverged.
        best_accuracy: the largest one measured on the way; None if training diverged.
        parameters: of the whole network, biases included.
        rho: the paper's compression ratio (Eq. 9), replaced layers only; None for the dense
            variant.
        parameter_ratio: parameters over those of the dense variant.
        step_ms: time of a step, median over the blocks, compilation excluded; None if the run was
            too short to tell.
        steps: done.
        loss: of the last batch; None if it is not finite.
        seconds: of training, evaluation included.
        checkpoint: path of the last one; None if there is none.
        diverged: whether training ended in a number that is not finite.
        message: why it did.
        processes: that trained together at the end.
    """

    accuracy: Share | None
    best_accuracy: Share | None
    parameters: Count
    rho: Amount | None
    parameter_ratio: Amount
    step_ms: Amount | None
    steps: Count
    loss: float | None
    seconds: Amount
    checkpoint: Text | None
    diverged: bool = False
    message: Text | None = None
    processes: Positive = 1

    @property
    def line(self) -> str:
        """In a line, for people."""
        shares = ("unknown" if share is None else f"{share:.2%}" for share in (self.best_accuracy, self.accuracy))
        accuracy = "test accuracy best {}, last {}".format(*shares)
        return f"{'diverged' if self.diverged else accuracy} after {self.steps} steps, {self.seconds:.1f} s"


def result(
    settings: Settings,
    variant: str,
    records: Sequence[Record],
    *,
    checkpoint: Path | None,
    message: str | None,
    processes: int = 1,
) -> Result:
    """The result of a variant, from its records.

    ``message`` says why it diverged; None if it did not.
    """
    last, model = records[-1], settings.networks[variant]
    measured = [record.accuracy for record in records if record.accuracy is not None] if message is None else []
    parameters = parameter_count(model)
    return Result(
        accuracy=measured[-1] if measured else None,
        best_accuracy=max(measured, default=None),
        parameters=parameters,
        rho=compression_ratio(model),
        parameter_ratio=parameter_ratio(parameters, parameter_count(settings.networks["dense"])),
        step_ms=_step_ms(settings.recipe.batch, records),
        steps=last.step,
        loss=last.loss if isfinite(last.loss) else None,
        seconds=last.seconds,
        checkpoint=None if checkpoint is None else str(checkpoint),
        diverged=message is not None,
        message=message,
        processes=processes,
    )


def summary(settings: Settings, backend: str, results: Mapping[str, Result]) -> dict[str, Any]:
    """Everything about a run, for JSON."""
    return {
        "model": settings.model,
        "bond": settings.bond,
        "data": settings.data,
        "backend": backend,
        "preset": settings.recipe.name,
        "seed": settings.seed,
        "variants": {variant: asdict(one) for variant, one in results.items()},
    }


def _step_ms(batch: int, records: Sequence[Record]) -> float | None:
    rates = [record.images_per_s for record in records if record.images_per_s]
    return 1000 * batch / median(rates) if rates else None

"""`Report`: what a compression did, beside what its plan predicted."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mponet.compress.plan import CompressionPlan


@dataclass(frozen=True, slots=True)
class Report:
    """What `compress` did.

    Attributes:
        plan: the plan that was carried out.
        output_errors: relative output error of every operator on the calibration inputs, as fitted.
        seconds: time of each step.
    """

    plan: CompressionPlan
    output_errors: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def deviation(self) -> float:
        """Largest relative difference between a predicted and a fitted output error.

        0 if none was predicted.

        Errors below a thousandth count as a thousandth.
        """
        differences = [
            abs(error - predicted) / max(predicted, 1e-3)
            for name, error in self.output_errors.items()
            if (predicted := self.plan[name].output_error) is not None
        ]
        return max(differences, default=0.0)

    def __str__(self) -> str:
        times = ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items())
        lines = [str(self.plan), "", f"time: {times}" if times else "time: not measured"]
        if self.output_errors:
            lines.append(f"fitted output errors differ from predicted ones by at most {self.deviation:.1%}")
        return "\n".join(lines)

"""`Report`: what a compression did, what it cost, and how good the network is afterwards."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mponet.compress.healing.report import HealReport
from mponet.compress.plan import PICTURES, CompressionPlan
from mponet.compress.plan_file import read, write
from mponet.display import NotebookRepr, page, save_picture
from mponet.errors import CompressionError
from mponet.files import parse_json
from mponet.training.schema import convert_exactly

FORMAT = "mponet-compression-report-1"
#: Name of the file in the folder of a compressed network.
NAME = "compression_report.json"
COLUMNS = ("before", "after", "healed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A figure of the dense network, of the compressed one, and of the healed one.

    Attributes:
        name: what was measured, as ``loss on held-out text``.
        unit: unit of the figures; empty for a pure number.
        before: of the dense network; None if it was not measured.
        after: of the compressed network; None if it was not measured.
        healed: of the healed network; None if it was not measured.
    """

    name: str
    unit: str = ""
    before: float | None = None
    after: float | None = None
    healed: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the networks make of one input, as text.

    Attributes:
        prompt: the input.
        before: output of the dense network.
        after: output of the compressed network.
        healed: output of the healed network; empty if there is none.
    """

    prompt: str
    before: str = ""
    after: str = ""
    healed: str = ""


@dataclass(frozen=True, slots=True)
class Report(NotebookRepr):
    """What `compress` did.

    Attributes:
        plan: the plan that was carried out.
        output_errors: relative output error of every operator, as fitted
            (`mponet.compress.fitting.FittedLayer`).
        seconds: time of each step.
        measurements: figures before, after and healed.
        samples: outputs before, after and healed.
        healing: what healing did; None if there was none.

    Examples:
        >>> report = Report(CompressionPlan(layers=()))
        >>> report = report.measured("perplexity", before=15.5, after=20.9)
        >>> print(report.measurement_lines()[-1])
        perplexity                                          15.5        20.9           -
    """

    plan: CompressionPlan
    output_errors: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    samples: tuple[Sample, ...] = ()
    healing: HealReport | None = None

    @property
    def deviation(self) -> float:
        """Largest relative difference between a predicted and a fitted output error.

        0 if none was predicted.  Errors below a thousandth count as a thousandth.
        """
        differences = [
            abs(error - predicted) / max(predicted, 1e-3)
            for name, error in self.output_errors.items()
            if (predicted := self.plan[name].output_error) is not None
        ]
        return max(differences, default=0.0)

    def measured(self, name: str, unit: str = "", **figures: float) -> "Report":
        """The report with a figure more; those of the same name are joined.

        Args:
            name: what was measured, as ``loss on held-out text``.
            unit: unit of the figures.
            **figures: ``before=``, ``after=`` and ``healed=``, any of them.

        Raises:
            CompressionError: a figure has another name.
        """
        _check(figures)
        old = next((one for one in self.measurements if one.name == name), None)
        new = replace(old or Measurement(name=name, unit=unit), **figures)  # type: ignore[arg-type]
        kept = self.measurements if old else (*self.measurements, new)
        return replace(self, measurements=tuple(new if one.name == name else one for one in kept))

    def sampled(self, prompt: str, **outputs: str) -> "Report":
        """The report with what the networks make of an input; those of the same input are joined.

        Args:
            prompt: the input, as text.
            **outputs: ``before=``, ``after=`` and ``healed=``, any of them.

        Raises:
            CompressionError: an output has another name.
        """
        _check(outputs)
        old = next((one for one in self.samples if one.prompt == prompt), None)
        new = replace(old or Sample(prompt=prompt), **outputs)
        kept = self.samples if old else (*self.samples, new)
        return replace(self, samples=tuple(new if one.prompt == prompt else one for one in kept))

    def healed(self, healing: HealReport) -> "Report":
        """The report with what healing did."""
        return replace(self, healing=healing)

    def to_json(self) -> str:
        """The report as JSON text; `from_json` reads it."""
        values = {name: getattr(self, name) for name in ("output_errors", "seconds")}
        document = {
            "format": FORMAT,
            "plan": json.loads(self.plan.to_json()),
            **{name: dict(value) for name, value in values.items()},
            "measurements": [asdict(one) for one in self.measurements],
            "samples": [asdict(one) for one in self.samples],
            "healing": None if self.healing is None else self.healing.as_dict(),
        }
        return json.dumps(document, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report of a JSON text.

        Raises:
            CompressionError: the text is not a report, or a field is missing, unknown or of another
                type.
        """
        try:
            values = parse_json(text, dict)
            if values.pop("format", None) != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            plan = CompressionPlan.from_json(json.dumps(values.pop("plan", None)))
            document = convert_exactly(values, _Document)
        except ValueError as error:
            raise CompressionError(f"the report is damaged ({error}); expected what to_json gave") from error
        return cls(plan, *(getattr(document, name) for name in _Document.__slots__))

    def to_html(self) -> str:
        """The report as an HTML page in one file: figures, samples, and the plan."""
        return page(self)

    def save(self, path: str | Path) -> None:
        """Write the report, atomically: as JSON, which `load` reads, or as a page or a picture.

        Args:
            path: ends in ``.html``, ``.svg``, ``.png`` or ``.txt`` for that format; a folder gets
                the file `NAME`, beside the plan and the weights of a compressed network; any other
                name is that of a JSON file.

        Raises:
            CheckpointError: the file cannot be written.
            BackendError: a PNG is wanted, and its converter is not installed.
        """
        path = Path(path)
        if path.suffix.lower() in PICTURES:
            save_picture(self, path)
        else:
            write(path / NAME if path.is_dir() else path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """Read a report that `save` wrote as JSON, from its file or its folder.

        Raises:
            CheckpointError: the file cannot be read.
            CompressionError: it is not a report.
        """
        path = Path(path)
        return cls.from_json(read(path / NAME if path.is_dir() else path))

    def measurement_lines(self) -> list[str]:
        """The figures as a table of 80 columns; empty if there are none."""
        if not self.measurements:
            return []
        lines = [f"{'':<44}{'before':>12}{'after':>12}{'healed':>12}"]
        for one in self.measurements:
            name = f"{one.name}, {one.unit}" if one.unit else one.name
            figures = (getattr(one, column) for column in COLUMNS)
            lines.append(f"{name[:44]:<44}" + "".join(f"{figure_text(value):>12}" for value in figures))
        return lines

    def __str__(self) -> str:
        times = ", ".join(f"{name} {value:.1f} s" for name, value in self.seconds.items())
        lines = [str(self.plan), "", f"time: {times}" if times else "time: not measured"]
        if self.output_errors:
            lines.append(f"fitted output errors differ from predicted ones by at most {self.deviation:.1%}")
        if self.measurements:
            lines += ["", *self.measurement_lines()]
        for sample in self.samples:
            lines += ["", f"given:  {sample.prompt}"]
            lines += [f"{name + ':':<8}{text}" for name in COLUMNS if (text := getattr(sample, name))]
        return "\n".join([*lines, *(["", str(self.healing)] if self.healing else [])])


def figure_text(value: float | None) -> str:
    """A figure with four digits, whole numbers in full; ``-`` for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class _Document:
    """The fields of a report as JSON has them, but for its plan."""

    output_errors: dict[str, float]
    seconds: dict[str, float]
    measurements: tuple[Measurement, ...]
    samples: tuple[Sample, ...]
    healing: HealReport | None


def _check(figures: Mapping[str, Any]) -> None:
    if odd := sorted(set(figures) - set(COLUMNS)):
        raise CompressionError(f"{', '.join(odd)} is given; expected any of {', '.join(COLUMNS)}")

"""The metrics of a training as JSON lines.

One `Record` each, appended as it happens, truncated when a run resumes.
"""

from dataclasses import asdict, dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

from mponet.errors import CheckpointError
from mponet.files import parse_json, write_atomically, writing
from mponet.training.loop import Record
from mponet.training.run.lines import complete_lines, line
from mponet.training.schema import Amount, Epoch, Number, Positive, Share

NAME = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class MetricsLine:
    """A line of the file: `Record`, with null for a loss that is not finite."""

    step: Positive
    epoch: Epoch
    loss: float | None
    learning_rate: Number
    accuracy: Share | None
    images_per_s: Amount | None
    seconds: Amount
    diverged: bool = False


def as_dict(record: Record) -> dict[str, Any]:
    """The fields for JSON.

    A loss that is not finite becomes null, ``diverged`` is there only when true.
    """
    values = asdict(record) | {"loss": record.loss if isfinite(record.loss) else None}
    return {key: value for key, value in values.items() if key != "interim" and (key != "diverged" or value)}


def read(path: Path) -> list[Record]:
    """The records of a file; a last line that a kill left incomplete is ignored.

    Raises:
        CheckpointError: the file is absent, a line is not a record, or steps do not increase.
    """
    lines = complete_lines(path)
    if lines is None:
        raise CheckpointError(
            f"{path} is absent; expected the metrics of the run; start the run anew in another folder"
        )
    records: list[Record] = []
    for number, text in enumerate(lines, start=1):
        records.append(_record(text, number, path, records[-1].step if records else 0))
    return records


def read_if_begun(path: Path) -> list[Record]:
    """The records of a file; none where the training has not begun.

    Raises:
        CheckpointError: a line is not a record, or steps do not increase.
    """
    return [] if complete_lines(path) is None else read(path)


def truncate_after(path: Path, step: int) -> list[Record]:
    """Drop the records after ``step``, which the resumed run will write again, and return the rest.

    Raises:
        CheckpointError: the records do not reach ``step``: the file does not belong to the
            checkpoint.
    """
    if step == 0:
        with writing(path):
            path.unlink(missing_ok=True)
        return []
    records = [record for record in read(path) if record.step <= step]
    last = records[-1].step if records else 0
    if last != step:
        raise CheckpointError(
            f"{path} ends at step {last}; expected {step}, that of its checkpoint; put the right file back, "
            "or start the run anew in another folder"
        )
    with writing(path):
        write_atomically(path, "".join(line(as_dict(record)) for record in records).encode())
    return records


def _record(text: bytes, number: int, path: Path, before: int) -> Record:
    try:
        values = parse_json(text, MetricsLine)
        if values.step <= before:
            raise ValueError(f"step is {values.step} after step {before}; two processes wrote to this file")
    except ValueError as error:
        raise CheckpointError(
            f"line {number} of {path} is {text[:80]!r} ({error}); expected a record of a training, with steps that "
            "increase; start the run anew in another folder"
        ) from error
    return Record(
        values.step,
        values.epoch,
        nan if values.loss is None else values.loss,
        values.learning_rate,
        values.accuracy,
        values.images_per_s,
        values.seconds,
        values.diverged,
    )

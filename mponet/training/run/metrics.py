"""The course of a training as JSON lines: one `Record` each, appended as it happens, cut back when a run resumes."""

import json
from dataclasses import asdict, fields
from math import isfinite, nan
from pathlib import Path
from typing import Any

from mponet.errors import CheckpointError
from mponet.files import write_atomically, writing
from mponet.training.loop import Record
from mponet.training.run.lines import complete_lines, line

NAME = "metrics.jsonl"
_FIELDS = frozenset(field.name for field in fields(Record))


def as_dict(record: Record) -> dict[str, Any]:
    """The fields for JSON; a loss that is not finite becomes null, ``diverged`` is there only when true."""
    values = asdict(record) | {"loss": record.loss if isfinite(record.loss) else None}
    return {key: value for key, value in values.items() if key != "diverged" or value}


def read(path: Path) -> list[Record]:
    """The records of a file; a last line that a kill left half written is ignored.

    Raises:
        CheckpointError: the file is absent, or another line is not one of ours.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path} is absent; expected the metrics of the run; start the run anew in another folder"
        )
    return [_record(text, number, path) for number, text in enumerate(complete_lines(path), start=1)]


def truncate_after(path: Path, step: int) -> list[Record]:
    """Drop the records after ``step``, which the run that resumes there will write again, and give the rest.

    Raises:
        CheckpointError: the records do not reach ``step``: the file does not belong to the
            checkpoint.
    """
    if step == 0:
        path.unlink(missing_ok=True)
        return []
    records = [record for record in read(path) if record.step <= step]
    last = records[-1].step if records else 0
    if last != step:
        raise CheckpointError(
            f"{path} ends at step {last}; expected {step}, that of the checkpoint beside it; put the right file back, "
            "or start the run anew in another folder"
        )
    with writing(path):
        write_atomically(path, "".join(line(as_dict(record)) for record in records).encode())
    return records


def _record(text: bytes, number: int, path: Path) -> Record:
    try:
        values = json.loads(text)
        loss = values["loss"]
        record = Record(
            **{key: value for key, value in values.items() if key in _FIELDS} | {"loss": nan if loss is None else loss}
        )
        if record.step < 1:
            raise ValueError(f"step is {record.step}")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"line {number} of {path} is {text[:80]!r} ({type(error).__name__}: {error}); expected a record of a "
            "training; start the run anew in another folder"
        ) from error
    return record

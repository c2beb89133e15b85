"""The checked types in documents of trainings, as `mponet.files.read_json` takes them.

Numbers are bounded so that whoever reads them can add, multiply and print them; JSON itself holds
no number that is not finite.
"""

from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from msgspec import Meta, ValidationError, convert

T = TypeVar("T")

MAX_INTEGER = 2**53  # what every reader of JSON keeps exactly
MAX_FLOAT = 1e30

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Text = Annotated[str, Meta(max_length=100_000)]
Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Positive = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Amount = Annotated[float, Meta(ge=0.0, le=MAX_FLOAT)]
Epoch = Annotated[float, Meta(ge=0.0, le=1e9)]
Entropy = Annotated[float, Meta(ge=-1.0, le=1000.0)]  # rounding may take it below zero
Magnitude = Annotated[float, Meta(ge=0.0, le=1e300)]  # of weights that may have grown without bound
Number = Annotated[float, Meta(ge=-MAX_FLOAT, le=MAX_FLOAT)]
Versions = Annotated[dict[Name, Name], Meta(max_length=100)]


def convert_exactly(values: dict[str, Any], kind: type[T]) -> T:
    """A dataclass from its fields.

    Unlike `mponet.files.parse_json`, names that it does not have are refused.

    Settings that a newer mponet wrote would otherwise be read as others.

    Raises:
        ValueError: the values do not fit, or hold other names; says which.
    """
    if unknown := sorted(_unknown(values, kind)):
        raise ValueError(f"it holds {', '.join(unknown)}, perhaps of a newer mponet")
    try:
        return convert(values, kind)
    except (ValidationError, RecursionError) as error:
        raise ValueError(str(error)) from error


@lru_cache(maxsize=16)
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _unknown(values: Any, kind: Any) -> set[str]:
    """Names in ``values`` that ``kind``, or a dataclass within it, does not have."""
    if isinstance(values, list) and get_args(kind):
        return set().union(*(_unknown(item, get_args(kind)[0]) for item in values))
    kind = next((part for part in get_args(kind) if is_dataclass(part)), kind)  # Layout | None
    if not is_dataclass(kind) or not isinstance(values, dict):
        return set()
    hints = _hints(kind)  # type: ignore[arg-type]
    known = {field.name for field in fields(kind) if field.init}
    inner = (_unknown(values[name], hints[name]) for name in known & set(values))
    return {str(name)[:40] for name in set(values) - known}.union(*inner)

"""Which names a pattern means, and errors that help when it means none."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches

from mponet.compress.target import Target
from mponet.errors import CompressionError

#: A regular expression that matches whole names; a list of names or of their last parts; or a
#: function.
Pattern = str | Collection[str] | Callable[[Target], bool]


def matcher(pattern: Pattern, role: str) -> Callable[[Target], bool]:
    """A function that tells whether a pattern means a target.

    Args:
        pattern: a string is a regular expression for the whole name; a list holds names, or last
            parts of names (``"q_proj"`` means ``"layers.0.attention.q_proj"``); a function takes
            the `Target`.
        role: what the pattern is for, named in errors.

    Raises:
        CompressionError: the pattern is none of these, or no valid regular expression.
    """
    if isinstance(pattern, str):
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise CompressionError(
                f"{role} is {pattern!r}, which is not a regular expression ({error}); use a list for plain names"
            ) from error
        return lambda target: compiled.fullmatch(target.name) is not None
    if callable(pattern):
        return pattern
    if isinstance(pattern, Collection) and all(isinstance(name, str) for name in pattern):
        names = tuple(pattern)
        return lambda target: any(means(name, target.name) for name in names)
    raise CompressionError(
        f"{role} is {pattern!r}; expected a regular expression, a list of names, or a function of a Target"
    )


def means(name: str, full: str) -> bool:
    """Whether ``name`` is the full dotted name or the last parts of it."""
    return full == name or full.endswith(f".{name}")


def check_used(pattern: Pattern, role: str, targets: Sequence[Target]) -> None:
    """Refuse a pattern, or an entry of a list, that means no target.

    Raises:
        CompressionError: it does; the message shows close names and the types that are there.
    """
    if isinstance(pattern, str) or callable(pattern):
        unused = [] if any(map(matcher(pattern, role), targets)) else [pattern]
    else:
        unused = [name for name in pattern if not any(means(name, target.name) for target in targets)]
    if not unused:
        return
    shown = ", ".join(repr(entry) if isinstance(entry, str) else "the function" for entry in unused)
    raise CompressionError(f"{role} {shown} matches no module; {_hint(unused, targets)}")


def _hint(unused: Sequence[object], targets: Sequence[Target]) -> str:
    names = {target.name: target.name for target in targets}
    names |= {target.name.rpartition(".")[2]: target.name for target in targets}
    close = [
        names[match]
        for entry in unused
        if isinstance(entry, str)
        for match in get_close_matches(entry, list(names), n=3, cutoff=0.5)
    ]
    types = Counter(target.type_name for target in targets)
    present = ", ".join(f"{count} {name}" for name, count in sorted(types.items())) or "none"
    nearest = f"close names are {', '.join(dict.fromkeys(close))}; " if close else ""
    return f"{nearest}modules with weights are {present}"

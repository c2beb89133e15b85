"""Which parameters move during healing, and at which rates."""

import re
from collections.abc import Mapping
from math import prod

from mponet.compress.healing.adapter import OperatorParameters
from mponet.compress.healing.config import HealConfig
from mponet.compress.match import means
from mponet.errors import CompressionError

Shapes = Mapping[str, tuple[int, ...]]


def rate_factors(config: HealConfig, shapes: Shapes, operators: Mapping[str, OperatorParameters]) -> dict[str, float]:
    """The factor of the learning rate of every parameter that moves.

    Args:
        config: what moves, and how fast.
        shapes: of all parameters.
        operators: by name of their module.

    Raises:
        CompressionError: nothing moves, or a name or pattern matches no parameter.

    Example:
        >>> shapes = {"a.core1": (1, 8, 8, 2), "a.core2": (2, 2, 2, 1), "norm": (8,)}
        >>> operators = {"a": OperatorParameters(("a.core1", "a.core2"), ())}
        >>> rate_factors(HealConfig(steps=1, train="auxiliary"), shapes, operators)
        {'a.core2': 1.0}
        >>> rate_factors(HealConfig(steps=1, rates={"central": 0.1, "norm": 0}), shapes, operators)
        {'a.core1': 0.1, 'a.core2': 1.0}
    """
    roles = _roles(shapes, operators)
    chosen = _chosen(config.train, shapes, roles)
    unused = set(config.rates)
    factors: dict[str, float] = {}
    for name in chosen:
        pattern = next((p for p in config.rates if _matches(p, name, roles)), None)
        unused.discard(str(pattern))
        factor = 1.0 if pattern is None else float(config.rates[pattern])
        if factor:
            factors[name] = factor
    if unused:
        raise CompressionError(
            f"rates[{min(unused)!r}] matches no parameter that moves; expected central, auxiliary, or a regular "
            f"expression of a whole name such as {next(iter(chosen), '(none)')!r}"
        )
    if not factors:
        raise CompressionError(
            f"train={config.train!r} moves no parameter of {len(shapes)} in {len(operators)} operators; expected at "
            "least one; heal a compressed network, or train='all'"
        )
    return factors


def _roles(shapes: Shapes, operators: Mapping[str, OperatorParameters]) -> dict[str, str]:
    """``central`` or ``auxiliary`` for the parameters of operators."""
    roles: dict[str, str] = {}
    for operator in operators.values():
        for name in (*operator.cores, *operator.others):
            roles.setdefault(name, "auxiliary")
        roles[max(operator.cores, key=lambda name: prod(shapes[name]))] = "central"
    return roles


def _chosen(train: str | tuple[str, ...], shapes: Shapes, roles: Mapping[str, str]) -> list[str]:
    if train == "all":
        return list(shapes)
    if isinstance(train, str):
        return [name for name in shapes if name in roles and train in ("operators", roles[name])]
    for entry in train:
        if not any(means(entry, name) for name in shapes):
            raise CompressionError(
                f"train {entry!r} matches no parameter; parameters are {', '.join(list(shapes)[:5])}"
            )
    return [name for name in shapes if any(means(entry, name) for entry in train)]


def _matches(pattern: str, name: str, roles: Mapping[str, str]) -> bool:
    return roles.get(name) == pattern or re.fullmatch(pattern, name) is not None

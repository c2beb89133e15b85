"""Which modules of a network may be replaced, and why the others are not."""

from collections.abc import Sequence
from dataclasses import dataclass

from mponet.compress.config import CompressConfig, Override
from mponet.compress.match import check_used, matcher
from mponet.compress.target import Target


@dataclass(frozen=True, slots=True)
class Selected:
    """A module and what was decided about it.

    Attributes:
        target: the module.
        reason: why it is left alone; empty if it may be replaced.
        override: what the config says about it in particular.
    """

    target: Target
    reason: str
    override: Override


def select(targets: Sequence[Target], config: CompressConfig) -> tuple[Selected, ...]:
    """Every module of a network with the reason why it may not be replaced, if there is one.

    Raises:
        CompressionError: an entry of ``include``, ``exclude`` or ``overrides`` matches no module.

    """
    for role in ("include", "exclude"):
        pattern = getattr(config, role)
        if pattern is not None and pattern != ():
            check_used(pattern, role, targets)
    for name in config.overrides:
        check_used(name, "the override", targets)
    rules = [(matcher(name, "the override"), override) for name, override in config.overrides.items()]
    included = matcher(config.include, "include") if config.include is not None else lambda _: True
    excluded = matcher(config.exclude, "exclude")
    partners = {target.tied_to for target in targets if target.tied_to}
    reasons: dict[str, str] = {}
    for target in targets:
        if not included(target):
            reason = "not in include"
        elif excluded(target):
            reason = "in exclude"
        else:
            reason = _reason(target, config, tied=bool(target.tied_to) or target.name in partners)
        reasons[target.name] = reason
    for target in targets:  # a tensor that two modules hold is replaced in both or in none
        if target.tied_to and target.tied_to in reasons:
            mine, theirs = reasons[target.name], reasons[target.tied_to]
            if bool(mine) != bool(theirs):
                name, why = (target.name, mine) if mine else (target.tied_to, theirs)
                left = target.tied_to if mine else target.name
                reasons[left] = f"shares its weight with {name} ({why})"
    first = {target.name: next((o for rule, o in rules if rule(target)), Override()) for target in targets}
    return tuple(Selected(target, reasons[target.name], first[target.name]) for target in targets)


def _reason(target: Target, config: CompressConfig, *, tied: bool) -> str:
    if target.unsupported:
        return target.unsupported
    if target.kind not in config.kinds:
        return f"kind {target.kind} is not in kinds"
    if target.weights < config.min_weights:
        return f"{target.weights} weights are fewer than min_weights {config.min_weights}"
    if tied and config.tied == "skip":
        return "its weight is tied"
    return ""

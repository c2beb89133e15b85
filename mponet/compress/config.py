"""`CompressConfig`: what to compress, and to what budget."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, Literal

from mponet.compress.after_healing import offered_after_healing
from mponet.compress.match import Pattern, matcher
from mponet.compress.structures import structure_names
from mponet.compress.target import KINDS, Target
from mponet.errors import CompressionError

BUDGETS = ("keep", "error", "multiplications", "bytes")
ALLOCATIONS = ("loss", "output", "normalized", "uniform")
METRICS = ("auto", "kfac", "covariance", "diagonal", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """What differs for some modules.

    Attributes:
        keep: share of the module's weights that is left at most.
        error: relative error of its outputs at most.
        structures: as in `CompressConfig`; None takes those of the config.
        input_dims: factors of the inputs, one per site; None searches.
        output_dims: factors of the outputs, as many.
        bond: inner bonds, one number for all or one for each; None lets the budget decide.

    Raises:
        CompressionError: a value is out of range, or does not go with another.
    """

    keep: float | None = None
    error: float | None = None
    structures: tuple[str, ...] | None = None
    input_dims: tuple[int, ...] | None = None
    output_dims: tuple[int, ...] | None = None
    bond: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_share("keep", self.keep)
        _check_share("error", self.error, zero=True)
        if self.structures is not None:
            _check_names("structures", self.structures, structure_names())
        if (self.input_dims is None) != (self.output_dims is None):
            raise CompressionError("only one of input_dims and output_dims is given; expected both or none")
        if self.bond is not None and (self.keep is not None or self.error is not None):
            raise CompressionError("bond is given with keep or error; expected one of them, since a bond decides both")
        if self.bond is not None and self.input_dims is None:
            raise CompressionError("bond is given without factors; expected input_dims and output_dims with it")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressConfig:
    """What to compress, and to what budget.  Exactly one budget is given.

    Attributes:
        keep: share of the weights that is left, above 0 and at most 1; biases do not count.
        error: largest relative error of every layer's outputs, ``||y - y'|| / ||y||``.
        multiplications: share of the multiplications of one example that is left.  A layer whose
            operator would take more than 1.05 times as long as the layer is left dense.
        bytes: bytes of the weights as stored.
        of: what the budget counts: the ``layers`` that may be replaced, or the whole ``network``.
        include: modules that may be replaced (`mponet.compress.match.matcher`); None means all.
        exclude: modules that are left alone; it wins over ``include``.
        overrides: what differs, by regular expression of the name; the first match counts.
        kinds: kinds of layers that may be replaced.
        structures: families of operators to choose from (`mponet.compress.structures`).
        heal: whether healing follows.  Then layers that the budget leaves few weights are offered
            balanced operators only, which healed better on FC2
            (`mponet.compress.after_healing`); budgets ``error`` and ``bytes`` do not say how many
            are left, and ignore it.
        min_weights: smaller matrices are left alone.
        tied: ``share`` compresses a tensor that two modules hold once, for both; ``skip`` leaves
            both alone.
        allocation: how the budget is shared among layers: ``loss`` weights output errors by the
            loss's gradient, ``output`` does not weight them, ``normalized`` takes each layer's
            relative error, ``uniform`` gives every layer the same share.
        metric: what a layer is fitted in: ``covariance`` of its inputs, its ``diagonal``, or
            ``none``; ``kfac`` weighs errors by the covariance and by the second moment of the
            loss's gradient at the outputs, which needs backward passes and ``out^2`` numbers for
            each layer, and is ``covariance`` where no gradients were gathered.  ``auto`` takes
            ``kfac`` where a budget is allocated by ``loss``, and ``covariance`` otherwise, also for
            the budget ``error``.
        floor: smallest share of its weights that any layer keeps.
        ceiling: largest share that a replaced layer keeps; above, it is left dense.
        bias_correction: whether the mean of what a layer loses is added to its bias.
        seed: of randomised methods.

    Raises:
        CompressionError: not exactly one budget is given, or a value is out of range.

    Examples:
        >>> CompressConfig(keep=0.5, exclude=["lm_head"]).budget
        ('keep', 0.5)
    """

    keep: float | None = None
    error: float | None = None
    multiplications: float | None = None
    bytes: int | None = None
    of: Literal["layers", "network"] = "layers"
    include: Pattern | None = None
    exclude: Pattern = ()
    overrides: Mapping[str, Override] = field(default_factory=dict)
    kinds: tuple[str, ...] = KINDS
    structures: tuple[str, ...] = ("low-rank", "mpo", "window")
    heal: bool = False
    min_weights: int = 4096
    tied: Literal["share", "skip"] = "share"
    allocation: str = "loss"
    metric: str = "auto"
    floor: float = 0.0
    ceiling: float = 1.0
    bias_correction: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) != 1:
            raise CompressionError(
                f"budgets given: {', '.join(given) or 'none'}; expected exactly one of {', '.join(BUDGETS)}, "
                "as in CompressConfig(keep=0.5)"
            )
        for name in ("keep", "multiplications", "ceiling"):
            _check_share(name, getattr(self, name))
        for name in ("error", "floor"):
            _check_share(name, getattr(self, name), zero=True)
        for name in ("min_weights", "seed", "bytes"):
            _check_count(name, getattr(self, name))
        _check_names("of", (self.of,), ("layers", "network"))
        _check_names("kinds", self.kinds, KINDS)
        _check_names("structures", self.structures, structure_names())
        _check_names("tied", (self.tied,), ("share", "skip"))
        _check_names("allocation", (self.allocation,), ALLOCATIONS)
        _check_names("metric", (self.metric,), METRICS)
        if self.floor > self.ceiling:
            raise CompressionError(f"floor is {self.floor} and ceiling {self.ceiling}; expected floor <= ceiling")
        for role in ("include", "exclude"):
            if getattr(self, role) is not None:
                matcher(getattr(self, role), role)
        for name, override in self.overrides.items():
            matcher(name, "the override")
            if not isinstance(override, Override):
                raise CompressionError(f"overrides[{name!r}] is {override!r}; expected an Override")
        object.__setattr__(self, "overrides", dict(self.overrides))

    @property
    def fit_metric(self) -> str:
        """The metric that ``auto`` takes, or the one that is given."""
        if self.metric != "auto":
            return self.metric
        return "kfac" if self.allocation == "loss" and self.error is None else "covariance"

    @property
    def needs_gradients(self) -> bool:
        """Whether allocation or metric ask for backward passes."""
        return self.allocation == "loss" or self.fit_metric == "kfac"

    @property
    def budget(self) -> tuple[str, float]:
        """Name and value of the one budget that is given."""
        name = next(name for name in BUDGETS if getattr(self, name) is not None)
        return name, float(getattr(self, name))

    def offered(self, target: Target, override: Override) -> tuple[str, ...]:
        """The families of operators that a layer may become."""
        if override.structures is not None:
            return override.structures
        keep = override.keep or self.keep or self.multiplications
        if not self.heal or keep is None:
            return self.structures
        return offered_after_healing(target, self.structures, keep)

    def summary(self) -> dict[str, Any]:
        """Every field as JSON has it: functions by their names, the metric that ``auto`` takes."""
        values = {f.name: getattr(self, f.name) for f in fields(self)} | {"metric": self.fit_metric}
        values["overrides"] = {
            name: {f.name: getattr(override, f.name) for f in fields(override)}
            for name, override in self.overrides.items()
        }
        return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    if callable(value):
        return f"<function {getattr(value, '__qualname__', type(value).__name__)}>"
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    return [_plain(item) for item in value] if isinstance(value, list | tuple | set | frozenset) else value


def _check_share(name: str, value: Any, *, zero: bool = False) -> None:
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    if not number or not (0.0 <= value <= 1.0) or (value == 0.0 and not zero):
        low = "from 0" if zero else "above 0"
        raise CompressionError(f"{name} is {value!r}; expected a share {low} to 1, as 0.5 for one half")


def _check_count(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise CompressionError(f"{name} is {value!r}; expected a whole number of at least 0")


def _check_names(name: str, values: Any, known: tuple[str, ...]) -> None:
    if isinstance(values, str) or not values or any(value not in known for value in values):
        raise CompressionError(f"{name} is {values!r}; expected some of {', '.join(known)}")

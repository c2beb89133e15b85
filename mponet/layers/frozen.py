"""What a frozen layer keeps for inference: weights merged by few plans, or the whole matrix.

A layer that is trained merges its cores in every call, or checks in every call whether they have
changed.  A frozen layer merges them once.  It keeps a sweep's weights for the sizes of batch at
which the sweep is predicted to be clearly faster than the dense layer, and the matrix for others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import inf
from typing import Any

from mponet.contraction.cost import dense, predict
from mponet.contraction.machine import Machine
from mponet.contraction.planner import FINALISTS, ITEMSIZE, PlanningContext, PlanRequest, mode, timed
from mponet.contraction.program import BasePlan
from mponet.contraction.search import AnyPlan, Shape
from mponet.layers.conv_choice import conv_plans
from mponet.layers.conv_plan import ConvPlan
from mponet.layers.convolution import ConvShape
from mponet.layers.window import Window

#: Rows for which plans are chosen; each choice serves so many rows and fewer, the last also more.
ROWS = (1, 8, 64, 512, 4096)
#: The choice that serves batches of unknown size.
UNKNOWN = 64
#: Different sweeps of which a layer keeps weights, in addition to the matrix.
MAX_SWEEPS = 2
#: Predicted time of a sweep over that of the dense layer up to which the sweep is taken, because
#: predictions are this wrong.
MARGIN = 0.8
#: Factor on it for batches of this many rows and more: their states leave the caches, and
#: predictions of that are worse.
MANY_ROWS, MANY_MARGIN = 512, 0.875
#: A sweep that is kept anyway is used where it takes up to this much longer than the best sweep.
SLACK = 1.1
#: Low rank is two plain products with the cores as they are.  On a CPU a frozen layer runs such
#: products for every size of batch.  Two conditions: they have at most this share of the matrix's
#: multiplications, and the matrix has at least this many entries.  Then the dense layer is not
#: faster (`benchmarks/compress_speed.py` at keep 0.8).
PLAIN_SHARE, PLAIN_WEIGHTS = 0.85, 1 << 16
#: Candidates of the cost model that are looked at.
CANDIDATES = 12
#: Weights that are only read come this much faster from the last cache than states that are
#: written and read, which the constants of a machine are about.  It decides between a sweep and the
#: matrix.
READING = 3.0
#: Numbers of maps for which the plan of a convolution is chosen.
MAPS = (1, 8, 64)


@dataclass(frozen=True, slots=True)
class KeptPlans:
    """The plans of a frozen layer by size of batch; None is the product with the matrix.

    Attributes:
        forms: plans of which the weights are kept, each with weights of its own.
        choices: number of a form and the plan to run, for each of `ROWS`.
    """

    forms: tuple[AnyPlan | None, ...]
    choices: tuple[tuple[int, AnyPlan | None], ...]

    def choose(self, rows: int | None) -> tuple[int, AnyPlan | None]:
        """The number of the form, and the plan, for a batch; None while its size is not known."""
        if rows is None or (len(self.forms) == 1 and self.forms[0] is None):
            form, plan = self.choices[ROWS.index(UNKNOWN)]
            return form, None if plan is None else plan.with_tile(None)
        for limit, choice in zip(ROWS, self.choices, strict=True):
            if rows <= limit:
                return choice
        return self.choices[-1]

    def __str__(self) -> str:
        return " and ".join("the matrix" if plan is None else str(plan.with_tile(None)) for plan in self.forms)


def kept_plans(shape: Shape, whole: BasePlan, dtype: str, context: PlanningContext) -> KeptPlans:
    """What a layer keeps.

    By the cost model, or with ``MPONET_PLAN=measure`` by timing the best few plans and the matrix.

    Args:
        shape: the operator.
        whole: the plan that rebuilds its matrix.
        dtype: of the computation.
        context: what the backend plans by.
    """
    return _kept_plans(shape, whole, dtype, context, mode())


@lru_cache(maxsize=1024)
def _kept_plans(shape: Shape, whole: BasePlan, dtype: str, context: PlanningContext, how: str) -> KeptPlans:
    machine = replace(context.machine(dtype), kernel_flops=0.0)
    if how == "model" and not context.device and (plain := _plain(shape, machine)) is not None:
        return KeptPlans((plain,), ((0, plain),) * len(ROWS))
    forms: list[AnyPlan | None] = []
    choices = []
    for rows in ROWS:
        request = PlanRequest(shape, rows, ITEMSIZE.get(dtype, 4), machine)
        times = _measured(request, whole, dtype, context) if how == "measure" else _predicted(request)
        plan = _chosen(times, forms)
        keys = [_key(form) for form in forms]
        if _key(plan) not in keys:
            forms.append(plan)
            keys.append(_key(plan))
        choices.append((keys.index(_key(plan)), plan))
    return KeptPlans(tuple(forms), tuple(choices))


@lru_cache(maxsize=1024)
def kept_conv_plan(shape: ConvShape, window: Window, dtype: str, context: PlanningContext) -> ConvPlan:
    """The plan of a frozen convolution; that of the dense kernel unless another is clearly faster.

    It must be faster for every number of maps in `MAPS`.
    """
    whole = ConvPlan(shape, (shape.sites,))
    unknown = (None,) * shape.rank
    requests = [conv_plans(shape, window, maps, unknown, dtype, context).request for maps in MAPS]

    def ratio(plan: ConvPlan) -> float:
        seconds = ((one.seconds(plan, "inference"), one.seconds(whole, "inference")) for one in requests)
        return max(ours / dense for ours, dense in seconds)

    best = min((request.ranked("inference")[0] for request in requests), key=ratio)
    return best if ratio(best) <= MARGIN else whole


@dataclass(frozen=True, slots=True)
class FrozenLayer:
    """What a layer keeps.

    Attributes:
        kept: in words.
        nbytes: of the weights that are kept, in addition to the parameters.
        matrix_nbytes: of the dense layer's weight.
    """

    kept: str
    nbytes: int
    matrix_nbytes: int


@dataclass(frozen=True, slots=True)
class FreezeReport:
    """What the ``freeze`` of an adapter did.

    Attributes:
        layers: what each layer keeps, by the name of the module.

    Examples:
        >>> print(FreezeReport({"head": FrozenLayer("the matrix", 4_000_000, 4_000_000)}))
        1 layer frozen, 1 with its matrix; 4.0 MB kept, dense weights have 4.0 MB
    """

    layers: Mapping[str, FrozenLayer] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is kept, in addition to the parameters."""
        return sum(layer.nbytes for layer in self.layers.values())

    def __str__(self) -> str:
        count = len(self.layers)
        whole = sum("matrix" in layer.kept for layer in self.layers.values())
        dense_bytes = sum(layer.matrix_nbytes for layer in self.layers.values())
        return (
            f"{count} layer{'' if count == 1 else 's'} frozen, {whole} with {'its' if whole == 1 else 'their'} matrix; "
            f"{self.nbytes / 1e6:.1f} MB kept, dense weights have {dense_bytes / 1e6:.1f} MB"
        )


def _plain(shape: Shape, machine: Machine) -> AnyPlan | None:
    """The plan of an operator that has few plain products with its tensors; None of any other."""
    if shape.dense_parameters < PLAIN_WEIGHTS:
        return None
    for plan in PlanRequest(shape, UNKNOWN, machine=machine).ranked("inference", CANDIDATES):
        steps = plan.steps
        plain = all(step.prefix == step.suffix == 1 and step.transposition is None for step in steps)
        if plain and plan.program.merges_nothing and not plan.program.orders:
            few = plan.sweep_multiplications <= PLAIN_SHARE * shape.dense_parameters
            return plan.with_tile(None) if few else None
    return None


def _predicted(request: PlanRequest) -> dict[AnyPlan | None, float]:
    """Predicted seconds of sweeps, and those of the matrix with the margin."""
    machine = replace(request.machine, llc_bandwidth=READING * request.machine.llc_bandwidth)
    options: dict[str, Any] = {"purpose": "inference", "itemsize": request.itemsize, "machine": machine}
    margin = MARGIN * (MANY_MARGIN if request.rows >= MANY_ROWS else 1.0)
    times: dict[AnyPlan | None, float] = {None: margin * dense(request.shape, request.rows, **options).seconds}
    first: dict[Any, AnyPlan] = {}  # of equal weights: tiles are about states, which come at the usual speed
    for plan in _sweeps(request):
        best = first.setdefault(plan.weights_key, plan)
        times[best] = min(times.get(best, inf), predict(plan, request.rows, **options))
    return times


def _measured(
    request: PlanRequest, whole: BasePlan, dtype: str, context: PlanningContext
) -> dict[AnyPlan | None, float]:
    """Seconds of the best few sweeps and of the matrix, timed here."""
    finalists = [*_sweeps(request)[:FINALISTS], whole]
    times = timed(finalists, request.rows, "inference", dtype, context.runner)  # type: ignore[arg-type]
    return {None if plan is whole else plan: seconds for plan, seconds in times.items()}


def _sweeps(request: PlanRequest) -> list[AnyPlan]:
    """The best plans of several steps.

    Those that transpose the batch are left out: with weights at hand they gain nothing.
    """
    return [
        plan
        for plan in request.ranked("inference", CANDIDATES)
        if len(plan.steps) > 1
        and not getattr(plan, "transposed", False)
        and request.fits(plan, "inference")
        and sum(step.rows * step.inner for step in plan.steps) <= request.shape.dense_parameters
    ]


def _chosen(times: Mapping[AnyPlan | None, float], forms: list[AnyPlan | None]) -> AnyPlan | None:
    """The fastest plan, or one whose weights are kept already."""
    order = [plan for plan in sorted(times, key=lambda plan: times[plan]) if times[plan] <= times[None]]
    keys = {_key(form) for form in forms if form is not None}
    again = next((plan for plan in order if plan is not None and _key(plan) in keys), None)
    if order[0] is None or (again is not None and times[again] <= SLACK * times[order[0]]):
        return again if order[0] is not None else None
    return order[0] if len(keys) < MAX_SWEEPS else again


def _key(plan: AnyPlan | None) -> Any:
    return None if plan is None else plan.weights_key

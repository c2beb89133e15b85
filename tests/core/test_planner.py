"""The planner: which plan wins, which are timed, what it explains.  The clock is simulated."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mponet.contraction.planner
from core.strategies import shapes
from mponet.contraction.cost import predict, workspace
from mponet.contraction.machine import DEFAULT_COSTS, Machine
from mponet.contraction.memory import VARIABLE as MEMORY
from mponet.contraction.memory import checked_memory, memory_budget
from mponet.contraction.plan import Plan
from mponet.contraction.planner import (
    FINALISTS,
    PURPOSES,
    ROUNDS,
    VARIABLE,
    PlanningContext,
    PlanRequest,
    PlanSet,
    _plans_for,
    mode,
    plans_for,
    rounded,
    timed,
)
from mponet.contraction.search import candidates, fits, ranked
from mponet.errors import PlanError
from mponet.operators.shape import MPOShape
from mponet_numpy.ops.planning import planner as numpy_planner

SHAPE = MPOShape.from_factors((4, 7, 7, 4), (4, 4, 4, 4), 8)
#: The weights alone take more than a tenth of its inputs and outputs.
CRAMPED = MPOShape.from_factors((64, 64), (64, 64), 64)
#: Sweeps of three groups, whose states are several times as large as the inputs.
WIDE = MPOShape.from_factors((4, 4, 8, 8, 4), (4, 4, 8, 8, 4), 4)
#: Four of 24 plans keep within it in training.
ROOMY = MPOShape.from_factors((64, 64), (64, 64), 8)


class Clock:
    """A library whose passes take as long as they are told: the clock stands still but for them."""

    def __init__(self, seconds, disturbed=()):
        self.now = 0.0
        self.seconds, self.disturbed = seconds, disturbed
        self.asked, self.runs = [], []

    def __call__(self):
        return self.now

    def runner(self, plan, batch, purpose, dtype):
        self.asked.append((plan, batch, purpose, dtype))

        def run():
            self.runs.append(plan)
            self.now += self.seconds(plan) * (100.0 if len(self.runs) in self.disturbed else 1.0)

        return run


@pytest.fixture(autouse=True)
def _undisturbed(monkeypatch, tmp_path):
    """No choice of another test, no constants of this machine."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("MPONET_CACHE", str(tmp_path))
    _plans_for.cache_clear()
    yield
    _plans_for.cache_clear()


@pytest.fixture
def clock(monkeypatch):
    def start(seconds, disturbed=()):
        made = Clock(seconds, disturbed)
        monkeypatch.setattr(mponet.contraction.planner, "perf_counter", made)
        return made

    return start


def backend(runner=None, name="made-up"):
    return PlanningContext(name, lambda: {"made-up": "1"}, runner)


# ---------------------------------------------------------------- by the model


@given(shapes(max_size=4096), st.sampled_from([None, 1, 100]))
def test_without_a_runner_each_purpose_has_the_favourite_of_the_model(shape, batch):
    plans = PlanSet.of(PlanRequest(shape, batch))
    for purpose in PURPOSES:
        assert getattr(plans, purpose) == ranked(shape, batch, purpose=purpose)[0]
    assert plans.seconds == {}


def test_constants_of_the_machine_decide():
    """Expensive calls favour few operations, free calls favour few multiplications."""
    shape = MPOShape.from_factors((16, 16), (16, 16), 2)
    slow, quick = (
        PlanSet.of(PlanRequest(shape, 4, machine=Machine(call_overhead=call))).forward for call in (10.0, 1e-12)
    )
    assert slow.groups == (2,)
    assert quick.multiplications(4) < slow.multiplications(4)


def test_plans_that_somebody_made_are_alike():
    plan = Plan(SHAPE, (2, 2), (1, 0))
    assert PlanSet.alike(plan) == PlanSet(plan, plan, plan)


def test_plans_are_values():
    """Compilers keep what they compiled by them: what was measured makes no difference."""
    one, other = PlanSet.of(PlanRequest(SHAPE, 8)), PlanSet.of(PlanRequest(SHAPE, 8))
    timed_ones = PlanSet(one.forward, one.training, one.inference, one.request, {("forward", one.forward): 1.0})
    assert one == other == timed_ones
    assert len({one, other, timed_ones}) == 1


# ---------------------------------------------------------------- by measuring


@pytest.mark.parametrize("batch", [1, 100])
def test_the_fastest_of_the_finalists_wins_whatever_the_model_says(clock, batch):
    request = PlanRequest(SHAPE, batch)
    for place in range(FINALISTS):
        wanted = {purpose: request.ranked(purpose)[place] for purpose in PURPOSES}
        made = clock(lambda plan, wanted=wanted: 1.0 if plan in wanted.values() else 2.0)
        plans = PlanSet.of(request, made.runner)
        for purpose in PURPOSES:
            best = min(request.ranked(purpose)[:FINALISTS], key=lambda plan: plan not in wanted.values())
            assert getattr(plans, purpose) == best
            assert plans.seconds[purpose, best] == 1.0


def test_the_finalists_alone_are_timed(clock):
    request = PlanRequest(SHAPE, 100, itemsize=8)
    made = clock(lambda plan: 1.0)
    plans = PlanSet.of(request, made.runner, "float64")
    expected = [(plan, purpose) for purpose in PURPOSES for plan in request.ranked(purpose)[:FINALISTS]]
    assert made.asked == [(plan, 100, purpose, "float64") for plan, purpose in expected if request.fits(plan, purpose)]
    assert set(plans.seconds) == {(purpose, plan) for plan, _, purpose, _ in made.asked}
    # a tie goes to the favourite of the model
    assert plans.training == request.ranked("training")[0]


def test_only_plans_that_fit_are_timed(clock):
    """Few candidates of these have room: those that have none must not win, however fast."""
    machine = replace(DEFAULT_COSTS, llc_bytes=1 << 18)
    request = PlanRequest(ROOMY, 256, machine=machine)
    every = candidates(ROOMY, 256, saving=True)
    fitting = [plan for plan in every if fits(plan, 256, "training", machine=machine)]
    assert 0 < len(fitting) < FINALISTS
    made = clock(lambda plan: 2.0 if plan in fitting else 1.0)
    plans = PlanSet.of(request, made.runner)
    assert {plan for purpose, plan in plans.seconds if purpose == "training"} == set(fitting)
    assert plans.training in fitting


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_machine_with_more_room_takes_wider_tiles(purpose):
    machine = replace(DEFAULT_COSTS, llc_bytes=1)
    narrow, wide = (
        PlanRequest(WIDE, 128, machine=replace(machine, training_memory_share=share, forward_memory_share=share))
        for share in (0.1, 1.0)
    )
    activations = 2 * 128 * 2 * 4096 * 4
    taken = [workspace(one.ranked(purpose)[0], 128, purpose=purpose) * 4 for one in (narrow, wide)]
    assert taken[0] <= 0.1 * activations < taken[1] <= activations


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("batch", [1, 512])
def test_where_a_tenth_is_too_little_there_is_the_room_of_a_dense_layer(purpose, batch):
    text = PlanSet.of(PlanRequest(CRAMPED, batch, machine=replace(DEFAULT_COSTS, llc_bytes=1))).explain(
        purpose, top=100
    )
    allowed = 134.217728 + 0.1 * 2 * batch * 2 * 4096 * 4 / 1e6
    assert text.splitlines()[0].endswith(f"memory limit {allowed:.2f} MB, that of a dense matrix included")
    assert " over the limit" not in next(row for row in rows_of(text) if row.startswith(">"))


def test_rounds_take_turns_and_the_median_counts(clock):
    """One disturbed pass of the fastest plan changes nothing; the first pass is a warm-up."""
    options = [Plan(SHAPE, (4,), (0,)), Plan(SHAPE, (2, 2), (1, 0)), Plan(SHAPE, (2, 2), (0, 1))]
    made = clock(lambda plan: float(1 + options.index(plan)), disturbed=(1, 4))
    assert timed(options, 8, "forward", "float32", made.runner) == dict(zip(options, (1.0, 2.0, 3.0), strict=True))
    assert made.runs == options * (1 + ROUNDS)


def test_numpy_measures_itself():
    request = PlanRequest(MPOShape.from_factors((2, 3), (3, 2), 2), 4)
    plans = PlanSet.of(request, numpy_planner().runner)
    for purpose in PURPOSES:
        mine = {plan: seconds for (of, plan), seconds in plans.seconds.items() if of == purpose}
        assert all(seconds > 0 for seconds in mine.values())
        assert mine[getattr(plans, purpose)] == min(mine.values())


# ---------------------------------------------------------------- what layers ask


@given(st.integers(0, 100_000))
def test_a_batch_is_rounded_up_by_an_eighth_at_most(batch):
    rows = rounded(batch)
    assert max(batch, 1) <= rows <= max(batch * 9 / 8, 1)
    assert rounded(rows) == rows


def test_batches_near_one_another_share_their_plans():
    shared = {batch: plans_for(SHAPE, batch, "float32", numpy_planner()) for batch in range(97, 105)}
    assert len({id(plans) for plans in shared.values()}) == 1
    assert shared[97].request.batch == rounded(97) == 104
    assert plans_for(SHAPE, 1, "float32", numpy_planner()) is plans_for(SHAPE, 0, "float32", numpy_planner())
    assert plans_for(SHAPE, None, "float32", numpy_planner()).request.batch is None


@pytest.mark.parametrize(("dtype", "itemsize"), [("float64", 8), ("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_numbers_have_their_size(dtype, itemsize):
    assert plans_for(SHAPE, 8, dtype, numpy_planner()).request == PlanRequest(SHAPE, 8, itemsize, DEFAULT_COSTS)


def test_layers_measure_when_they_are_told_to(clock, monkeypatch):
    made = clock(lambda plan: 1.0)
    plans_for(SHAPE, 8, "float32", backend(made.runner))
    assert made.asked == []
    monkeypatch.setenv(VARIABLE, "measure")
    plans_for(SHAPE, 9, "float32", backend(made.runner))
    assert {batch for _, batch, _, _ in made.asked} == {9}


def test_a_choice_is_measured_once(clock, monkeypatch):
    monkeypatch.setenv(VARIABLE, "measure")
    made = clock(lambda plan: 1.0)
    planner = backend(made.runner)
    first = plans_for(SHAPE, 100, "float32", planner)
    count = len(made.runs)
    assert plans_for(SHAPE, 100, "float32", planner) is plans_for(SHAPE, 97, "float32", planner) is first
    assert len(made.runs) == count


def test_a_batch_that_is_not_known_is_not_measured(clock, monkeypatch):
    monkeypatch.setenv(VARIABLE, "measure")
    made = clock(lambda plan: 1.0)
    plans = plans_for(SHAPE, None, "float32", backend(made.runner))
    assert made.asked == []
    assert plans.forward.tile is None


# ---------------------------------------------------------------- MPONET_PLAN


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (None, "model"),
        ("", "model"),
        ("  ", "model"),
        ("''", "model"),
        ("model", "model"),
        ("Model", "model"),
        ("measure", "measure"),
        (" MEASURE ", "measure"),
        ('"measure"', "measure"),
        ("'Measure'", "measure"),
    ],
)
def test_the_variable_is_read_kindly(monkeypatch, said, meant):
    if said is not None:
        monkeypatch.setenv(VARIABLE, said)
    assert mode() == meant


@pytest.mark.parametrize("said", ["fast", "1", "measured", "model,measure"])
def test_another_word_is_refused(monkeypatch, said):
    monkeypatch.setenv(VARIABLE, said)
    with pytest.raises(PlanError) as caught:
        mode()
    for part in (VARIABLE, repr(said), "model or measure", "unset"):
        assert part in str(caught.value)
    with pytest.raises(PlanError):
        plans_for(SHAPE, 8, "float32", numpy_planner())


# ---------------------------------------------------------------- memory


@given(shapes(max_size=4096), st.sampled_from([1, 100]), st.integers(0, 1 << 22), st.sampled_from(PURPOSES))
def test_a_budget_is_kept_to_if_any_plan_does(shape, batch, memory, purpose):
    request = PlanRequest(shape, batch, memory=memory)
    chosen, every = request.ranked(purpose, 1)[0], request.ranked(purpose)
    taken = {plan: request.workspace_bytes(plan, purpose) for plan in every}
    assert request.memory_limit(purpose) == memory
    if min(taken.values()) > memory:
        assert taken[chosen] == min(taken.values())
    else:
        assert taken[chosen] <= memory
        fitting = [plan for plan in every if taken[plan] <= memory]
        assert chosen == fitting[0] and every[: len(fitting)] == fitting


def test_states_are_saved_where_that_fits_and_computed_again_where_memory_is_short():
    for shape, batch in ((WIDE, 100), (MPOShape.from_factors((32, 32), (32, 32), 8), 128)):
        least = None
        for memory in (1 << 40, 1 << 26, 1 << 20, 1 << 16):
            request = PlanRequest(shape, batch, memory=memory)
            plan = request.ranked("training", 1)[0]
            assert plan.saves_states == (memory >= 1 << 26)
            time = predict(plan, batch, purpose="training")
            assert least is None or time >= least
            least = time
        usual = PlanRequest(shape, batch).ranked("training", 1)[0]
        assert usual.saves_states and "states saved" in str(usual)
        none = PlanRequest(shape, batch, machine=replace(DEFAULT_COSTS, saved_moves=0.0))
        assert not any(plan.saves_states for plan in none.ranked("training") if len(plan.steps) > 1)
    assert not any(plan.saves_states for plan in PlanRequest(WIDE, 100).ranked("forward"))


def test_an_unknown_batch_saves_states_unless_memory_is_limited():
    free, limited = (PlanRequest(WIDE, None, memory=memory).ranked("training", 1)[0] for memory in (None, 1 << 40))
    assert free.saves_states and not limited.saves_states


@pytest.mark.parametrize(("said", "meant"), [(None, None), (" ", None), ("1000", 1000), (" '64000000' ", 64_000_000)])
def test_the_variable_of_memory_is_read_kindly(monkeypatch, said, meant):
    if said is not None:
        monkeypatch.setenv(MEMORY, said)
    assert memory_budget() == plans_for(SHAPE, 100, "float32", numpy_planner()).request.memory == meant
    assert plans_for(SHAPE, 100, "float32", numpy_planner(), 77).request.memory == 77  # the layer's own goes first


@pytest.mark.parametrize("said", ["-1", "1e6", "64MB", "0.1", "\u0663"])
def test_another_amount_of_memory_is_refused(monkeypatch, said):
    monkeypatch.setenv(MEMORY, said)
    with pytest.raises(PlanError) as caught:
        plans_for(SHAPE, 8, "float32", numpy_planner())
    for part in (MEMORY, repr(said), "whole number of bytes", "unset"):
        assert part in str(caught.value)


@pytest.mark.parametrize("memory", [-1, 1e6, "64MB", True])
def test_a_layer_takes_whole_bytes_alone(memory):
    with pytest.raises(PlanError, match=r"memory is .*; expected a whole number of bytes"):
        checked_memory(memory)


# ---------------------------------------------------------------- explaining

COLUMNS = ("plan", "predicted", "measured", "merging", "products", "moving", "calls", "MB")
NUMBER = re.compile(r"-|[\d.]+ (?:ms|us)")


def rows_of(text):
    """The lines of the candidates: between the heading and the reason."""
    return text.splitlines()[2:-1]


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("batch", [None, 8])
def test_an_explanation_has_every_column_and_marks_the_winner(purpose, batch):
    plans = plans_for(SHAPE, batch, "float32", numpy_planner())
    text = plans.explain(purpose, top=5)
    heading, columns, *rows, reason = text.splitlines()
    for part in (str(SHAPE), f"batch {batch or 'unknown'}", purpose, "candidates", "memory limit"):
        assert part in heading
    assert tuple(columns.split()) == COLUMNS
    assert len(rows) == 5
    for row in rows:
        assert len(NUMBER.findall(row[46:])) == 6
    assert [row[2:46].strip() for row in rows if row.startswith(">")] == [str(getattr(plans, purpose))]
    assert reason.startswith("> ")


def test_parts_add_up_to_the_prediction():
    for row in rows_of(PlanSet.of(PlanRequest(SHAPE, 100)).explain("training")):
        seconds = [float(n) * (1e-3 if unit == "ms" else 1e-6) for n, unit in re.findall(r"([\d.]+) (ms|us)", row)]
        assert len(seconds) == 5
        # two decimals of a millisecond, five numbers
        assert abs(seconds[0] - sum(seconds[1:])) <= 5 * 0.5e-5


def test_two_reasons(clock):
    predicted = PlanSet.of(PlanRequest(SHAPE, 100)).explain()
    reason = "is predicted to be the fastest of those that keep within the memory limit"
    assert predicted.endswith(f"> {reason}; saves 0.80 MB of weights and states for its backward pass")
    again = PlanSet.of(PlanRequest(SHAPE, 100, memory=1 << 16)).explain()
    assert again.endswith(f"> {reason}; computes its states again in its backward pass")
    assert "memory limit 0.07 MB, as asked for" in again
    made = clock(lambda plan: 0.25)
    measured = PlanSet.of(PlanRequest(SHAPE, 100), made.runner).explain()
    assert "> was the fastest of those that were timed here; " in measured
    assert "250.00 ms" in measured
    assert "250.00 ms" not in predicted


def test_a_winner_far_down_the_list_is_shown(clock):
    request = PlanRequest(SHAPE, 100)
    slow = request.ranked("training")[:FINALISTS]
    made = clock(lambda plan: 1.0 if plan == slow[-1] else 2.0)
    plans = PlanSet.of(request, made.runner)
    assert plans.training == slow[-1]
    for top in (1, 2, FINALISTS - 1):
        rows = rows_of(plans.explain("training", top))
        assert len(rows) == top
        assert rows[-1].startswith(f"> {slow[-1]} ")


GOLDEN = """\
M^{8,8}_{8,8}(4), batch 2, forward: 3 candidates, memory limit 0.03 MB, that of a dense matrix included
  plan                                          predicted   measured   merging  products    moving     calls      MB
  sweep cores 1 > 2                               28.8 us          -    3.0 us   16.6 us    7.2 us    2.0 us    0.00
> sweep cores 2 > 1                               31.8 us   12.50 ms    6.1 us   16.6 us    7.2 us    2.0 us    0.00
> was the fastest of those that were timed here"""


def test_an_explanation_is_the_same_everywhere():
    shape = MPOShape.from_factors((8, 8), (8, 8), 4)
    machine = Machine(
        flops=1e9,
        half_speed_size=1e-4,
        cache_bandwidth=1e9,
        llc_bandwidth=1e9,
        memory_bandwidth=1e9,
        call_overhead=1e-6,
        bmm_overhead=1e-7,
    )
    plan = Plan(shape, (1, 1), (1, 0))
    plans = PlanSet(plan, plan, plan, PlanRequest(shape, 2, machine=machine), {("forward", plan): 0.0125})
    assert plans.explain("forward", 2) == GOLDEN


@pytest.mark.parametrize("purpose", PURPOSES)
def test_plans_that_nobody_chose_have_no_explanation(purpose):
    with pytest.raises(PlanError, match=r"plans\(batch\)\.explain"):
        PlanSet.alike(Plan(SHAPE, (4,), (0,))).explain(purpose)


def test_a_purpose_that_there_is_not_is_refused():
    with pytest.raises(PlanError, match=r"'speed'.*forward, training, inference"):
        PlanSet.of(PlanRequest(SHAPE, 8)).explain("speed")

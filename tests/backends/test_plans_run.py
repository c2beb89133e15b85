"""Which of the chosen plans a framework runs for which call, and that it claims no other."""

import numpy as np
import pytest

from frameworks import probe
from mponet.contraction import execute
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PURPOSES, PlanRequest, PlanSet, plans_for
from mponet.operators.shape import MPOShape

pytestmark = pytest.mark.usefixtures("double_precision")
SHAPE = MPOShape.from_factors((4, 3), (3, 4), 4)
SETS = PlanSet(Plan(SHAPE, (1, 1), (0, 1)), Plan(SHAPE, (1, 1), (1, 0)), Plan(SHAPE, (2,), (0,)))
INPUTS = np.random.default_rng(0).normal(size=(2, 12))  # so few that torch would not record the rebuilt matrix itself


@pytest.fixture(scope="module")
def lab(backend_name, backend):
    return probe(backend_name)


@pytest.fixture
def ran(monkeypatch):
    """The plans that are executed, as ``("sweep" or "backward", plan)``."""
    found = []
    for name in ("sweep", "backward"):
        original = getattr(execute, name)

        def watched(plan, *arguments, name=name, original=original, **options):
            found.append((name, plan))
            return original(plan, *arguments, **options)

        monkeypatch.setattr(execute, name, watched)
    return found


def arrays():
    rng = np.random.default_rng(1)
    return [INPUTS, *(rng.normal(size=size) for size in SHAPE.core_shapes)]


def test_a_differentiated_pass_runs_the_plan_of_training_both_ways(backend_name, lab, ran):
    lab.slopes(lambda x, *cores: lab.apply(SETS, x, cores), arrays(), np.ones((2, 12)))
    assert ran and {plan for _, plan in ran} == {SETS.training}
    # JAX differentiates the products of the forward pass itself
    assert {name for name, _ in ran} == {"sweep"} | ({"backward"} if backend_name != "jax" else set())


def test_a_pass_that_is_not_differentiated_runs_the_plan_of_a_forward_pass(backend_name, lab, ran):
    native = [lab.array(array) for array in arrays()]
    options = {"training": False} if backend_name == "tensorflow" else {}
    lab.apply(SETS, native[0], native[1:], **options)
    assert ran == [("sweep", SETS.forward)]


def test_purposes_without_a_plan_of_their_own_name_the_plan_that_runs(backend):
    context = backend.planner
    plans = plans_for(SHAPE, 64, "float32", context)
    assert set(context.purposes) <= set(PURPOSES) and "training" in context.purposes
    for purpose in PURPOSES:
        heading = plans.explain(purpose).splitlines()[0]
        instead = PlanRequest(SHAPE, 64, purposes=context.purposes).run_as(purpose)
        assert getattr(plans, purpose) == getattr(plans, instead)
        assert (f"here the plan of {instead} runs" in heading) == (purpose != instead)


def test_eager_torch_keeps_weights_of_the_plan_of_inference(backend_name, lab, ran):
    if backend_name != "torch":
        pytest.skip("torch alone keeps weights")
    import torch

    from mponet_torch.ops.kept import WeightCache

    native = [lab.array(array) for array in arrays()]
    cache = WeightCache()
    with torch.no_grad():
        for _ in range(2):
            lab.apply(SETS, native[0], native[1:], None, cache)
    assert ran == [("sweep", SETS.inference)] * 2


def test_compiled_torch_without_gradients_runs_the_plan_of_a_forward_pass(backend_name, lab, ran):
    if backend_name != "torch":
        pytest.skip("torch's own compiler")
    import torch

    native = [lab.array(array) for array in arrays()]
    compiled = torch.compile(lambda x, *cores: lab.apply(SETS, x, cores), backend="eager", fullgraph=True)
    with torch.no_grad():
        compiled(*native)
    assert {plan for _, plan in ran} <= {SETS.forward}


def test_keras_predicts_with_the_forward_plan_and_trains_with_that_of_training(backend_name, lab, ran, monkeypatch):
    if backend_name != "tensorflow":
        pytest.skip("Keras says whether it trains")
    import keras

    from mponet_tensorflow import MPODense

    layer = MPODense((3, 4), 4, input_dims=(4, 3), dtype="float64")
    monkeypatch.setattr(MPODense, "plans", lambda self, batch: SETS)
    model = keras.Sequential([layer])
    model.compile("sgd", "mse")
    model.predict(INPUTS, verbose=0)
    assert {plan for _, plan in ran} == {SETS.forward}
    ran.clear()
    model.fit(INPUTS, np.ones((2, 12)), verbose=0)
    assert {plan for _, plan in ran} == {SETS.training}

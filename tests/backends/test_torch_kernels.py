"""The GPU kernels against float64: compiled on a GPU, else in Triton's interpreter."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if "torch" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name torch", allow_module_level=True)
if find_spec("triton") is None:
    pytest.skip("Triton is not installed; mponet does without it", allow_module_level=True)

import torch

import mponet_triton
from mponet.contraction import execute
from mponet.contraction.kernels import fusable, uses_dense_gradient
from mponet.contraction.plan import Plan
from mponet.contraction.planner import PlanSet
from mponet.contraction.weights import merged, weights
from mponet.operators.initialize import exact_variance
from mponet.operators.shape import MPOShape
from mponet_torch.ops import contraction
from mponet_torch.ops.arrays import IN_PLACE, OPS

ON_CHIP = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_CHIP else "cpu")
BATCH = 5
#: The interpreter computes in numpy, which has no bfloat16.
DTYPES = (torch.float32, torch.float16, *([torch.bfloat16] if ON_CHIP else []))


def plan(inputs, outputs, bond, groups):
    return Plan(MPOShape.from_factors(inputs, outputs, bond), groups, tuple(range(len(groups) - 1, -1, -1)))


PLANS = (
    plan((4, 7, 7, 4), (4, 4, 4, 4), 4, (2, 2)),
    plan((5, 3), (3, 6), 3, (1, 1)),
    plan((3, 2), (2, 3), 3, (1, 1)),
    plan((20, 20), (17, 33), 2, (1, 1)),
    plan((4, 16), (16, 4), 9, (1, 1)),
    plan((32, 32), (32, 32), 2, (1, 1)),
    plan((3, 4, 5), (6, 2, 3), (2, 3), (1, 1, 1)),
    plan((4, 4, 4, 4), (4, 4, 4, 4), 5, (1, 2, 1)),
)
both = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_plan = pytest.mark.parametrize("plan", PLANS, ids=lambda plan: str(plan.shape))
#: Gradients of the weights by a kernel, and by that of the matrix, of two groups and three.
WAYS = (PLANS[0], PLANS[2], PLANS[6])


class Case:
    """Random numbers of a dtype, and the same in float64."""

    def __init__(self, plan, dtype, batch=BATCH):
        generator = torch.Generator().manual_seed(0)
        sizes = ((batch, plan.shape.in_features), (batch, plan.shape.out_features), (plan.shape.out_features,))
        cores = exact_variance(plan.shape, np.random.default_rng(0)).cores
        self.plan = plan
        self.cores = [torch.tensor(core).to(DEVICE, dtype) for core in cores]
        chains = merged(plan.program, self.cores, IN_PLACE)
        self.weights = weights(plan.program, chains, IN_PLACE)
        self.factors = mponet_triton.factors(plan, chains)
        self.inputs, self.slopes, self.bias = (torch.randn(s, generator=generator).to(DEVICE, dtype) for s in sizes)

    def right(self, change=torch.Tensor.double):
        """Output and gradients of inputs and weights, float64, after ``change`` of the numbers."""
        weights = [change(weight.double()).requires_grad_() for weight in self.weights]
        inputs, slopes, bias = (change(array.double()) for array in (self.inputs, self.slopes, self.bias))
        inputs.requires_grad_()
        outputs = execute.sweep(self.plan, weights, inputs, OPS, bias)
        return [outputs.detach(), *torch.autograd.grad(outputs, [inputs, *weights], slopes)]


def weight_slopes(case):
    """The kernel's core gradients of two groups: ``(I_2, D J_2)`` and ``(J_1, I_1 D)``."""
    first, last = mponet_triton.weight_gradients(case.plan, case.factors, case.inputs, case.slopes)
    assert [tuple(first.shape), tuple(last.shape)] == list(case.plan.group_shapes)
    return [last[..., 0].permute(1, 0, 2).flatten(1), first[0].permute(1, 0, 2).flatten(1)]


def assert_rounded(found, right, largest, plan, dtype, batch):
    """Each state and the result are rounded once; sums in float32 round once per term.

    The terms are bounded by those of the absolute values (Higham, Accuracy and Stability, 3.5).
    """
    unit = torch.finfo(dtype).eps / 2
    terms = sum(step.inner + step.rows for step in plan.steps) * (1 + batch)
    roundings = (len(plan.steps) + 1) * unit + terms * torch.finfo(torch.float32).eps / 2
    # what is smaller than the least normal number is rounded to multiples of the least of all
    least = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps * terms
    assert found.dtype == dtype and found.shape == right.shape
    assert bool(((found.double() - right).abs() <= roundings * largest + least).all())


@both
@every_plan
def test_a_sweep_and_its_gradients_are_those_of_float64(plan, dtype):
    case = Case(plan, dtype)
    assert fusable(plan)
    found = [
        mponet_triton.forward(plan, case.factors, case.inputs, case.bias),
        mponet_triton.input_gradient(plan, case.factors, case.slopes),
    ]
    if len(plan.groups) == 2:
        found += weight_slopes(case)
    for ours, right, largest in zip(found, case.right(), case.right(torch.abs), strict=False):
        assert_rounded(ours, right, largest, plan, dtype, len(case.inputs))


@every_plan
def test_without_a_bias_and_on_a_single_row(plan):
    case = Case(plan, torch.float32, batch=1)
    found = mponet_triton.forward(plan, case.factors, case.inputs)
    outputs, largest = (one[0] for one in (case.right(), case.right(torch.abs)))
    assert_rounded(found + case.bias, outputs, largest, plan, torch.float32, 2)


def test_inputs_that_are_no_block_of_memory():
    case = Case(PLANS[0], torch.float32)
    wanted = mponet_triton.forward(case.plan, case.factors, case.inputs)
    strided = torch.stack([case.inputs, case.inputs], 2)[:, :, 0]
    assert not strided.is_contiguous()
    assert torch.equal(mponet_triton.forward(case.plan, case.factors, strided), wanted)
    wanted = mponet_triton.forward(case.plan, case.factors, case.inputs, case.bias)
    strided = torch.stack([case.bias, case.slopes[0]], 1)[:, 0]
    assert not strided.is_contiguous()
    assert torch.equal(mponet_triton.forward(case.plan, case.factors, case.inputs, strided), wanted)


def test_kernels_compile_for_a_gpu_where_there_is_none(tmp_path):
    """The interpreter takes more than the compiler does."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TRITON_CACHE_DIR": str(tmp_path)}
    script = Path(__file__).parent / "compile_kernels.py"
    done = subprocess.run([sys.executable, script], capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    found = [line.split() for line in done.stdout.splitlines()]
    assert [(kernel, dtype) for kernel, dtype, _ in found] == [
        (kernel, dtype) for dtype in ("bf16", "fp16") for kernel in ("sweep_two", "weight_gradients_two", "sweep_three")
    ]
    assert all(int(size) > 0 for _, _, size in found)


def test_no_rows_give_no_outputs_and_no_gradients():
    case = Case(PLANS[0], torch.float32, batch=0)
    assert mponet_triton.forward(case.plan, case.factors, case.inputs, case.bias).shape == case.slopes.shape
    assert not any(
        one.any() for one in mponet_triton.weight_gradients(case.plan, case.factors, case.inputs, case.slopes)
    )


@pytest.mark.parametrize("plan", WAYS, ids=lambda plan: str(plan.shape))
@pytest.mark.parametrize("wrt_inputs", [True, False])
def test_a_layer_by_kernels_is_the_same_layer(plan, wrt_inputs, monkeypatch):
    case, plans = Case(plan, torch.float32), PlanSet.alike(plan)
    arrays = [case.inputs.requires_grad_(wrt_inputs), *(a.requires_grad_() for a in (case.bias, *case.cores))]
    sought = [array for array in arrays if array.requires_grad]

    def passes():
        outputs = contraction.apply(plans, case.inputs, case.cores, case.bias)
        return [outputs, *torch.autograd.grad(outputs, sought, case.slopes)]

    wanted = passes()
    used = []
    monkeypatch.setattr(mponet_triton, "supports", lambda one, rows: used.append(one) or fusable(one))
    found = passes()
    assert set(used) == {plan}
    with torch.no_grad():
        found.append(contraction.apply(plans, case.inputs, case.cores, case.bias))
    for ours, theirs in zip(found, [*wanted, wanted[0]], strict=True):
        # the same numbers in another order: a hundred roundings at most, which are not all to one
        # side
        assert bool((ours - theirs).detach().norm() <= 1e-5 * theirs.detach().norm())


def test_all_ways_to_gradients_are_tested():
    assert [(uses_dense_gradient(one, BATCH), len(one.groups)) for one in WAYS] == [(False, 2), (True, 2), (True, 3)]


def test_gradients_of_gradients_are_not_left_to_kernels(monkeypatch):
    case = Case(WAYS[0], torch.float32)
    monkeypatch.setattr(mponet_triton, "supports", lambda one, rows: fusable(one))
    inputs = case.inputs.requires_grad_()
    cores = [core.requires_grad_() for core in case.cores]

    def second(function, inputs, cores):
        """Gradients of the squared norm of a gradient."""
        first = torch.autograd.grad(function(inputs, cores).square().sum(), inputs, create_graph=True)[0]
        return torch.autograd.grad(first.square().sum(), cores)

    found = second(lambda x, cores: contraction.apply(PlanSet.alike(case.plan), x, cores), inputs, cores)
    exact = [array.detach().double().requires_grad_() for array in (inputs, *cores)]
    right = second(lambda x, cores: execute.forward(case.plan, cores, x, OPS), exact[0], exact[1:])
    for ours, theirs in zip(found, right, strict=True):
        # some hundred roundings of float32, which are not all to one side
        assert bool((ours.double() - theirs).norm() <= 1e-5 * theirs.norm())


@pytest.mark.parametrize(
    ("dtype", "device", "rows"), [(torch.float32, "cpu", 5), (torch.bfloat16, "cpu", 5), (torch.float16, "meta", 5)]
)
def test_elsewhere_kernels_do_not_serve(dtype, device, rows):
    case = torch.zeros(rows, 15, dtype=dtype, device=device)
    assert not mponet_triton.supports(PLANS[1], case)


@pytest.mark.parametrize(("said", "wanted"), [("off", False), ("0", False), ("", ON_CHIP), ("on", ON_CHIP)])
def test_the_variable_turns_them_off(said, wanted, monkeypatch):
    monkeypatch.setenv("MPONET_KERNELS", said)
    mponet_triton.available.cache_clear()
    assert mponet_triton.available() == wanted
    monkeypatch.delenv("MPONET_KERNELS")
    mponet_triton.available.cache_clear()

"""What is PyTorch's own: gradcheck, compile, vmap, autocast, state_dict, what autograd keeps."""

import copy
import os
from dataclasses import replace

import numpy as np
import pytest

from mponet import MPO, from_matrix, to_matrix
from mponet.errors import ShapeError

if "torch" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name torch", allow_module_level=True)

import torch

from mponet.contraction.plan import Plan
from mponet.contraction.planner import PlanSet
from mponet.models import build
from mponet.models.init import start
from mponet.operators.shape import MPOShape
from mponet_torch import MPOLinear, backend
from mponet_torch.ops import contraction
from mponet_torch.ops.contraction import apply

DOUBLE = torch.float64


def layer(dtype=DOUBLE, **options):
    return MPOLinear((2, 3, 2), (3, 1, 2), 3, dtype=dtype, seed=1, **options)


def as_function(module):
    """The layer as a function of its input and its parameters."""
    names = [name for name, _ in module.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in module.parameters()]
    return (lambda x, *these: torch.func.functional_call(module, dict(zip(names, these, strict=True)), x)), values


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_gradients_of_inputs_cores_and_bias(check):
    function, parameters = as_function(layer())
    inputs = torch.randn(4, 12, dtype=DOUBLE, requires_grad=True)
    assert check(function, (inputs, *parameters))


@pytest.mark.parametrize(
    "groups, order, transposed",
    [
        ((1, 1, 1), (2, 1, 0), False),
        ((1, 1, 1), (0, 2, 1), False),
        ((1, 1, 1), (0, 1, 2), True),
        ((2, 1), (0, 1), False),
        ((2, 1), (0, 1), True),
        ((3,), (0,), False),
    ],
)
@pytest.mark.parametrize(("tile", "saves"), [(None, False), (2, False), (None, True)])
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_gradcheck_of_every_kind_of_plan(groups, order, tile, transposed, saves, check):
    module = layer()
    plan = Plan(module.shape, groups, order, tile, transposed, saves)
    inputs = torch.randn(5, 12, dtype=DOUBLE, requires_grad=True)
    cores = [core.detach().clone().requires_grad_() for core in module.cores]
    assert check(lambda x, *c: apply(PlanSet.alike(plan), x, c), (inputs, *cores))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_in_one_graph(dynamic):
    module = layer()
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for batch in (4, 7) if dynamic else (4,):
        inputs = torch.randn(batch, 12, dtype=DOUBLE, requires_grad=True)
        outputs = compiled(inputs)
        (slope,) = torch.autograd.grad(outputs.sum(), inputs)
        assert torch.allclose(outputs, module(inputs), rtol=0, atol=1e-13)
        assert torch.allclose(slope, torch.autograd.grad(module(inputs).sum(), inputs)[0], rtol=0, atol=1e-13)


def test_export_and_vmap_and_deepcopy():
    module = layer().eval()
    inputs = torch.randn(7, 4, 12, dtype=DOUBLE)
    expected = module(inputs)
    exported = torch.export.export(module, (inputs,)).module()
    assert torch.allclose(exported(inputs), expected, rtol=0, atol=1e-13)
    assert torch.allclose(torch.func.vmap(module)(inputs), expected, rtol=0, atol=1e-13)
    assert torch.equal(copy.deepcopy(module)(inputs), expected)


def test_autocast_computes_in_16_bits_and_keeps_32_bit_gradients():
    module = MPOLinear(64, 64, 8, seed=0)
    inputs = torch.randn(16, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = module(inputs)
    assert outputs.dtype == torch.bfloat16
    outputs.float().sum().backward()
    assert all(core.grad.dtype == torch.float32 for core in module.cores)
    exact = module(inputs)
    # bfloat16 keeps 8 bits; a result passes three roundings of sums of 16-bit products
    assert (outputs.float() - exact).abs().max() <= 3 * 2**-8 * exact.abs().max()


def test_bfloat16_layer_adds_many_tiles_without_losing_them():
    shape = MPOShape.from_factors((4, 4), (4, 4), 1)
    plan = Plan(shape, (1, 1), (1, 0), 1)
    cores = [torch.ones(size, dtype=torch.bfloat16, requires_grad=True) for size in shape.core_shapes]
    inputs = torch.full((1024, 16), 1.0, dtype=torch.bfloat16)
    outputs = apply(PlanSet.alike(plan), inputs, cores)
    slopes = torch.autograd.grad(outputs, cores, torch.full_like(outputs, 1 / 16))
    # each entry of a core's gradient is a sum over 1024 rows of 4 * 4 / 16 = 1: in bfloat16 it
    # would stop at 256
    assert all(torch.equal(slope.float(), torch.full(slope.shape, 1024.0)) for slope in slopes)


def test_state_dict_has_readable_names_and_round_trips(tmp_path):
    first, second = layer(), MPOLinear((2, 3, 2), (3, 1, 2), 3, dtype=DOUBLE, seed=2)
    assert list(first.state_dict()) == ["core1", "core2", "core3", "bias", "weight"]
    torch.save(first.state_dict(), tmp_path / "layer.pt")
    second.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    inputs = torch.randn(3, 12, dtype=DOUBLE)
    assert torch.equal(first(inputs), second(inputs))


def test_the_seed_of_torch_governs_and_the_default_dtype_holds():
    torch.manual_seed(5)
    first = MPOLinear(12, 6, 2)
    torch.manual_seed(5)
    second = MPOLinear(12, 6, 2)
    assert all(torch.equal(a, b) for a, b in zip(first.cores, second.cores, strict=True))
    assert first.core1.dtype == torch.get_default_dtype()
    assert MPOLinear(12, 6, 2, dtype=torch.float64, device="cpu").core1.dtype == torch.float64


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize(("shape", "batch"), [(((16, 16), (16, 16), 2), 64), (((32, 32), (32, 32), 4), 512)])
def test_autograd_keeps_inputs_cores_and_small_weights_and_what_the_plan_saves(shape, batch, memory):
    module = MPOLinear(*shape, bias=False, seed=0, memory=memory)
    inputs = torch.randn(batch, module.in_features, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        module(inputs)
    plan = module.plans(batch).training
    weights = [step.rows * step.inner for step in plan.steps]
    assert sum(weights) <= 4 * inputs.numel()
    assert len(weights) > 1 and plan.saves_states == (memory > 0)
    states = [batch * step.prefix * step.inner * step.suffix for step in plan.steps[1:]] if plan.saves_states else []
    assert sorted(kept) == sorted([inputs.numel(), *(core.numel() for core in module.cores), *weights, *states])


def test_a_light_rebuild_is_differentiated_by_autograd_to_the_same_gradients():
    module = MPOLinear((4, 7, 7, 4), (4, 4, 4, 4), 8, seed=0, dtype=DOUBLE)
    inputs = torch.randn(100, 784, dtype=DOUBLE, requires_grad=True)
    slopes = torch.randn(100, 256, dtype=DOUBLE)
    wanted = [inputs, module.bias, *module.cores]
    rebuilt = replace(module.plans(100), training=Plan(module.shape, (4,), (0,), saves_states=True))
    assert contraction.records_as_much(rebuilt.training)
    assert not contraction.records_as_much(rebuilt.training.with_tile(16))
    outputs = contraction.apply(rebuilt, inputs, module.cores, module.bias)
    assert "Recorded" not in str(outputs.grad_fn)
    found = torch.autograd.grad(outputs, wanted, slopes)
    written = contraction._AutogradContraction.apply(rebuilt, inputs, module.bias, *module.cores)
    rounding = 784 * torch.finfo(DOUBLE).eps  # of the longest sum, relative to the largest number
    for a, b in zip(found, torch.autograd.grad(written, wanted, slopes), strict=True):
        assert (a - b).abs().max() <= rounding * b.abs().max()


def test_weights_larger_than_activations_are_not_kept():
    module = MPOLinear((16, 16), (16, 16), 8, bias=False, seed=0, memory=0)
    inputs = torch.randn(2, 256)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        module(inputs)
    assert sorted(kept) == sorted([inputs.numel(), *(core.numel() for core in module.cores)])


def eval_layer():
    return MPOLinear((4, 4), (4, 4), 8, seed=0, dtype=DOUBLE).eval()


@torch.no_grad()
def test_inference_keeps_weights_until_a_core_changes(monkeypatch):
    merged = []
    merge = contraction.weights_of
    monkeypatch.setattr(contraction, "weights_of", lambda *a: merged.append(a) or merge(*a))
    module, inputs = eval_layer(), torch.randn(6, 16, dtype=DOUBLE)
    first = module(inputs)
    assert torch.equal(module(inputs), first)
    assert len(merged) == 1
    module.core2.data.mul_(2.0)  # behind the back of autograd's version counter
    torch.testing.assert_close(module(inputs) - module.bias, 2.0 * (first - module.bias), rtol=1e-14, atol=1e-14)
    assert len(merged) == 2


@torch.no_grad()
def test_inference_gives_what_training_gives():
    module, inputs = eval_layer(), torch.randn(6, 16, dtype=DOUBLE)
    kept = module(inputs)
    torch.testing.assert_close(module.train()(inputs), kept, rtol=1e-14, atol=1e-14)
    with torch.inference_mode():
        torch.testing.assert_close(module.eval()(inputs), kept, rtol=0, atol=0)


def test_a_layer_in_eval_mode_has_gradients_all_the_same():
    module, inputs = eval_layer(), torch.randn(6, 16, dtype=DOUBLE, requires_grad=True)
    with torch.no_grad():
        module(inputs)
    module(inputs).sum().backward()
    assert all(core.grad is not None for core in module.cores)
    assert inputs.grad is not None


@torch.no_grad()
def test_kept_weights_do_not_travel(tmp_path):
    module, inputs = eval_layer(), torch.randn(6, 16, dtype=DOUBLE)
    outputs = module(inputs)
    assert list(module.state_dict()) == ["core1", "core2", "bias", "weight"]
    copied = copy.deepcopy(module)
    assert len(module._kept) == 1 and len(copied._kept) == 0
    assert torch.equal(copied(inputs), outputs)
    module.train()
    assert len(module._kept) == 0


def test_inputs_without_gradient_cost_none(monkeypatch):
    from mponet.contraction import execute

    asked = []
    original = execute.backward
    monkeypatch.setattr(
        execute,
        "backward",
        lambda *a, wrt_inputs, **k: asked.append(wrt_inputs) or original(*a, wrt_inputs=wrt_inputs, **k),
    )
    # a single row: the rebuilt matrix is too large beside it to be kept, so the backward is ours
    layer()(torch.randn(1, 12, dtype=DOUBLE)).sum().backward()
    layer()(torch.randn(1, 12, dtype=DOUBLE, requires_grad=True)).sum().backward()
    assert asked == [False, True]


def test_a_linear_layer_and_back_on_its_dtype():
    dense = torch.nn.Linear(12, 6, dtype=DOUBLE)
    module = MPOLinear.from_dense(dense)
    inputs = torch.randn(3, 12, dtype=DOUBLE)
    assert module.core1.dtype == DOUBLE
    assert torch.allclose(module(inputs), dense(inputs), rtol=0, atol=1e-13)
    assert torch.allclose(module.to_dense().weight, dense.weight, rtol=0, atol=1e-13)
    assert np.allclose(to_matrix(module.to_mpo()), dense.weight.detach().numpy().T, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.bfloat16])
def test_doors_take_parameters_of_torch_in_any_dtype(dtype):
    dense = torch.nn.Linear(16, 12, dtype=dtype)
    matrix, sizes, options = dense.weight.detach().double().numpy().T, ((4, 4), (4, 3)), {"dtype": DOUBLE}
    bias = dense.bias.detach().double()
    for weight in (dense.weight.T, dense.weight.T.detach()):
        made = MPOLinear.from_matrix(weight, *sizes, bias=dense.bias, **options)
        assert np.allclose(made.to_matrix(), matrix, rtol=0, atol=1e-13)
        assert torch.equal(made.bias, bias)
        assert np.allclose(to_matrix(from_matrix(weight, *sizes).mpo), matrix, rtol=0, atol=1e-13)
    module = MPOLinear(*sizes, 5, seed=0, dtype=dtype)
    mpo = MPO.from_cores(module.cores)
    assert np.array_equal(to_matrix(mpo), module.to_matrix())
    again = MPOLinear.from_mpo(mpo, dense.bias, **options)
    assert np.array_equal(again.to_matrix(), module.to_matrix())
    assert torch.equal(again.bias, bias)


def test_a_lowered_model_is_an_ordinary_module():
    native = backend.build(build("lenet5", "mpo"), start(build("lenet5", "mpo"), 0))
    assert isinstance(native, torch.nn.Sequential)
    assert {"conv1.weight", "conv3.core1", "fc2.bias"} <= set(native.state_dict())
    device = native[0].weight.device
    assert native(torch.zeros(2, 1, 28, 28, device=device)).shape == (2, 10)
    with pytest.raises(ShapeError, match=r"\(1, 256\).*400"):
        native(torch.zeros(1, 1, 24, 24, device=device))

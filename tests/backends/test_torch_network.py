"""`NetworkLinear` in PyTorch: gradcheck, compile, vmap, autocast, what autograd stores."""

import copy
import os
import pickle

import pytest

if "torch" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name torch", allow_module_level=True)

import torch

import graphs
from mponet.contraction import execute
from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import path
from mponet.contraction.planner import PlanSet
from mponet_torch import NetworkLinear
from mponet_torch.ops.contraction import apply

DOUBLE = torch.float64
RING, TREE, TUCKER = (graphs.WIRINGS[name] for name in ("ring", "tree", "tucker"))


def layer(wiring=RING, dtype=DOUBLE, **options):
    return NetworkLinear(wiring, dtype=dtype, seed=1, **options)


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
@pytest.mark.parametrize("wiring", [RING, TREE], ids=["ring", "tree"])
def test_gradients_and_their_gradients(check, wiring):
    module = layer(wiring)
    names = [name for name, _ in module.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in module.parameters()]
    inputs = torch.randn(3, wiring.in_features, dtype=DOUBLE, requires_grad=True)

    def function(x, *these):
        return torch.func.functional_call(module, dict(zip(names, these, strict=True)), x)

    assert check(function, (inputs, *values))


@pytest.mark.parametrize("tile", [None, 2])
@pytest.mark.parametrize("merged", [True, False])
def test_gradcheck_through_tiles(tile, merged):
    plan = GraphPlan(TUCKER, path(TUCKER, None if merged else 1), tile)
    arrays = [torch.tensor(tensor, requires_grad=True) for tensor in graphs.tensors_of(TUCKER)]
    inputs = torch.randn(5, TUCKER.in_features, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *these: apply(PlanSet.alike(plan), x, these), (inputs, *arrays))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("wiring", [RING, TUCKER], ids=["ring", "tucker"])
def test_compile_in_one_graph_that_serves_every_call(dynamic, wiring):
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    module = layer(wiring)
    compiled = torch.compile(module, fullgraph=True, dynamic=dynamic, backend=counter)
    for batch in (4, 7, 9) if dynamic else (4, 4):
        inputs = torch.randn(batch, wiring.in_features, dtype=DOUBLE, requires_grad=True)
        outputs = compiled(inputs)
        (slope,) = torch.autograd.grad(outputs.sum(), inputs)
        torch.testing.assert_close(outputs, module(inputs), rtol=0, atol=1e-12)
        torch.testing.assert_close(slope, torch.autograd.grad(module(inputs).sum(), inputs)[0], rtol=0, atol=1e-12)
    assert counter.frame_count == 1


def test_export_vmap_deepcopy_and_pickle():
    module = layer().eval()
    inputs = torch.randn(7, 4, RING.in_features, dtype=DOUBLE)
    expected = module(inputs)
    exported = torch.export.export(module, (inputs,)).module()
    torch.testing.assert_close(exported(inputs), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.func.vmap(module)(inputs), expected, rtol=0, atol=1e-12)
    assert torch.equal(copy.deepcopy(module)(inputs), expected)
    assert torch.equal(pickle.loads(pickle.dumps(module))(inputs), expected)


def test_per_example_gradients_add_up():
    module = layer()
    parameters = dict(module.named_parameters())
    inputs = torch.randn(5, RING.in_features, dtype=DOUBLE)

    def total(parameters, x):
        return (torch.func.functional_call(module, parameters, x) ** 2).sum()

    each = torch.func.vmap(torch.func.grad(total), in_dims=(None, 0))(parameters, inputs)
    whole = torch.func.grad(total)(parameters, inputs)
    for name in parameters:
        torch.testing.assert_close(each[name].sum(0), whole[name], rtol=1e-11, atol=1e-11)


def test_autocast_computes_in_16_bits_and_keeps_32_bit_gradients():
    module = layer(dtype=torch.float32)
    inputs = torch.randn(16, RING.in_features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = module(inputs)
    assert outputs.dtype == torch.bfloat16
    outputs.float().sum().backward()
    assert all(tensor.grad.dtype == torch.float32 for tensor in module.tensors)
    # bfloat16 keeps 8 bits: inputs, three nodes and at most three results are rounded, each sum
    # over magnitudes
    sizes = [tensor.detach().double().abs().numpy() for tensor in module.tensors]
    room = inputs.abs().double() @ torch.tensor(graphs.matrix(RING, sizes))
    assert bool(((outputs.double() - module(inputs).double()).abs() <= 8 * 2**-8 * room).all())


def test_state_has_the_names_of_the_nodes():
    assert list(layer(TREE).state_dict()) == ["root", "x", "y", "z", "bias", "weight"]


def test_the_seed_of_torch_governs_and_the_default_dtype_holds():
    torch.manual_seed(5)
    first = NetworkLinear(RING)
    torch.manual_seed(5)
    second = NetworkLinear(RING)
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, second.tensors, strict=True))
    assert first.a.dtype == torch.get_default_dtype()


@pytest.mark.parametrize("rows", [1, 50])
def test_autograd_keeps_inputs_nodes_and_small_weights_and_nothing_between(rows):
    module = layer(TUCKER, bias=False)
    plan = GraphPlan(TUCKER, path(TUCKER, 1))
    inputs = torch.randn(rows, TUCKER.in_features, dtype=DOUBLE)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        apply(PlanSet.alike(plan), inputs, module.tensors)
    weights = [step.rows * step.inner for step in plan.steps]
    assert len(weights) > 1
    small = weights if sum(weights) <= 4 * inputs.numel() else []
    assert sorted(kept) == sorted([inputs.numel(), *(tensor.numel() for tensor in module.tensors), *small])


def test_inputs_without_gradient_cost_none(monkeypatch):
    asked = []
    original = execute.backward

    def watched(*arguments, wrt_inputs, **options):
        asked.append(wrt_inputs)
        return original(*arguments, wrt_inputs=wrt_inputs, **options)

    monkeypatch.setattr(execute, "backward", watched)
    # the rebuilt matrix is not saved, so the backward is ours
    layer(memory=0)(torch.randn(1, RING.in_features, dtype=DOUBLE)).sum().backward()
    layer(memory=0)(torch.randn(1, RING.in_features, dtype=DOUBLE, requires_grad=True)).sum().backward()
    assert asked == [False, True]


def test_bfloat16_nodes_add_many_tiles_without_losing_them():
    plan = GraphPlan(graphs.WIRINGS["in two pieces"], ((0, 1), (0, 1)), 1)
    tensors = [torch.ones(size, dtype=torch.bfloat16, requires_grad=True) for size in plan.shape.sizes]
    outputs = apply(PlanSet.alike(plan), torch.ones(1024, 6, dtype=torch.bfloat16), tensors)
    slopes = torch.autograd.grad(outputs, tensors, torch.ones_like(outputs))
    # each entry is a sum over 1024 rows of whole numbers: in bfloat16 it would stand still at 256
    # times its parts
    assert torch.equal(slopes[0].float(), torch.full((3, 2), 1024.0 * 2 * 4))
    assert torch.equal(slopes[1].float(), torch.full((2, 4), 1024.0 * 3 * 2))

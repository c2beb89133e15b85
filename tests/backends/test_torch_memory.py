"""Nothing that a call gives out, saves or keeps is written to by another.

Caches are right and bounded.
"""

import copy
import pickle
import threading

import pytest

pytest.importorskip("torch")
import os

if "torch" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name torch", allow_module_level=True)

import torch

import graphs
from mponet.contraction import planner
from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import path
from mponet.contraction.planner import PlanSet
from mponet.contraction.search import candidates
from mponet.operators.shape import MPOShape
from mponet_torch import MPOLinear, NetworkLinear, freeze
from mponet_torch.ops import arrays
from mponet_torch.ops.contraction import apply, records_as_much
from mponet_torch.ops.kept import WeightCache

DOUBLE = torch.float64
#: Factors of one in every place make views of what looks like copies.
SHAPES = [
    MPOShape.from_factors((2, 3, 2), (1, 2, 3), 3),
    MPOShape.from_factors((2, 3, 2), (3, 2, 1), 3),
    MPOShape.from_factors((1, 4, 3), (2, 1, 2), 3),
    MPOShape.from_factors((2, 2, 3, 2), (1, 2, 1, 2), 4),
    MPOShape.from_factors((3, 1, 2), (1, 5, 1), 2),
    MPOShape.from_factors((12, 1), (1, 10), 4),
    MPOShape.from_factors((2, 3, 2), (3, 1, 2), 1),
]


@pytest.fixture
def scratch(monkeypatch):
    """Scratch memory is taken for products of every size, and starts empty."""
    monkeypatch.setattr(arrays, "_SCRATCH", (0, 1 << 30))
    monkeypatch.setattr(arrays, "_local", threading.local())


def plans_of(shape):
    plans = list(candidates(shape, transposed=True, saving=True))
    return [*plans, *(plan.with_tile(2) for plan in plans if not plan.saves_states)]


def call(plan, seed, *, light):
    """One live call: what it was given, its output, and copies of all that autograd saved."""
    generator = torch.Generator().manual_seed(seed)
    program, saved = plan.program, []
    sizes = [(5, program.in_features), (program.out_features,), *program.tensor_shapes]
    given = [torch.randn(size, dtype=DOUBLE, generator=generator).requires_grad_() for size in sizes]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append((t, t.clone())) or t, lambda t: t):
        inputs, bias, *tensors = given
        output = apply(PlanSet.alike(plan), inputs, tensors, bias)
    assert records_as_much(plan) == light
    return given, output, saved


def right(shape, given, matrix_of):
    inputs, bias, *tensors = (array.detach().clone().requires_grad_() for array in given)
    output = inputs @ matrix_of(tensors) + bias
    return [output.detach(), *torch.autograd.grad(output, [inputs, bias, *tensors], torch.ones_like(output))]


def chain_matrix(shape):
    def matrix(cores):
        product = cores[0].permute(1, 2, 0, 3).reshape(*cores[0].shape[1:3], -1)
        for core in cores[1:]:
            product = torch.einsum("ija,aklb->ikjlb", product, core)
            i, k, j, l, b = product.shape  # noqa: E741
            product = product.reshape(i * k, j * l, b)
        return product[..., 0]

    return matrix


def check_two_live_calls(plan, matrix_of):
    light = records_as_much(plan)
    calls = [call(plan, seed, light=light) for seed in (0, 1)]
    for given, output, saved in calls:
        for tensor, before in saved:  # the other call has written to none of them
            assert torch.equal(tensor, before), plan
        found = [output, *torch.autograd.grad(output, given, torch.ones_like(output))]
        for ours, theirs in zip(found, right(plan.shape, given, matrix_of), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    kept = {value.untyped_storage().data_ptr() for value in vars(arrays._local).values()}
    for given, output, saved in calls:
        for tensor in (*given, output, *(tensor for tensor, _ in saved)):
            assert tensor.untyped_storage().data_ptr() not in kept, plan


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_two_calls_of_any_plan_live_side_by_side(shape, scratch):
    for plan in plans_of(shape):
        check_two_live_calls(plan, chain_matrix(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weights_kept_of_any_plan_share_no_memory_with_scratch_or_tensors(shape, scratch):
    generator = torch.Generator().manual_seed(0)
    cores = [torch.randn(size, dtype=DOUBLE, generator=generator) for size in shape.core_shapes]
    inputs = torch.randn(5, shape.in_features, dtype=DOUBLE, generator=generator)
    expected = inputs @ chain_matrix(shape)(cores)
    with torch.no_grad():
        for plan in plans_of(shape):
            cache = WeightCache()
            for _ in range(2):
                torch.testing.assert_close(
                    apply(PlanSet.alike(plan), inputs, cores, None, cache), expected, rtol=1e-11, atol=1e-11
                )
            used = {value.untyped_storage().data_ptr() for value in vars(arrays._local).values()}
            used |= {core.untyped_storage().data_ptr() for core in cores}
            if plan.program.merges_nothing:
                assert cache._kept is None
                continue
            for _, weights in cache._kept.weights:
                assert not used & {weight.untyped_storage().data_ptr() for weight in weights}


def test_scratch_of_inference_mode_serves_outside_of_it(scratch):
    shape = SHAPES[0]
    cores, inputs = [torch.randn(size) for size in shape.core_shapes], torch.randn(5, shape.in_features)
    expected = inputs @ chain_matrix(shape)(cores)
    for mode in (torch.inference_mode, torch.no_grad, torch.inference_mode):
        with mode():
            for plan in plans_of(shape):
                torch.testing.assert_close(apply(PlanSet.alike(plan), inputs, cores, None, WeightCache()), expected)
    assert vars(arrays._local)  # some plan used it


@pytest.mark.parametrize("name", graphs.WIRINGS)
@pytest.mark.parametrize("rows", [None, 1])
def test_two_calls_of_a_network_live_side_by_side(name, rows, scratch):
    wiring = graphs.WIRINGS[name]
    plan = GraphPlan(wiring, path(wiring, rows))

    def matrix(tensors):
        legs = (*wiring.inputs, *wiring.outputs)
        letters = {edge: chr(97 + k) for k, edge in enumerate(wiring.dims)}
        terms = ",".join("".join(letters[edge] for edge in edges) for edges in wiring.edges)
        return torch.einsum(f"{terms}->{''.join(letters[leg] for leg in legs)}", *tensors).reshape(
            wiring.in_features, wiring.out_features
        )

    check_two_live_calls(plan, matrix)


# ---------------------------------------------------------------- kept weights


def served(**options):
    return MPOLinear((4, 4), (4, 4), 8, seed=0, dtype=DOUBLE, **options).eval()


@pytest.mark.parametrize(
    "write",
    [
        lambda core: core.data.mul_(2.0),
        lambda core: core.detach().mul_(2.0),
        lambda core: torch._foreach_mul_([core.data], 2.0),
        lambda core: core.detach().numpy().__imul__(2.0),
        lambda core: setattr(core, "data", core.data * 2.0),
    ],
    ids=["data", "detached", "foreach", "numpy", "another array"],
)
def test_writes_that_torch_does_not_count_are_seen(write):
    layer, inputs = served(), torch.randn(6, 16, dtype=DOUBLE)
    with torch.no_grad():
        before = layer(inputs)
        write(layer.core2)
        torch.testing.assert_close(layer(inputs) - layer.bias, 2.0 * (before - layer.bias), rtol=1e-13, atol=1e-13)


def test_alternating_batches_keep_the_weights_of_a_few_plans(monkeypatch):
    cache, merged = WeightCache(), []
    cores = [torch.randn(size, dtype=DOUBLE) for size in ((1, 4, 4, 8), (8, 4, 4, 1))]
    shape = MPOShape.from_factors((4, 4), (4, 4), 8)
    plans = list(candidates(shape))

    def merge(plan, tensors):
        merged.append(plan)
        return [tensors[0] * len(merged)]

    for _ in range(3):
        made = [cache.weights(plan, cores, merge) for plan in plans[: WeightCache.LIMIT]]
    assert merged == plans[: WeightCache.LIMIT] and len(made) == len(cache) == min(len(plans), WeightCache.LIMIT)
    cores[0].mul_(2.0)
    cache.weights(plans[0], cores, merge)
    assert len(cache) == 1


@pytest.mark.parametrize("rows", [1, 6, 700])
def test_where_nothing_is_merged_nothing_is_kept(rows):
    torch.manual_seed(0)
    layer, inputs = MPOLinear((64, 1), (1, 48), 4, dtype=DOUBLE).eval(), torch.randn(rows, 64, dtype=DOUBLE)
    with torch.no_grad():
        assert layer.plans(rows).forward.program.merges_nothing
        for _ in range(2):
            expected = inputs @ (layer.core1.reshape(64, 4) @ layer.core2.reshape(4, 48)) + layer.bias
            torch.testing.assert_close(layer(inputs), expected, rtol=1e-12, atol=1e-12)
            layer.core1.data.mul_(2.0)  # no version of a tensor counts this write
    assert len(layer._kept) == 0


def test_a_frozen_layer_of_low_rank_keeps_its_cores_alone():
    layer = MPOLinear((576, 1), (1, 576), 100, dtype=DOUBLE)
    model, report = freeze(torch.nn.Sequential(layer))
    assert report.nbytes == 0 and "0.0 MB kept" in str(report)
    held = {core.untyped_storage().data_ptr() for core in model[0].cores}
    assert {weight.untyped_storage().data_ptr() for weight in model[0].frozen.buffers()} == held
    inputs = torch.randn(3, 576, dtype=DOUBLE)
    torch.testing.assert_close(model(inputs), layer(inputs).detach(), rtol=1e-12, atol=1e-12)
    half = model.to(torch.float32)  # parameters and buffers are cast apart
    torch.testing.assert_close(half(inputs.float()), layer(inputs).detach().float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        MPOLinear((576, 1), (1, 576), 100, dtype=DOUBLE),  # runs its cores
        MPOLinear((576, 1), (1, 576), 280, dtype=DOUBLE),  # too many multiplications for that
        MPOLinear((64, 1), (1, 48), 4, dtype=DOUBLE),
        MPOLinear((512, 1, 1), (1, 8, 64), (64, 16), dtype=DOUBLE),  # one core as it is, two merged
        MPOLinear((16, 16), (16, 16), 4, dtype=DOUBLE),
    ],
    ids=str,
)
def test_a_write_to_a_core_of_a_frozen_layer_is_seen_in_every_batch_or_in_none(layer):
    layer = copy.deepcopy(layer)
    with torch.no_grad():
        layer.bias.zero_()
    model, _ = freeze(layer)
    inputs = [torch.randn(rows, layer.in_features, dtype=DOUBLE) for rows in (1, 8, 64, 512, 4096)]
    before = [model(one) for one in inputs]
    factors = set()
    for core in model.cores:
        core.data.mul_(2.0)
        ratios = {round(float((model(one) / old).mean()), 6) for one, old in zip(inputs, before, strict=True)}
        assert len(ratios) == 1
        factors |= ratios
    assert factors in ({1.0}, {2.0**k for k in range(1, len(model.cores) + 1)})


def test_what_is_kept_stays_with_the_layer():
    layer, inputs = served(), torch.randn(6, 16, dtype=DOUBLE)
    with torch.no_grad():
        outputs = layer(inputs)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert len(layer._kept) == 1 and len(other._kept) == 0
            assert layer._plans._plans and not other._plans._plans
            assert torch.equal(other(inputs), outputs)


def test_nothing_is_kept_of_fake_tensors_and_other_devices():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.empty(2, 2)
    cache = WeightCache()
    assert cache.keeps([torch.empty(2)]) and cache.keeps([torch.nn.Parameter(torch.empty(2))])
    assert not cache.keeps([fake]) and not cache.keeps([torch.empty(2, device="meta")])


@pytest.mark.parametrize("kind", [MPOLinear, NetworkLinear])
def test_threads_with_any_batch_and_any_mode_are_served_right(kind):
    layer = served() if kind is MPOLinear else NetworkLinear.from_mpo(served().to_mpo(), dtype=DOUBLE).eval()
    dense = torch.tensor(layer.to_matrix())
    wrong, stop = [], threading.Event()

    def serve(batch):
        inputs = torch.randn(batch, 16, dtype=DOUBLE)
        expected = inputs @ dense + (0 if layer.bias is None else layer.bias)
        try:
            with torch.no_grad():
                for _ in range(400):
                    if (layer(inputs) - expected).abs().max() > 1e-12:
                        wrong.append(batch)
        except Exception as error:
            wrong.append(error)

    def toggle():
        while not stop.is_set():
            layer.train()
            layer.eval()

    threads = [threading.Thread(target=serve, args=(batch,)) for batch in (1, 53, 2, 300, 7, 64, 1, 53)]
    switch = threading.Thread(target=toggle)
    for thread in (*threads, switch):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    switch.join()
    assert wrong == []


# ---------------------------------------------------------------- plans


def test_thousands_of_batch_sizes_share_few_plans(monkeypatch):
    layer, chosen = served(), []
    original = planner.PlanSet.of.__func__
    monkeypatch.setattr(
        planner.PlanSet,
        "of",
        classmethod(lambda cls, request, *rest: chosen.append(request) or original(cls, request, *rest)),
    )
    planner._plans_for.cache_clear()
    for batch in range(1, 20_001):
        layer.plans(batch)
    classes = {planner.rounded(batch) for batch in range(1, 20_001)}
    assert len(layer._plans._plans) == len(classes) == len(chosen) < 120
    for batch in range(1, 20_001, 7):
        layer.plans(batch)
    assert len(chosen) == len(classes)


def test_classes_beyond_the_limit_are_dropped(monkeypatch):
    layer = served()
    monkeypatch.setattr(type(layer._plans), "LIMIT", 3)
    for batch in (1, 2, 4, 8, 16, 32, 64):
        layer.plans(batch)
        assert len(layer._plans._plans) <= 3

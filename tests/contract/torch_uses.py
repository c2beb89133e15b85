"""The uses of a layer in PyTorch."""

import copy
import io
import pickle
import threading
import warnings
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

import graphs
from contract.uses import Kind, check_budget, keeping, saving
from mponet.errors import InputError, ShapeError
from mponet_torch import MPOConv1d, MPOConv2d, MPOEmbedding, MPOLinear, NetworkLinear, TiedHead, freeze, unfreeze

DOUBLE = torch.float64
ABSENT = {}
#: Kind to use to the reason why the kind does not have it.
ABSENT_KINDS = {
    "MPOConv1d": {"adapters": "PEFT builds adapters of convolutions from the layer's class"},
    "MPOConv2d": {"adapters": "PEFT builds adapters of convolutions from the layer's class"},
    "TiedHead": {
        "hooks": "it is made from an embedding, not from a dense layer",
        "kept": "it is made from an embedding, not from a dense layer",
        "sources": "it is made from an embedding, not from a dense layer",
        "parametrised": "its parameters are those of its embedding, whose row this is",
        "adapters": "adapters go on the embedding, whose row this is",
    },
}


class _Owning(TiedHead):
    """A head and its embedding in one module, as a model holds both."""

    def __init__(self, embedding, bias=False):
        super().__init__(embedding, bias)
        self.owned = embedding


def kinds():
    """The kinds of layers that the contract is for."""
    ring = graphs.WIRINGS["ring"]

    def maker(layer, *arguments, **fixed):
        return lambda **options: layer(*arguments, **{"dtype": DOUBLE, "seed": 1, **fixed, **options})

    def rows(layer, batch=5):
        return torch.randn(batch, layer.in_features, dtype=DOUBLE)

    def maps(layer, batch=5):
        return torch.randn(batch, layer.in_channels, *(5, 4)[: len(layer.kernel_size)], dtype=DOUBLE)

    def tokens(layer, batch=5):
        return torch.randint(layer.num_embeddings, (batch, 3))

    def linear(layer):
        return lambda x: F.linear(x, layer.weight, layer.bias)

    def convolution(layer):
        convolve = (F.conv1d, F.conv2d)[len(layer.kernel_size) - 1]
        return lambda x: convolve(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation)

    def embedding(layer):
        return lambda x: F.embedding(x, layer.weight)

    def head(**options):
        return _Owning(MPOEmbedding(13, 6, 3, **{"dtype": DOUBLE, "seed": 1, **options}), bias=True)

    table = maker(MPOEmbedding, 13, 6, 3, 2)
    return (
        Kind("MPOLinear", maker(MPOLinear, (4, 4), (4, 3), 5), rows, linear),
        Kind("MPOLinear, padded", maker(MPOLinear, 31, 29, 3), rows, linear),
        Kind("NetworkLinear", maker(NetworkLinear, ring), rows, linear),
        Kind("MPOConv1d", maker(MPOConv1d, 4, 6, 3, 3, stride=2, padding=1), maps, convolution),
        Kind("MPOConv2d", maker(MPOConv2d, 4, 6, 3, 3, padding=2, dilation=2), maps, convolution),
        Kind("MPOEmbedding", table, tokens, embedding),
        Kind("TiedHead", head, lambda _, batch=5: torch.randn(batch, 6, dtype=DOUBLE), linear),
    )


@contextmanager
def quiet():
    """Inside, warnings that torch and PEFT give of their own features are not errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def close(found, expected, tolerance=1e-12):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())


def run_together(serve):
    """Call it in nine threads with three sizes of batch."""
    workers = [threading.Thread(target=serve, args=(batch,)) for batch in (1, 53, 200) * 3]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def first(layer):
    """A parameter of the operator."""
    return next(parameter for name, parameter in layer.named_parameters() if "bias" not in name)


def with_gradients(layer, x):
    """What outputs are differentiated by: inputs, unless they are tokens, and parameters."""
    return [*([x.requires_grad_()] if x.is_floating_point() else []), *layer.parameters()]


def slopes(call, leaves):
    return torch.autograd.grad(call().sin().sum(), leaves)


def all_close(found, expected, tolerance=1e-12):
    for ours, theirs in zip(found, expected, strict=True):
        close(ours, theirs, tolerance)


def outputs(kind):
    layer = kind.make()
    x, reference = kind.inputs(layer), kind.reference(layer)
    close(layer(x), reference(x))
    leaves = with_gradients(layer, x)
    all_close(slopes(lambda: layer(x), leaves), slopes(lambda: reference(x), leaves))
    if hasattr(layer, "to_dense"):
        close(layer(x), layer.to_dense()(x))
    assert not layer(x)._is_view()  # else FSDP2 warns, and writes in place go astray
    if isinstance(layer, MPOLinear | NetworkLinear | TiedHead):
        tall = x.detach().reshape(1, 5, 1, -1)
        assert not layer(tall)._is_view()
        close(layer(tall), layer(x).reshape(1, 5, 1, -1))


def training(kind):
    layer = kind.make()
    x = kind.inputs(layer, 32)
    targets = layer(x).detach().roll(1, 0)
    optimizer = torch.optim.Adam(layer.parameters(), lr=2e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (layer(x) - targets).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def inference(kind):
    layer = kind.make().eval()
    x = kind.inputs(layer)
    last = list(layer.parameters())[-1]
    for write in (lambda: None, lambda: first(layer).data.mul_(2.0), lambda: last.data.add_(1.0)):
        write()  # `.data` does not count as a change in torch
        expected = copy.deepcopy(layer).train()(x).detach()
        with torch.no_grad():
            close(layer(x), expected)
        with torch.inference_mode():
            close(layer(x), expected)
    vector = nn.utils.parameters_to_vector(layer.parameters()).detach()
    nn.utils.vector_to_parameters(0.5 * vector, layer.parameters())
    with torch.no_grad():
        close(layer(x), kind.reference(layer)(x))


def served(kind):
    layer = kind.make().eval()
    for sweeps in (True, False):
        with keeping(sweeps):
            model, report = freeze(nn.Sequential(layer))
        assert len(report.layers) == 1 and report.nbytes > 0
        if isinstance(layer, MPOLinear | TiedHead):
            assert all(("matrix" in entry.kept) != sweeps for entry in report.layers.values())
        assert model.state_dict().keys() == nn.Sequential(layer).state_dict().keys()
        for batch in (1, 300, 7, 1, 40):
            x = kind.inputs(layer, batch)
            for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
                with context():
                    close(model(x), kind.reference(layer)(x))
        x, expected = kind.inputs(layer), kind.reference(layer)
        if x.is_floating_point():
            all_close(*(slopes(partial(call, x), [x.requires_grad_()]) for call in (model, expected)))
        with torch.no_grad(), quiet():
            for other in (
                copy.deepcopy(model),
                pickle.loads(pickle.dumps(model)),
                torch.compile(model, backend="eager"),
            ):
                close(other(x), expected(x))
            lengths = ({0: torch.export.Dim("batch")},)
            program = torch.export.export(model, (x,), dynamic_shapes=lengths).module()
            for batch in (3, 600):
                y = kind.inputs(layer, batch)
                close(program(y), expected(y))
            close(copy.deepcopy(model).float()(x.float() if x.is_floating_point() else x), expected(x).float(), 1e-4)
        _many_threads(kind, model, layer)
        owner = getattr(model[0], "embedding", model[0])
        for end in (model.train, partial(unfreeze, model), partial(model.load_state_dict, model.state_dict())):
            with keeping(sweeps):
                freeze(model, in_place=True)
            assert not any(parameter.requires_grad for parameter in owner.parameters())
            end()
            assert all(parameter.requires_grad for parameter in model.parameters())
        with keeping(sweeps):
            freeze(model, in_place=True)
        with pytest.raises(InputError, match="frozen"):
            owner.assign(tuple(owner.tensors))
        first(owner).requires_grad_(True)
        model(x).sum().backward()  # trains the layer, which ends it
        with torch.no_grad():
            first(owner).mul_(2.0)
            close(model(x), kind.reference(model[0])(x))


def _many_threads(kind, model, layer):
    problems = []

    def serve(batch):
        x = kind.inputs(layer, batch)
        with torch.no_grad():
            expected = kind.reference(layer)(x)
            for _ in range(30):
                try:
                    close(model(x), expected)
                except Exception as problem:  # every one counts, whatever it is
                    problems.append(problem)

    run_together(serve)
    assert not problems


def frozen(kind):
    layer = kind.make().requires_grad_(False)
    x = kind.inputs(layer)
    assert not layer(x).requires_grad
    if x.is_floating_point():
        layer(x.requires_grad_()).sum().backward()
        assert x.grad is not None
    assert all(parameter.grad is None for parameter in layer.parameters())
    parameter = first(layer).requires_grad_(True)
    layer(x.detach()).sum().backward()
    assert [other.grad is not None for other in layer.parameters()] == [p is parameter for p in layer.parameters()]


def functional(layer, x):
    """The layer as a function of what it is differentiated by, and the values."""
    names, values = zip(*((name, value.detach().clone()) for name, value in layer.named_parameters()), strict=True)
    if x.is_floating_point():
        return lambda x, *own: torch.func.functional_call(layer, dict(zip(names, own, strict=True)), x), (x, *values)
    return lambda *own: torch.func.functional_call(layer, dict(zip(names, own, strict=True)), x), values


def second_derivative(kind):
    layer = kind.make()
    call, values = functional(layer, kind.inputs(layer, 2))
    arguments = [value.requires_grad_() for value in values]
    assert torch.autograd.gradgradcheck(call, arguments, fast_mode=True)


def forward_mode(kind):
    layer = kind.make()
    call, values = functional(layer, kind.inputs(layer, 2))
    everything = tuple(range(len(values)))
    tangents = tuple(map(torch.randn_like, values))
    with quiet():  # torch decorates a class of its own with torch.jit.script, once
        _, expected = torch.autograd.functional.jvp(call, values, tangents)  # by reverse mode, twice
        _, found = torch.func.jvp(call, values, tangents)
    close(found, expected)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(value, tangent) for value, tangent in zip(values, tangents, strict=True)]
        close(forward_ad.unpack_dual(call(*duals)).tangent, expected)
    all_close(torch.func.jacfwd(call, everything)(*values), torch.func.jacrev(call, everything)(*values))

    def total(*own):
        return call(*own).square().sum()

    gradient = torch.func.grad(total, everything)
    _, products = torch.autograd.functional.hvp(total, values, tangents)
    all_close(torch.func.jvp(gradient, values, tangents)[1], products, 1e-10)
    rows, other = torch.func.hessian(total, 0)(*values), torch.func.jacrev(torch.func.jacrev(total, 0), 0)(*values)
    close(rows, other, 1e-10)


def batched_gradients(kind):
    layer = kind.make()
    x = kind.inputs(layer, 2)
    leaves = with_gradients(layer, x)
    y = layer(x)
    directions = torch.randn(7, *y.shape, dtype=DOUBLE)
    found = torch.autograd.grad(y, leaves, directions, is_grads_batched=True, retain_graph=True)
    singly = [torch.autograd.grad(kind.reference(layer)(x), leaves, direction) for direction in directions]
    all_close(found, [torch.stack(parts) for parts in zip(*singly, strict=True)])
    call, values = functional(layer, x.detach())
    one, other = (torch.autograd.functional.jacobian(call, values, vectorize=choice) for choice in (False, True))
    all_close(one, other)


def mapped(kind):
    layer = kind.make()
    x = torch.stack([kind.inputs(layer) for _ in range(3)])
    close(torch.func.vmap(layer)(x), torch.stack([layer(part) for part in x]))
    names, values = zip(*((name, value.detach()) for name, value in layer.named_parameters()), strict=True)

    def total(own, row):
        return torch.func.functional_call(layer, dict(zip(names, own, strict=True)), row[None]).sin().sum()

    each = torch.func.vmap(torch.func.grad(total), in_dims=(None, 0))(values, x[0])
    whole = slopes(lambda: kind.reference(layer)(x[0]), list(layer.parameters()))
    all_close([parts.sum(0) for parts in each], whole)


class _ThroughWeight(nn.Module):
    """The reference as a module with the parameters of the layer."""

    def __init__(self, kind, layer):
        super().__init__()
        self.reference, self.layer = kind.reference, layer

    def forward(self, x):
        return self.reference(self.layer)(x)


def _transforms(module, x, names, values):
    """Calls of `torch.func` by name: by parameters, and by inputs unless they are tokens."""
    everything = tuple(range(len(values)))

    def call(*own):
        inputs, own = (own[0], own[1:]) if x.is_floating_point() else (x, own)
        return torch.func.functional_call(module, dict(zip(names, own, strict=True)), inputs)

    def total(*own):
        return call(*own).sin().sum()

    def of_row(row, own):
        return torch.func.functional_call(module, dict(zip(names, own, strict=True)), row[None]).sin().sum()

    parameters = values[-len(names) :]
    tangents = tuple(value.cos() for value in values)
    return {
        "jvp": lambda: torch.func.jvp(call, values, tangents),
        "jacfwd": lambda: torch.func.jacfwd(call, everything)(*values),
        "jacrev": lambda: torch.func.jacrev(call, everything)(*values),
        "hessian": lambda: torch.func.hessian(total, 0)(*values),
        "gradients of samples": lambda: torch.func.vmap(torch.func.grad(of_row, 1), (0, None))(x, parameters),
        "layers mapped": lambda: torch.func.vmap(lambda own: of_row(x[0], own))(
            tuple(torch.stack([value, 2 * value]) for value in parameters)
        ),
        "mapped": lambda: torch.func.vmap(module)(torch.stack([x, x])),
        "functionalized": lambda: torch.func.functionalize(call)(*values),
    }


def transformed(kind):
    layer = kind.make()
    x = kind.inputs(layer, 2)
    names, values = zip(*((name, value.detach().clone()) for name, value in layer.named_parameters()), strict=True)
    values = (x, *values) if x.is_floating_point() else values
    inner = tuple(f"layer.{name}" for name in names)
    reference = _transforms(_ThroughWeight(kind, layer), x, inner, values)
    with quiet():  # torch decorates a class of its own with torch.jit.script, once
        expected = {name: torch.utils._pytree.tree_leaves(call()) for name, call in reference.items()}
    for mode in ("training", "kept", "frozen"):
        layer = kind.make().train(mode == "training").requires_grad_(mode != "frozen")
        with torch.no_grad():
            layer(x)  # in eval mode it keeps weights, which have no derivatives
        for name, call in _transforms(layer, x, names, values).items():
            all_close(torch.utils._pytree.tree_leaves(call()), expected[name], 1e-10)
            if mode == "kept" and name in ("jvp", "hessian", "gradients of samples", "mapped"):
                torch._dynamo.reset()
                with quiet():
                    found = torch.compile(call, fullgraph=True, backend="aot_eager")()
                all_close(torch.utils._pytree.tree_leaves(found), expected[name], 1e-10)


def memory(kind):
    found = []
    for states in (True, False):
        with saving(states):
            layer = kind.make()
            x = torch.manual_seed(0) and kind.inputs(layer)
            leaves = with_gradients(layer, x)
            found.append(slopes(lambda layer=layer, x=x: layer(x), leaves))
            all_close(found[-1], slopes(lambda layer=layer, x=x: kind.reference(layer)(x), leaves))
            torch._dynamo.reset()
            compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
            all_close(found[-1], slopes(lambda compiled=compiled, x=x: compiled(x), leaves))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    check_budget(kind, "embedding", copy.deepcopy)


def recomputed(kind):
    layer = kind.make()
    x = kind.inputs(layer)
    leaves = with_gradients(layer, x)
    expected = slopes(lambda: kind.reference(layer)(x), leaves)
    for reentrant in (False, True)[: 1 + x.is_floating_point()]:  # that way wants an input with gradients
        for leaf in leaves:
            leaf.grad = None
        torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant).sin().sum().backward()
        all_close([leaf.grad for leaf in leaves], expected)


def mixed_precision(kind):
    layer = kind.make(dtype=torch.float32)
    x = kind.inputs(layer)
    double, wide = kind.make(), x
    x = x.float() if x.is_floating_point() else x
    reference = kind.reference(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs, precise = layer(x), reference(x), double(wide)
    assert ours.dtype == theirs.dtype  # as torch does: the embedding of a table stays in float32
    assert precise.dtype == DOUBLE
    close(precise, kind.reference(double)(wide))
    (ours.float() ** 2).sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())
    assert (ours.float() - reference(x)).abs().max() <= 2**-5 * reference(x).abs().max()
    half = layer.to(torch.bfloat16)
    assert half(x.bfloat16() if x.is_floating_point() else x).dtype == torch.bfloat16


def compiled(kind):
    for mode in ("training", "no_grad", "frozen"):
        torch._dynamo.reset()
        layer = kind.make().train(mode == "training").requires_grad_(mode != "frozen")
        x = kind.inputs(layer)
        leaves = with_gradients(layer, x) if mode == "training" else []
        with torch.set_grad_enabled(mode != "no_grad"):
            run = torch.compile(layer, fullgraph=True, backend="aot_eager")
            close(run(x), layer(x))  # before any call that is not compiled
            if mode == "training":
                all_close(slopes(partial(run, x), leaves), slopes(partial(layer, x), leaves))


def exported(kind):
    layer = kind.make().eval()
    program = torch.export.export(layer, (kind.inputs(layer),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = kind.inputs(layer, 9)
    close(program.module()(x), layer(x))


def _symbolic(kind):
    """Recorded by `make_fx` at one size of batch, run at others."""
    layer = kind.make()
    state = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    state = {name: value.detach() for name, value in state.items()}

    def call(values, x):
        return torch.func.functional_call(layer, values, (x,))

    # 13 rows: a size of the batch that is also a size of a core would be taken for the same
    recorded = make_fx(call, tracing_mode="symbolic", _allow_non_fake_inputs=True)(state, kind.inputs(layer, 13))
    for rows in (13, 7, 64):
        x = kind.inputs(layer, rows)
        all_close([recorded(state, x)], [call(state, x)], 1e-12)


def traced(kind):
    _symbolic(kind)
    layer = kind.make()
    with quiet():  # torch.jit is deprecated, and still what exporters use
        again = torch.jit.trace(layer, kind.inputs(layer, 3))
        model = nn.Sequential(layer, nn.ReLU())
        recorded = torch.fx.symbolic_trace(model)
    for batch in (1, 3, 7):
        x = kind.inputs(layer, batch)
        close(again(x), layer(x))
        close(recorded(x), model(x))
    assert [node.op for node in recorded.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]


def start_again(layer):
    """What FSDP and deferred initialisation do: every module of its own."""
    for module in layer.modules():
        module.reset_parameters()


def without_numbers(kind):
    layer = kind.make(device="meta")
    size = kind.make()(kind.inputs(layer, 3)).shape
    assert layer(kind.inputs(layer, 3).to("meta")).shape == size
    with torch.device("meta"):
        assert first(kind.make(seed=None)).is_meta
    start_again(layer.to_empty(device="cpu"))
    all_close(layer.state_dict().values(), kind.make().state_dict().values(), 0)
    with torch._subclasses.fake_tensor.FakeTensorMode():
        fake = kind.make(seed=None)
        assert fake(kind.inputs(fake, 3)).shape == size
        fake.eval()
        with torch.no_grad():
            assert fake(kind.inputs(fake, 3)).shape == size
    torch.manual_seed(3)
    one, other = kind.make(seed=None), kind.make(seed=None)
    assert not torch.equal(first(one), first(other))
    before = first(one).clone()
    start_again(one)
    assert not torch.equal(first(one), before)


def saved(kind):
    layer, again = kind.make(), kind.make(seed=9)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    assert not again.load_state_dict(torch.load(file, weights_only=True)).missing_keys
    x = kind.inputs(layer)
    close(again(x), layer(x))
    fresh = kind.make(device="meta")
    fresh.load_state_dict(layer.state_dict(), assign=True)
    close(fresh(x), layer(x))
    state = {name: value for name, value in layer.state_dict().items() if not name.endswith("weight")}
    assert not again.load_state_dict(state).missing_keys
    close(torch.func.functional_call(layer, state, x), layer(x))
    if not hasattr(layer, "to_dense"):
        return
    dense = layer.to_dense()
    for strict in (True, False):
        with pytest.raises(RuntimeError, match="size mismatch for weight"):
            dense.load_state_dict(layer.state_dict(), strict=strict)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight"):
        layer.load_state_dict(dense.state_dict())


def copied(kind):
    layer = kind.make().eval()
    x = kind.inputs(layer)
    with torch.no_grad():
        expected = layer(x)  # keeps weights, which must not travel
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    shared = copy.deepcopy(layer)
    shared.share_memory()
    for again in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
        shared,
        copy.copy(layer),
    ):
        close(again(x), expected)
        assert repr(again) == repr(layer)


def averaged(kind):
    layer = kind.make()
    mean = torch.optim.swa_utils.AveragedModel(layer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    mean.update_parameters(layer)
    with torch.no_grad():
        mean.eval()(kind.inputs(layer))  # keeps weights of the old average
        for parameter in layer.parameters():
            parameter.add_(1.0)
        mean.update_parameters(layer)
        x = kind.inputs(layer)
        close(mean(x), kind.reference(mean.module)(x))
    close(first(mean.module), first(layer) - 0.5)


def threads(kind):
    layer, problems = kind.make().eval(), []
    reference = kind.reference(layer)

    def serve(batch):
        x = kind.inputs(layer, batch)
        with torch.no_grad():
            expected = reference(x)
            for _ in range(100):
                try:
                    close(layer(x), expected)
                except Exception as problem:  # every one counts, whatever it is
                    problems.append(problem)

    run_together(serve)
    assert not problems


def many_batches(kind):
    layer = kind.make().eval()
    holder = getattr(layer, "embedding", layer)
    seen = {id(holder.plans(batch)) for batch in range(1, 20_000, 7)}
    assert len(seen) <= 8 * 15  # eight classes for each power of two
    with torch.no_grad():
        for batch in (1, 7, 300, 2, 40, 5, 900, 11):
            layer(kind.inputs(layer, batch))
    assert len(holder.cache) <= holder.cache.LIMIT
    if hasattr(holder, "_plans"):
        assert len(holder._plans._plans) <= holder._plans.LIMIT


def hooks(kind):
    dense, calls = kind.make().to_dense(), []
    handles = [
        dense.register_forward_hook(lambda *_: calls.append("forward")),
        dense.register_forward_pre_hook(lambda *_: calls.append("before")),
        dense.register_full_backward_hook(lambda *_: calls.append("backward")),
    ]
    layer = type(kind.make()).from_dense(dense)
    x = kind.inputs(layer)
    with quiet():  # torch says of tokens that they have no gradients
        layer(x.requires_grad_() if x.is_floating_point() else x).sum().backward()
    assert calls == ["before", "forward", "backward"]
    for handle in handles:
        handle.remove()
    layer(kind.inputs(layer)).sum().backward()
    assert len(calls) == 3
    if isinstance(layer, MPOEmbedding):  # a row of zeros has no direction
        return
    normed = torch.nn.utils.parametrizations.weight_norm(kind.make().to_dense())
    close(type(layer).from_dense(normed)(x), normed(x))


def kept(kind):
    for mode, grad, dtype in ((True, True, torch.float32), (False, False, DOUBLE), (False, True, torch.bfloat16)):
        dense = kind.make(dtype=dtype).to_dense().train(mode).requires_grad_(grad)
        biased = getattr(dense, "bias", None) is not None
        if biased:
            dense.bias.requires_grad_(True)
        layer = type(kind.make()).from_dense(dense)
        own = layer.tensors[0]
        assert (layer.training, own.dtype, own.device) == (mode, dtype, dense.weight.device)
        assert [p.requires_grad for p in layer.tensors] == [grad] * len(layer.tensors)
        assert not biased or layer.bias.requires_grad
        back = layer.to_dense()
        assert (back.training, back.weight.requires_grad) == (mode, grad)
        assert not biased or back.bias.requires_grad
        assert back.weight.dtype == dtype


class _Scaled(nn.Linear):
    """A subclass that computes the same in other words."""

    def forward(self, inputs):
        return nn.functional.linear(inputs, self.weight) + self.bias


class _Adapted(nn.Linear):
    """A subclass whose weight is not all that it multiplies with."""

    def forward(self, inputs):
        return super().forward(inputs) + 0.1 * inputs.sum(-1, keepdim=True)


def sources(kind):
    make = type(kind.make()).from_dense
    whole = nn.Linear(8, 6)
    whole.weight = nn.Parameter(whole.weight.detach().to(torch.int8), requires_grad=False)
    other, taken = _sources(kind)
    for dense in taken:
        x = kind.inputs(kind.make())
        x = torch.randn(3, 8) if isinstance(dense, nn.Linear) else x.float() if x.is_floating_point() else x
        close(make(dense)(x), dense(x), 1e-4)
    for foreign in (*other, kind.make(), whole, torch.ones(8, 6), np.ones((8, 6))):
        with pytest.raises(InputError, match="expected"):
            make(foreign)
    with pytest.raises(InputError, match="initializer is a function; expected"):
        kind.make(initializer=nn.init.normal_)


def _sources(kind):
    """Layers that a kind does not take, and layers that it takes."""
    layer = kind.make()
    if isinstance(layer, MPOEmbedding):
        wrong = (nn.EmbeddingBag(13, 6), nn.Embedding(13, 6, max_norm=1.0), nn.Embedding(13, 6, device="meta"))
        return (nn.Linear(8, 6), *wrong), (nn.Embedding(13, 6), nn.Embedding(13, 6, 2))
    if isinstance(layer, MPOConv1d | MPOConv2d):
        one, two, lazy = (nn.Conv1d, nn.Conv2d, nn.LazyConv2d)
        transposed = nn.ConvTranspose1d, nn.ConvTranspose2d
        if isinstance(layer, MPOConv1d):
            one, two, lazy, transposed = two, one, nn.LazyConv1d, transposed[::-1]
        shape = 4, 6, 3
        with pytest.raises(ShapeError, match="call it on maps"):
            type(layer).from_dense(lazy(6, 3))
        wrong = nn.Linear(8, 6), one(*shape), transposed[1](*shape), two(*shape, device="meta")
        same = two(*shape, padding="same", padding_mode="circular"), two(*shape, groups=2, bias=False)
        return wrong, (two(*shape, 2, 1), *same)
    lazy = nn.LazyLinear(6)
    with pytest.raises(ShapeError, match="call it on a batch"):
        type(layer).from_dense(lazy)
    lazy(torch.randn(3, 8))
    point = nn.Conv2d(8, 6, 1)
    x = torch.randn(3, 8)
    close(type(layer).from_dense(point)(x), point(x[:, :, None, None])[:, :, 0, 0], 1e-5)
    assert type(layer).from_dense(nn.Conv1d(8, 6, 1, bias=False)).bias is None
    strange = nn.Conv2d(8, 6, 3), nn.Conv2d(8, 8, 1, groups=2), nn.Embedding(8, 6), nn.Bilinear(8, 8, 6), _Adapted(8, 6)
    wrong = nn.Linear(8, 6, device="meta"), nn.Linear(8, 6, dtype=torch.complex64)
    return (*strange, *wrong), (_Scaled(8, 6), lazy, nn.modules.linear.NonDynamicallyQuantizableLinear(8, 6))


def weight_readers(kind):
    layer = kind.make()
    x, reference = kind.inputs(layer), kind.reference(layer)
    assert isinstance(layer.weight, torch.Tensor)
    built = layer.weight.detach().clone()
    assert (layer.weight.shape, layer.weight.dtype, layer.weight.requires_grad) == (built.shape, DOUBLE, True)
    own = list(layer.parameters())
    all_close(slopes(lambda: reference(x), own), slopes(lambda: layer(x), own))

    def merge():  # as adapters are merged
        layer.weight.data += 1.0

    for write in (
        merge,
        lambda: nn.init.zeros_(layer.weight),
        lambda: layer.weight.data.normal_(),
        lambda: layer.weight.copy_(layer.weight),
        lambda: layer.weight.__setitem__(0, 0.0),
        lambda: torch.add(built, 1.0, out=layer.weight),
    ):
        with pytest.raises(InputError, match="writes to the weight"), torch.no_grad():
            write()
    if not isinstance(layer, MPOLinear | NetworkLinear):
        return
    close(built, layer.to_dense().weight)
    block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dtype=DOUBLE).eval()
    swapped = copy.deepcopy(block)
    for name in ("linear1", "linear2"):
        setattr(swapped, name, type(layer).from_dense(getattr(block, name)))
    swapped.self_attn.out_proj = type(layer).from_dense(block.self_attn.out_proj)
    tokens = torch.randn(2, 5, 16, dtype=DOUBLE)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            close(swapped(tokens), block(tokens))


class _Symmetric(nn.Module):
    def forward(self, tensor):
        return 2.0 * tensor


def parametrised(kind):
    layer, doubled = kind.make(), kind.make()
    x = kind.inputs(layer)
    values = [tensor.detach().clone() for tensor in layer.tensors]
    expected = layer(x).detach()
    doubled.tensors[0].data.mul_(2.0)
    name = layer.parameter_names[0]
    parametrize.register_parametrization(layer, name, _Symmetric())
    with torch.no_grad():
        for mode in (True, False):
            close(layer.train(mode)(x), doubled(x))
    with pytest.raises(InputError, match=f"{name} of the layer is computed"):
        layer.assign(values)
    layer(x).sum().backward()
    pruned = kind.make()
    prune.random_unstructured(pruned, name, amount=0.5)
    close(pruned(x), kind.reference(pruned)(x))
    with pytest.raises(InputError, match="pruning"):
        pruned.assign(values)
    prune.remove(pruned, name)
    pruned.assign(values)
    close(pruned(x), expected)


def adapters(kind):
    peft = pytest.importorskip("peft")
    from peft.tuners.lora import layer as lora

    model = nn.Sequential()
    model.first = kind.make(dtype=torch.float32)
    before = model.first.to_dense()
    config = peft.LoraConfig(r=2, target_modules=["first"], init_lora_weights=False)
    adapter = lora.Embedding if isinstance(model.first, MPOEmbedding) else lora.Linear
    config._register_custom_module({type(model.first): adapter})
    with quiet():  # the kind of layer is new to PEFT
        wrapped = peft.get_peft_model(model, config)
    x = kind.inputs(kind.make())
    x = x.float() if x.is_floating_point() else x
    adapted = wrapped(x)
    assert (adapted - before(x)).abs().max() > 1e-3
    adapted.sum().backward()
    adapter = wrapped.base_model.model.first
    assert all(p.grad is None for p in adapter.base_layer.parameters())
    assert any(p.grad is not None for p in adapter.parameters())
    with pytest.raises(InputError, match="writes to the weight"):  # else the adapter would be lost
        wrapped.merge_adapter()
    with wrapped.disable_adapter():
        close(wrapped(x), before(x), 1e-5)


def odd_inputs(kind):
    layer = kind.make()
    x = kind.inputs(layer, 3)
    with quiet():  # torch says that nested and masked tensors are prototypes
        if not isinstance(layer, MPOConv1d | MPOConv2d):  # nor do convolutions of torch take them
            _nested(kind, layer)
        masked = torch.masked.masked_tensor(x, x > 0)
    for wrong in (x.to(torch.complex128), x.to_sparse(), masked, x.numpy(), x.tolist(), None):
        with pytest.raises(InputError, match="expected"):
            layer(wrong)
    if x.is_floating_point():
        with pytest.raises(ShapeError, match="expected"):
            layer(x[:, :-1])
    else:
        with pytest.raises(InputError, match="expected integers"):
            layer(x.double())
    with pytest.raises(InputError, match="complex64; expected real numbers"):
        kind.make(dtype=torch.complex64)
    with quiet():
        layer.to(torch.complex128)
    with pytest.raises(InputError, match="complex128; expected real numbers"):
        layer(x)
    if hasattr(layer, "to_matrix"):
        with pytest.raises(InputError, match="complex128; expected real numbers"):
            layer.to_matrix()


def _nested(kind, layer):
    parts = [kind.inputs(layer, 2), kind.inputs(layer, 5)]
    if not parts[0].is_floating_point():
        parts = [part[:, 0] for part in parts]
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged)
    strided = torch.nested.nested_tensor(parts)
    for nested in (jagged, strided):
        found = layer(nested)
        assert found.is_nested and found.layout == nested.layout
        for part, whole in zip(found.unbind(), parts, strict=True):
            close(part, kind.reference(layer)(whole))
    assert (layer(jagged) + layer(jagged)).is_nested  # they have the same ragged size


def sharded(kind):
    from torch import distributed
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    started = not distributed.is_initialized()
    if started:
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        layer = kind.make()
        x = kind.inputs(layer)
        expected = layer(x)
        close(nn.parallel.DistributedDataParallel(kind.make())(x), expected)
        shards = fully_shard(kind.make(), mesh=mesh)
        close(shards(x), expected)
        shards(x).sum().backward()
        if hasattr(layer, "to_matrix"):
            close(torch.from_numpy(shards.to_matrix()), torch.from_numpy(layer.to_matrix()))
        empty = fully_shard(kind.make(device="meta"), mesh=mesh).to_empty(device="cpu")
        start_again(empty)
        close(empty(x), expected)
        with quiet():  # one process needs no shards
            whole = FullyShardedDataParallel(kind.make(), device_id=torch.device("cpu"), use_orig_params=True)
        close(whole(x), expected)
    finally:
        if started:
            distributed.destroy_process_group()

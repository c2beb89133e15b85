"""The uses of a layer in PyTorch."""

import copy
import io
import pickle
import threading
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize, prune

import graphs
from contract.uses import Kind
from mponet.errors import InputError, ShapeError
from mponet_torch import MPOLinear, NetworkLinear

DOUBLE = torch.float64
ABSENT = {}


def kinds():
    """The kinds of layers that the contract is for."""
    ring = graphs.WIRINGS["ring"]
    return (
        Kind(
            "MPOLinear",
            lambda **options: MPOLinear((4, 4), (4, 3), 5, **{"dtype": DOUBLE, "seed": 1, **options}),
            lambda layer, batch=5: torch.randn(batch, layer.in_features, dtype=DOUBLE),
        ),
        Kind(
            "NetworkLinear",
            lambda **options: NetworkLinear(ring, **{"dtype": DOUBLE, "seed": 1, **options}),
            lambda layer, batch=5: torch.randn(batch, layer.in_features, dtype=DOUBLE),
        ),
    )


@contextmanager
def quiet():
    """Inside, warnings that torch and PEFT give of their own features are no errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def close(found, expected, tolerance=1e-12):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * max(1.0, expected.abs().max().item())


def outputs(kind):
    layer = kind.make()
    dense, inputs = layer.to_dense(), kind.inputs(layer).requires_grad_()
    close(layer(inputs), dense(inputs))
    ours, theirs = (torch.autograd.grad(module(inputs).sin().sum(), inputs)[0] for module in (layer, dense))
    close(ours, theirs)


def training(kind):
    layer = kind.make()
    inputs = kind.inputs(layer, 32)
    targets = layer.to_dense()(inputs).detach().roll(1, 0)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (layer(inputs) - targets).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def inference(kind):
    layer = kind.make().eval()
    inputs = kind.inputs(layer)
    for write in (lambda: None, lambda: layer.tensors[0].data.mul_(2.0), lambda: layer.bias.data.add_(1.0)):
        write()  # `.data` does not count as a change in torch
        expected = copy.deepcopy(layer).train()(inputs).detach()
        with torch.no_grad():
            close(layer(inputs), expected)
        with torch.inference_mode():
            close(layer(inputs), expected)
    vector = nn.utils.parameters_to_vector(layer.parameters()).detach()
    nn.utils.vector_to_parameters(0.5 * vector, layer.parameters())
    with torch.no_grad():
        close(layer(inputs), layer.to_dense()(inputs))


def frozen(kind):
    layer = kind.make().requires_grad_(False)
    inputs = kind.inputs(layer).requires_grad_()
    layer(inputs).sum().backward()
    assert inputs.grad is not None
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert not layer(inputs.detach()).requires_grad
    layer.tensors[0].requires_grad_(True)
    layer(inputs.detach()).sum().backward()
    assert layer.tensors[0].grad is not None and layer.tensors[1].grad is None


def functional(layer):
    """The layer as a function of its inputs and parameters, and the parameters."""
    names, values = zip(*((name, value.detach().clone()) for name, value in layer.named_parameters()), strict=True)
    return lambda x, *own: torch.func.functional_call(layer, dict(zip(names, own, strict=True)), x), values


def second_derivative(kind):
    layer = kind.make()
    call, values = functional(layer)
    arguments = [value.requires_grad_() for value in (kind.inputs(layer, 3), *values)]
    assert torch.autograd.gradgradcheck(call, arguments)


def forward_mode(kind):
    layer = kind.make()
    dense, x = layer.to_dense(), kind.inputs(layer)
    tangent = torch.randn_like(x)
    with quiet():  # torch decorates a class of its own with torch.jit.script, once
        torch.func.jvp(dense, (x,), (tangent,))
    close(torch.func.jvp(layer, (x,), (tangent,))[1], torch.func.jvp(dense, (x,), (tangent,))[1])
    close(torch.func.jacfwd(layer)(x[0]), torch.func.jacfwd(dense)(x[0]))
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent))).tangent
    close(found, tangent @ dense.weight.T)
    call, values = functional(layer)

    def total(*own):
        return call(x, *own).square().sum()

    reverse = torch.func.jacrev(torch.func.jacrev(total))(*values)
    close(torch.func.hessian(total)(*values), reverse)
    direction = tuple(map(torch.randn_like, values))
    gradient = torch.func.grad(total, argnums=tuple(range(len(values))))
    found = torch.func.jvp(gradient, values, direction)[1]
    loss = total(*(own := [value.clone().requires_grad_() for value in values]))
    slopes = torch.autograd.grad(loss, own, create_graph=True)
    inner = sum((slope * part).sum() for slope, part in zip(slopes, direction, strict=True))
    for ours, theirs in zip(found, torch.autograd.grad(inner, own), strict=True):
        close(ours, theirs, 1e-10)


def batched_gradients(kind):
    layer = kind.make()
    dense, x = layer.to_dense(), kind.inputs(layer).requires_grad_()
    y = layer(x)
    directions = torch.randn(7, *y.shape, dtype=DOUBLE)
    (found,) = torch.autograd.grad(y, x, directions, is_grads_batched=True)
    close(found, directions @ dense.weight)
    for vectorize in (False, True):
        found = torch.autograd.functional.jacobian(layer, x.detach()[0], vectorize=vectorize)
        close(found, dense.weight)


def mapped(kind):
    layer = kind.make()
    x = torch.stack([kind.inputs(layer) for _ in range(3)])
    close(torch.func.vmap(layer)(x), layer(x))
    call, values = functional(layer)
    each = torch.func.vmap(torch.func.grad(lambda own, row: call(row[None], *own).sin().sum()), in_dims=(None, 0))
    found = each(values, x[0])
    own = [value.clone().requires_grad_() for value in values]
    whole = torch.autograd.grad(call(x[0], *own).sin().sum(), own)
    for parts, expected in zip(found, whole, strict=True):
        close(parts.sum(0), expected)


def recomputed(kind):
    layer = kind.make()
    x = kind.inputs(layer).requires_grad_()
    expected = torch.autograd.grad(layer(x).sin().sum(), [x, *layer.parameters()])
    for reentrant in (False, True):
        y = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=reentrant)
        layer.zero_grad()
        x.grad = None
        y.sin().sum().backward()
        for found, wanted in zip([x.grad, *(p.grad for p in layer.parameters())], expected, strict=True):
            close(found, wanted)


def mixed_precision(kind):
    layer, dense = kind.make(dtype=torch.float32), kind.make(dtype=torch.float32).to_dense()
    x = kind.inputs(layer).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = layer(x), dense(x)
        double = kind.make()
        precise = double(kind.inputs(double))
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert precise.dtype == DOUBLE
    (ours.float() ** 2).sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())
    assert (ours.float() - dense(x)).abs().max() <= 2**-5 * dense(x).abs().max()
    half = layer.to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16


def compiled(kind):
    for mode in ("training", "no_grad", "frozen"):
        torch._dynamo.reset()
        layer = kind.make().train(mode == "training").requires_grad_(mode != "frozen")
        x = kind.inputs(layer).requires_grad_(mode == "training")
        with torch.set_grad_enabled(mode != "no_grad"):
            run = torch.compile(layer, fullgraph=True, backend="aot_eager")
            found = run(x)  # before any call that is not compiled
            close(found, layer(x))
            if mode == "training":
                ours, theirs = (torch.autograd.grad(f(x).sin().sum(), [x, *layer.parameters()]) for f in (run, layer))
                for one, other in zip(ours, theirs, strict=True):
                    close(one, other)


def exported(kind):
    layer = kind.make().eval()
    program = torch.export.export(layer, (kind.inputs(layer),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = kind.inputs(layer, 9)
    close(program.module()(x), layer(x))


def traced(kind):
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


def without_numbers(kind):
    layer = kind.make(device="meta")
    assert layer(torch.empty(3, layer.in_features, device="meta", dtype=DOUBLE)).shape == (3, layer.out_features)
    with torch.device("meta"):
        assert kind.make(seed=None).bias.is_meta
    layer.to_empty(device="cpu").reset_parameters()
    close(layer.tensors[0], kind.make().tensors[0])
    with torch._subclasses.fake_tensor.FakeTensorMode():
        fake = kind.make(seed=None)
        assert fake(torch.randn(3, fake.in_features, dtype=DOUBLE)).shape == (3, fake.out_features)
        fake.eval()
        with torch.no_grad():
            assert fake(torch.randn(3, fake.in_features, dtype=DOUBLE)).shape == (3, fake.out_features)
    torch.manual_seed(3)
    one, other = kind.make(seed=None), kind.make(seed=None)
    assert not torch.equal(one.tensors[0], other.tensors[0])
    before = one.tensors[0].clone()
    one.reset_parameters()
    assert not torch.equal(one.tensors[0], before)


def saved(kind):
    layer, again = kind.make(), kind.make(seed=9)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    assert not again.load_state_dict(torch.load(file, weights_only=True)).missing_keys
    x = kind.inputs(layer)
    close(again(x), layer(x), 0)
    dense = layer.to_dense()
    for strict in (True, False):
        with pytest.raises(RuntimeError, match="size mismatch for weight"):
            dense.load_state_dict(layer.state_dict(), strict=strict)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*weight"):
        layer.load_state_dict(dense.state_dict())
    fresh = kind.make(device="meta")
    fresh.load_state_dict(layer.state_dict(), assign=True)
    close(fresh(x), layer(x), 0)
    state = {name: value for name, value in layer.state_dict().items() if name != "weight"}
    assert not again.load_state_dict(state).missing_keys
    close(torch.func.functional_call(layer, state, x), layer(x))


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
        close(mean(x), mean.module.to_dense()(x))
    close(mean.module.tensors[0], layer.tensors[0] - 0.5)


def threads(kind):
    layer = kind.make().eval()
    dense, problems = layer.to_dense().eval(), []

    def serve(batch):
        x = kind.inputs(layer, batch)
        with torch.no_grad():
            expected = dense(x)
            for _ in range(200):
                try:
                    close(layer(x), expected)
                except Exception as problem:  # every one counts, whatever it is
                    problems.append(problem)

    workers = [threading.Thread(target=serve, args=(batch,)) for batch in (1, 53, 200) * 3]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not problems


def many_batches(kind):
    layer = kind.make().eval()
    sizes = range(1, 20_000, 7)
    seen = {id(layer.plans(batch)) for batch in sizes}
    assert len(seen) <= 8 * 15  # eight classes for each power of two
    assert len(layer._plans._plans) <= layer._plans.LIMIT
    with torch.no_grad():
        for batch in (1, 7, 300, 2, 40, 5, 900, 11):
            layer(kind.inputs(layer, batch))
    assert len(layer.cache) <= layer.cache.LIMIT


def hooks(kind):
    dense, calls = kind.make().to_dense(), []
    handles = [
        dense.register_forward_hook(lambda *_: calls.append("forward")),
        dense.register_forward_pre_hook(lambda *_: calls.append("before")),
        dense.register_full_backward_hook(lambda *_: calls.append("backward")),
    ]
    layer = type(kind.make()).from_dense(dense)
    layer(kind.inputs(layer).requires_grad_()).sum().backward()
    assert calls == ["before", "forward", "backward"]
    for handle in handles:
        handle.remove()
    layer(kind.inputs(layer)).sum().backward()
    assert len(calls) == 3
    normed = torch.nn.utils.parametrizations.weight_norm(kind.make().to_dense())
    close(type(layer).from_dense(normed)(x := kind.inputs(layer)), normed(x))


def kept(kind):
    for mode, grad, dtype in ((True, True, torch.float32), (False, False, DOUBLE), (False, True, torch.bfloat16)):
        dense = kind.make(dtype=dtype).to_dense().train(mode).requires_grad_(grad)
        dense.bias.requires_grad_(True)
        layer = type(kind.make()).from_dense(dense)
        assert (
            layer.training == mode
            and layer.tensors[0].dtype == dtype
            and layer.tensors[0].device == dense.weight.device
        )
        assert [p.requires_grad for p in layer.tensors] == [grad] * len(layer.tensors)
        assert layer.bias.requires_grad
        back = layer.to_dense()
        assert (back.training, back.weight.requires_grad, back.bias.requires_grad) == (mode, grad, True)
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
    x = torch.randn(3, 8)
    lazy = nn.LazyLinear(6)
    lazy(x)
    point = nn.Conv2d(8, 6, 1)
    for dense in (_Scaled(8, 6), lazy, nn.modules.linear.NonDynamicallyQuantizableLinear(8, 6)):
        close(make(dense)(x), dense(x), 1e-5)
    close(make(point)(x), point(x[:, :, None, None])[:, :, 0, 0], 1e-5)
    one = make(nn.Conv1d(8, 6, 1, bias=False))
    assert one.bias is None
    quantised = nn.Linear(8, 6)
    quantised.weight = nn.Parameter(quantised.weight.detach().to(torch.int8), requires_grad=False)
    for foreign in (
        _Adapted(8, 6),
        nn.Conv2d(8, 6, 3),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.Embedding(8, 6),
        nn.Bilinear(8, 8, 6),
        kind.make(),
        quantised,
        nn.Linear(8, 6, device="meta"),
        nn.Linear(8, 6, dtype=torch.complex64),
        torch.ones(8, 6),
        np.ones((8, 6)),
    ):
        with pytest.raises(InputError, match="expected"):
            make(foreign)
    with pytest.raises(ShapeError, match="call it on a batch"):
        make(nn.LazyLinear(6))
    with pytest.raises(InputError, match="initializer is a function; expected"):
        kind.make(initializer=nn.init.normal_)


def weight_readers(kind):
    layer = kind.make()
    dense, x = layer.to_dense(), kind.inputs(layer)
    close(layer.weight.detach(), dense.weight.detach())
    assert (layer.weight.shape, layer.weight.dtype, layer.weight.requires_grad) == (dense.weight.shape, DOUBLE, True)
    assert isinstance(layer.weight, torch.Tensor)
    ours = torch.autograd.grad(nn.functional.linear(x, layer.weight).sin().sum(), layer.tensors)
    theirs = torch.autograd.grad((layer(x) - layer.bias).sin().sum(), layer.tensors)
    for one, other in zip(ours, theirs, strict=True):
        close(one, other)

    def merge():  # as adapters are merged
        layer.weight.data += 1.0

    for write in (
        merge,
        lambda: nn.init.zeros_(layer.weight),
        lambda: layer.weight.data.normal_(),
        lambda: layer.weight.copy_(layer.weight),
        lambda: layer.weight.__setitem__(0, 0.0),
        lambda: torch.add(dense.weight, 1.0, out=layer.weight),
    ):
        with pytest.raises(InputError, match="writes to the weight"), torch.no_grad():
            write()
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
    layer = kind.make()
    expected, x, operator = layer.to_dense(), kind.inputs(layer), layer.tensors
    values = [tensor.detach().clone() for tensor in operator]
    name = layer.parameter_names[0]
    parametrize.register_parametrization(layer, name, _Symmetric())
    with torch.no_grad():
        close(layer(x) - layer.bias, 2.0 * (expected(x) - expected.bias))
        layer.eval()
        close(layer(x) - layer.bias, 2.0 * (expected(x) - expected.bias))
    with pytest.raises(InputError, match=f"{name} of the layer is computed"):
        layer.assign(values)
    layer(x).sum().backward()
    pruned = kind.make()
    prune.random_unstructured(pruned, name, amount=0.5)
    close(pruned(x), pruned.to_dense()(x))
    with pytest.raises(InputError, match="pruning"):
        pruned.assign(values)
    prune.remove(pruned, name)
    pruned.assign(values)
    close(pruned(x), expected(x))


def adapters(kind):
    peft = pytest.importorskip("peft")
    from peft.tuners.lora import Linear as LoraLinear

    model = nn.Sequential()
    model.first = kind.make(dtype=torch.float32)
    before = model.first.to_dense()
    config = peft.LoraConfig(r=2, target_modules=["first"], init_lora_weights=False)
    config._register_custom_module({type(model.first): LoraLinear})
    with quiet():  # the kind of layer is new to PEFT
        wrapped = peft.get_peft_model(model, config)
    x = kind.inputs(before).float()
    adapted = wrapped(x)
    assert (adapted - before(x)).abs().max() > 1e-3
    adapted.sum().backward()
    adapter = wrapped.base_model.model.first
    assert all(p.grad is None for p in adapter.base_layer.parameters())
    assert adapter.lora_B["default"].weight.grad is not None
    with pytest.raises(InputError, match="writes to the weight"):  # else the adapter would be lost
        wrapped.merge_adapter()
    with wrapped.disable_adapter():
        close(wrapped(x), before(x), 1e-5)


def odd_inputs(kind):
    layer = kind.make()
    dense = layer.to_dense()
    parts = [kind.inputs(layer, 2), kind.inputs(layer, 5)]
    with quiet():  # torch says that nested tensors are a prototype
        jagged = torch.nested.nested_tensor(parts, layout=torch.jagged)
        strided = torch.nested.nested_tensor(parts)
        for nested in (jagged, strided):
            found = layer(nested)
            assert found.is_nested and found.layout == nested.layout
            for part, whole in zip(found.unbind(), parts, strict=True):
                close(part, dense(whole))
        assert (layer(jagged) + dense(jagged)).is_nested  # they have the same ragged size
        masked = torch.masked.masked_tensor(parts[0], parts[0] > 0)
    for wrong in (
        parts[0].to(torch.complex128),
        parts[0].to_sparse(),
        masked,
        parts[0].numpy(),
        parts[0].tolist(),
        None,
    ):
        with pytest.raises(InputError, match="expected"):
            layer(wrong)
    with pytest.raises(ShapeError, match="expected"):
        layer(parts[0][:, :-1])
    with pytest.raises(InputError, match="complex64; expected real numbers"):
        kind.make(dtype=torch.complex64)
    with quiet():
        layer.to(torch.complex128)
    for use in (layer.to_matrix, lambda: layer(parts[0])):
        with pytest.raises(InputError, match="complex128; expected real numbers"):
            use()


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
        close(torch.from_numpy(shards.to_matrix()), torch.from_numpy(layer.to_matrix()))
        empty = fully_shard(kind.make(device="meta"), mesh=mesh).to_empty(device="cpu")
        empty.reset_parameters()
        close(empty(x), expected)
        with quiet():  # one process needs no shards
            whole = FullyShardedDataParallel(kind.make(), device_id=torch.device("cpu"), use_orig_params=True)
        close(whole(x), expected)
    finally:
        if started:
            distributed.destroy_process_group()

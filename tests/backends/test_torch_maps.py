"""What PyTorch users do with its convolutions and embeddings.

What all frameworks promise is elsewhere.
"""

import copy
import os
import pickle

import pytest

from mponet.errors import InputError

if "torch" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name torch", allow_module_level=True)

import torch
from torch.nn import functional

from mponet_torch import MPOConv2d, MPOEmbedding, TiedHead


def conv():
    return MPOConv2d(8, 8, 3, 4, padding=1, seed=1), torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))


def embedding():
    return MPOEmbedding(50, 16, 4, padding_idx=3, seed=1), torch.arange(10).reshape(2, 5)


both = pytest.mark.parametrize("make", [conv, embedding])


@both
def test_state_dicts_copies_and_pickles(make):
    layer, inputs = make()
    wanted = layer(inputs)
    other, _ = make()
    torch.nn.init.zeros_(other.core1)
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(inputs), wanted)


@both
def test_compiled_and_exported_without_a_graph_break(make):
    layer, inputs = make()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), layer(inputs))
    compiled(inputs).sum().backward()
    assert layer.core1.grad is not None
    layer.eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(layer, (inputs,), dynamic_shapes=({0: batch},)).module()
    twice = torch.cat([inputs, inputs])
    torch.testing.assert_close(exported(twice), layer(twice))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@both
def test_traced_layers_follow_their_cores(make):
    layer, inputs = make()
    traced = torch.jit.trace(layer.eval(), (inputs,))
    graph = torch.fx.symbolic_trace(torch.nn.Sequential(layer))
    with torch.no_grad():
        layer(inputs)  # keeps weights
        layer.core1.mul_(2.0)
    torch.testing.assert_close(traced(inputs), layer(inputs))
    torch.testing.assert_close(graph(inputs), layer(inputs))


@both
def test_weights_kept_for_inference_follow_every_write(make):
    layer, inputs = make()
    layer.eval()
    with torch.no_grad():
        before = layer(inputs)
        layer.core1.data.mul_(2.0)  # does not count as a change in torch
        after = layer(inputs)
    if inputs.is_floating_point():
        torch.testing.assert_close(after, 2 * (before - layer.bias[:, None, None]) + layer.bias[:, None, None])
    else:
        tokens = inputs != 3  # the padding row is none of the cores
        torch.testing.assert_close(after[tokens], 2 * before[tokens])


@both
def test_the_meta_device_and_reset_parameters(make):
    with torch.device("meta"):
        layer, inputs = make()
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    wanted, inputs = make()
    assert torch.equal(layer(inputs), wanted(inputs))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, of forward mode
@both
def test_functional_calls_and_forward_mode(make):
    layer, inputs = make()
    names = dict(layer.named_parameters())

    def total(parameters):
        return torch.func.functional_call(layer, parameters, (inputs,)).square().sum()

    gradient = torch.func.grad(total)(names)
    tangent = {name: torch.ones_like(value) for name, value in names.items()}
    _, slope = torch.func.jvp(total, (names,), (tangent,))
    torch.testing.assert_close(slope, sum(value.sum() for value in gradient.values()), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(torch.vmap(layer)(inputs), layer(inputs))


@both
def test_weight_is_that_of_the_dense_layer_and_reaches_the_cores(make):
    layer, inputs = make()
    weight = layer.weight
    if inputs.is_floating_point():
        outputs = functional.conv2d(inputs, weight, layer.bias, padding=1)
    else:
        outputs = functional.embedding(inputs, weight)
    torch.testing.assert_close(outputs, layer(inputs), atol=1e-5, rtol=1e-5)
    outputs.sum().backward()
    assert layer.core1.grad is not None


@both
def test_a_frozen_layer_stays_frozen_both_ways(make):
    layer, _ = make()
    dense = layer.to_dense().requires_grad_(False).eval()
    again = type(layer).from_dense(dense)
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_autocast_runs_convolutions_in_16_bits():
    layer, inputs = conv()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(inputs).dtype == torch.nn.Conv2d(8, 8, 3)(inputs).dtype == torch.bfloat16


def test_the_padding_row_is_given_and_not_trained():
    dense = torch.nn.Embedding(20, 6, padding_idx=4)
    with torch.no_grad():
        dense.weight[4] = 7.0
    layer = MPOEmbedding.from_embedding(dense)
    rows = layer(torch.tensor([4, 5]))
    torch.testing.assert_close(rows, dense(torch.tensor([4, 5])))
    layer(torch.tensor([4])).sum().backward()
    assert all(core.grad is None or not core.grad.any() for core in layer.cores)
    torch.testing.assert_close(layer.to_dense().weight, dense.weight)
    torch.testing.assert_close(layer.attend(rows), rows @ dense.weight.T, atol=1e-4, rtol=1e-5)
    assert not MPOEmbedding(20, 6, 3, padding_idx=-1)(torch.tensor([19])).any()


def test_a_tied_head_shares_the_parameters():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = MPOEmbedding(30, 8, 4)
            self.head = TiedHead(self.embedding, bias=True)

        def forward(self, tokens):
            return self.head(self.embedding(tokens))

    model = Model()
    assert [name for name, _ in model.named_parameters()] == ["embedding.core1", "embedding.core2", "head.bias"]
    table = torch.nn.Parameter(model.embedding.weight.detach().clone())
    tokens = torch.tensor([1, 7, 29])
    torch.testing.assert_close(model(tokens), table[tokens] @ table.T, atol=1e-5, rtol=1e-5)
    # the gradient of a tied table is the sum over both of its uses
    model(tokens).square().sum().backward()
    (table[tokens] @ table.T).square().sum().backward()
    core = model.embedding.core1
    model.embedding.weight.backward(table.grad)  # pulls the dense gradient back to the cores, on top
    twice = core.grad.clone()
    core.grad = None
    model(tokens).square().sum().backward()
    torch.testing.assert_close(twice, 2 * core.grad, atol=1e-3, rtol=1e-4)
    twin = copy.deepcopy(model)
    assert twin.head.embedding.core1 is twin.embedding.core1


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}])
def test_embeddings_that_need_the_rows_of_a_table_are_refused(options):
    with pytest.raises(InputError, match="expected none"):
        MPOEmbedding.from_embedding(torch.nn.Embedding(10, 4, **options))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(mode):
    dense = torch.nn.Conv2d(4, 6, 3, padding=(2, 1), stride=2, padding_mode=mode, dtype=torch.float64)
    layer = MPOConv2d.from_conv(dense)
    maps = torch.randn(2, 4, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(maps), dense(maps), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer.to_dense()(maps), dense(maps), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(maps[0]), dense(maps[0]), rtol=0, atol=1e-12)

"""The building blocks as ordinary torch modules, alone and in lowered networks."""

import copy
import os
from dataclasses import replace

import numpy as np
import pytest

from mponet.errors import CheckpointError, ModelError
from mponet.recipe import Recipe

if "torch" not in os.environ.get("MPONET_BACKENDS", ""):
    pytest.skip("MPONET_BACKENDS does not name torch", allow_module_level=True)

import torch
from torch import nn

import mponet_torch
import small
from mponet_torch.lower import dropping
from mponet_torch.nn.blocks import (
    BatchNorm,
    Concat,
    Dropout,
    FlattenNHWC,
    PadChannels,
    PaddedConv2d,
    ReshapeNHWC,
    Residual,
)
from mponet_torch.ops.arrays import device_of

NETWORKS = [network for variant in ("dense", "mpo") for network in small.networks(variant)]
CIFAR = [network for network in NETWORKS if network.input_shape == small.IMAGE]
DOUBLE = torch.float64
DEVICE = device_of(None)  # where lowered models go
RECIPE = Recipe("test", 3, 6, 0.05, momentum=0.9, average=0.9)


def lowered(model, dtype="float64"):
    return mponet_torch.backend.build(model, small.values(model), dtype=dtype)


def batch(model, count=6, dtype=DOUBLE):
    """Images in torch's order, channels-last."""
    return torch.tensor(small.batch(model, count)[0], dtype=dtype, device=DEVICE).permute(0, 3, 1, 2)


def plain(channels=4, size=8):
    """A network of blocks alone, which no model was lowered to."""
    block = nn.Sequential(BatchNorm(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 3, padding=1))
    return nn.Sequential(
        PaddedConv2d(3, channels, 3, stride=2, pads=(0, 1, 0, 1)),
        Residual(copy.deepcopy(block)),
        Concat(block),
        PadChannels(1),
        FlattenNHWC(),
        Dropout(0.2),
        ReshapeNHWC((size // 2, size // 2, 2 * channels + 1)),
        nn.AvgPool2d(size // 2),
        FlattenNHWC(),
        BatchNorm(2 * channels + 1),
        nn.Linear(2 * channels + 1, 10),
    ).to(DOUBLE)


# ---------------------------------------------------------------- as modules


@pytest.mark.parametrize("module", [plain().to(DEVICE).eval(), *(lowered(m).eval() for m in CIFAR)], ids=type)
def test_export_with_any_batch(module):
    inputs = torch.rand(6, 3, 8, 8, dtype=DOUBLE, device=DEVICE)
    dim = torch.export.Dim("batch", max=(1 << 16) - 1)  # cuDNN normalizes no larger one, and the graph holds the check
    exported = torch.export.export(module, (inputs,), dynamic_shapes=({0: dim},)).module()
    for count in (2, 6):
        assert torch.allclose(exported(inputs[:count]), module(inputs[:count]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", CIFAR, ids=str)
def test_compile_in_one_graph_and_train(model):
    torch.compiler.reset()  # it counts the graphs of nn.Sequential.forward over all models, and gives up at eight
    native, inputs = lowered(model), batch(model)
    other = copy.deepcopy(native)
    masks = small.batch(model)[2]
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    found = []
    for module, call in ((native, native), (other, compiled)):
        with dropping(module, masks):
            outputs = call(inputs)
        outputs.square().sum().backward()
        found.append([outputs, *(p.grad for p in module.parameters()), *module.buffers()])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("model", CIFAR, ids=str)
def test_a_copy_is_a_model_of_its_own(model):
    native = lowered(model)
    twin = copy.deepcopy(native)
    before = mponet_torch.backend.parameters(native)
    mponet_torch.backend.assign(twin, {name: value + 1 for name, value in before.items()})
    for name, value in before.items():
        assert np.array_equal(mponet_torch.backend.parameters(native)[name], value)
        assert np.array_equal(mponet_torch.backend.parameters(twin)[name], value + 1)


def test_blocks_say_what_they_are():
    printed = str(plain())
    for shown in (
        "PaddedConv2d(3, 4, kernel_size=(3, 3), stride=(2, 2), pads=(0, 1, 0, 1))",
        "BatchNorm(4, eps=0.001, momentum=0.01",
        "PadChannels(1)",
        "Dropout(p=0.2",
        "ReshapeNHWC((4, 4, 9))",
        "(shortcut): Identity()",
    ):
        assert shown in printed


@pytest.mark.parametrize("model", CIFAR, ids=str)
def test_state_dict_round_trips(model, tmp_path):
    first, inputs = lowered(model).eval(), batch(model)
    second = mponet_torch.backend.build(
        model, {n: np.zeros_like(v) for n, v in small.values(model).items()}, dtype="float64"
    )
    assert not torch.equal(first(inputs), second.eval()(inputs))
    torch.save(first.state_dict(), tmp_path / "model.pt")
    second.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(first(inputs), second(inputs))


def test_a_batch_norm_takes_the_state_of_torchs_own_and_gives_it_back():
    theirs, ours = nn.BatchNorm2d(4, eps=1e-3, dtype=DOUBLE), BatchNorm(4).to(DOUBLE)
    theirs(torch.rand(5, 4, 2, 2, dtype=DOUBLE))
    ours.load_state_dict(dict(theirs.state_dict()))  # without the version that torch's own files have in them
    inputs = torch.rand(5, 4, 2, 2, dtype=DOUBLE)
    assert torch.equal(ours.eval()(inputs), theirs.eval()(inputs))
    theirs.load_state_dict(dict(ours.state_dict()))


# ---------------------------------------------------------------- batch norm


@pytest.mark.parametrize("shape", [(5, 4), (2, 4, 1, 1), (3, 4, 2, 5)], ids=str)
def test_the_running_variance_is_the_biased_one(shape):
    norm = BatchNorm(4).to(DOUBLE)
    axes = (0, *range(2, len(shape)))
    mean, variance = np.zeros(4), np.ones(4)
    for seed in range(3):
        values = np.random.default_rng(seed).normal(1.0, 2.0, shape)
        found = norm(torch.tensor(values)).detach().numpy()
        mean = 0.99 * mean + 0.01 * values.mean(axes)
        variance = 0.99 * variance + 0.01 * values.var(axes)
        view = (4, *(1,) * (len(shape) - 2))
        expected = (values - values.mean(axes).reshape(view)) / np.sqrt(values.var(axes).reshape(view) + 1e-3)
        assert np.allclose(found, expected, rtol=0, atol=1e-12)
    # three steps of a few roundings each
    assert np.allclose(norm.running_mean.numpy(), mean, rtol=1e-14, atol=0)
    assert np.allclose(norm.running_var.numpy(), variance, rtol=1e-14, atol=0)


def test_a_batch_norm_used_twice_before_the_backward_pass():
    """As in a siamese network: autograd must not find its statistics changed behind its back."""
    norm = BatchNorm(4).to(DOUBLE)
    (norm(torch.rand(5, 4, dtype=DOUBLE)) * norm(torch.rand(5, 4, dtype=DOUBLE))).sum().backward()
    assert norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1, 1)], ids=str)
def test_one_value_has_no_spread(shape):
    norm = BatchNorm(4)
    before = copy.deepcopy(norm.state_dict())
    with pytest.raises(ModelError, match="one value for each channel"):
        norm(torch.rand(shape))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert norm.eval()(torch.rand(shape)).shape == shape


@pytest.mark.parametrize("training", [True, False])
def test_a_batch_norm_of_other_channels_is_refused_and_unharmed(training):
    norm = BatchNorm(4).train(training)
    with pytest.raises(ModelError, match=r"\(2, 5, 3, 3\).*\(batch, 4\)"):
        norm(torch.rand(2, 5, 3, 3))
    assert torch.equal(norm.running_var, torch.ones(4))


# ---------------------------------------------------------------- dropout


def test_dropout_drops_in_training_only():
    dropout, inputs = Dropout(0.2), torch.ones(100, 100)
    assert torch.equal(dropout.eval()(inputs), inputs)
    dropped = dropout.train()(inputs)
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert not torch.equal(dropped, dropout(inputs))


@pytest.mark.parametrize("shape", [(6, 5), (6, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_a_mask_given_is_the_mask_used(shape, training):
    native = nn.Sequential(nn.BatchNorm1d(1), Dropout(0.2), Dropout(0.5)).train(training)
    first, second = (np.random.default_rng(seed).random(shape) > 0.5 for seed in (0, 1))
    inputs = torch.rand(shape, dtype=DOUBLE)
    mapped = inputs.permute(0, 3, 1, 2) if inputs.ndim == 4 else inputs
    with dropping(native, (first, second)):
        found = native[2](native[1](mapped))
    found = found.permute(0, 2, 3, 1) if found.ndim == 4 else found
    assert np.allclose(found.numpy(), inputs.numpy() * first / 0.8 * second / 0.5, rtol=1e-15, atol=0)


def test_masks_are_gone_behind_the_context_also_after_an_error():
    native = nn.Sequential(nn.Linear(4, 4), Dropout(0.2), Dropout(0.2))
    right, wrong = np.ones((2, 4), bool), np.ones((1, 4), bool)
    with pytest.raises(ModelError, match=r"\(1, 4\).*\(2, 4\)"), dropping(native, (right, wrong)):
        native(torch.rand(2, 4))
    assert native[1].kept is None and native[2].kept is None
    with pytest.raises(ModelError, match="1 masks for 2"), dropping(native, (right,)):
        pass


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("model", CIFAR, ids=str)
def test_feature_maps_stay_channels_last_forward_and_backward(model):
    native = lowered(model, "float32")
    seen = []

    def look(module, outputs):
        name = type(module).__name__
        if outputs.ndim == 4:
            seen.append((name, outputs.is_contiguous(memory_format=torch.channels_last)))
            # the slope of a part of a concatenation is a slice of the whole: channels lie together,
            # pixels do not
            outputs.register_hook(lambda slope: seen.append((f"{name} backward", slope.stride(1) == 1)))

    for module in native.modules():
        if not isinstance(module, (nn.ReLU, nn.Sequential, nn.Identity)):  # these hand on what others made
            module.register_forward_hook(lambda module, inputs, outputs: look(module, outputs))
    native(batch(model, dtype=torch.float32)).square().sum().backward()
    assert len(seen) > 10
    assert [name for name, kept in seen if not kept] == []


@pytest.mark.parametrize("model", CIFAR, ids=str)
def test_kernels_are_channels_last_and_cores_are_not(model):
    native = lowered(model, "float32")
    trainer = mponet_torch.backend.trainer(native, RECIPE)
    images, labels, masks = small.batch(model)
    trainer.step(images, labels, 0.05, masks=masks, share=1.0)
    trainer.restore(trainer.state())
    for name, slot in trainer.slots.items():
        velocity = trainer.optimizer.state[slot.parameter]["momentum_buffer"]
        for array in (slot.parameter, velocity):
            kernel = name.endswith("/kernel") and array.ndim == 4
            assert array.is_contiguous(memory_format=torch.channels_last if kernel else torch.contiguous_format)
            assert array.stride() == slot.parameter.stride()


# ---------------------------------------------------------------- what a trainer takes back


def test_restoring_nothing_is_a_fresh_start_and_averages_are_checked():
    model = CIFAR[0]
    native = lowered(model)
    trainer = mponet_torch.backend.trainer(native, RECIPE)
    assert trainer.state() == {}
    images, labels, masks = small.batch(model)
    trainer.step(images, labels, 0.05, masks=masks, share=1.0)
    state = trainer.state()
    with pytest.raises(CheckpointError, match="average"):
        trainer.restore({name: value for name, value in state.items() if name != "average/fc1/bias"})
    with pytest.raises(CheckpointError, match="average/fc1/bias"):
        trainer.restore({**state, "average/fc1/bias": np.zeros(3)})
    with pytest.raises(CheckpointError, match="averages"):
        mponet_torch.backend.trainer(native, replace(RECIPE, average=0.0)).restore(state)
    assert set(trainer.state()) == set(state)
    trainer.restore({})
    assert trainer.state() == {}


def test_predictions_between_steps_change_nothing():
    model = CIFAR[0]
    images, labels, masks = small.batch(model)
    ends = []
    for between in (False, True):
        native = lowered(model)
        trainer = mponet_torch.backend.trainer(native, RECIPE)
        for _ in range(2):
            trainer.step(images, labels, 0.05, masks=masks, share=1.0)
            if between:
                mponet_torch.backend.predict(native, images)
        ends.append(mponet_torch.backend.parameters(native))
    assert all(np.array_equal(value, ends[1][name]) for name, value in ends[0].items())

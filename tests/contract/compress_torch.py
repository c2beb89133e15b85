"""PyTorch's part of the contract of compression (`contract.compression`)."""

import numpy as np
import torch
from torch import nn

import mponet_torch as package
from contract.compression import BIASES, SHAPES, SIZE, WORDS, Case

__all__ = ["package"]


def _filled(module, weight, bias, dtype):
    module = module.to(getattr(torch, dtype))
    module.weight.data = torch.tensor(np.ascontiguousarray(weight)).to(module.weight.dtype)
    if bias is not None:
        module.bias.data = torch.tensor(bias).to(module.weight.dtype)
    return module


def _single(module, weight, bias, dtype):
    model = nn.Sequential()
    model.add_module("layer", _filled(module, weight, bias, dtype))
    return model


def _normal(*shape):
    return lambda rng, dtype: torch.tensor(rng.normal(size=shape)).to(getattr(torch, dtype))


def _convolution(cls, size, inputs, outputs, **options):
    def make(matrix, bias, dtype):
        kernel = np.moveaxis(matrix.reshape(*size, inputs, outputs), (-1, -2), (0, 1))  # HWIO to OIHW
        return _single(cls(inputs, outputs, size, bias=bias is not None, **options), kernel, bias, dtype)

    return make


CASES = {
    "linear": Case(
        (24, 32), lambda w, b, dtype: _single(nn.Linear(24, 32, b is not None), w.T, b, dtype), _normal(9, 7, 24)
    ),
    "convolution-1d": Case((3 * 8, 16), _convolution(nn.Conv1d, (3,), 8, 16, stride=2, padding=1), _normal(9, 8, 21)),
    "convolution-2d": Case(
        (3 * 2 * 8, 16), _convolution(nn.Conv2d, (3, 2), 8, 16, padding="same", dilation=(1, 2)), _normal(5, 8, 9, 10)
    ),
    "embedding": Case(
        (40, 24),
        lambda w, b, dtype: _single(nn.Embedding(40, 24), w, None, dtype),
        lambda rng, dtype: torch.tensor(rng.permutation(np.r_[0:40, rng.integers(0, 40, 20)])),
        has_bias=False,
    ),
}


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(WORDS, SIZE)
        self.query, self.key, self.value, self.output = (
            nn.Linear(*SHAPES[name], bias=name in BIASES) for name in ("query", "key", "value", "output")
        )
        self.dropout = nn.Dropout(0.5)

    def forward(self, batch):
        x = self.dropout(self.embed(batch if isinstance(batch, torch.Tensor) else torch.as_tensor(batch)))
        return x + self.output(torch.tanh(self.query(x)) * self.key(x) + self.value(x))


def network(numbers, dtype):
    model = _Network().to(getattr(torch, dtype)).eval()
    for name in SHAPES:
        weight = numbers[name] if name == "embed" else numbers[name].T
        _filled(getattr(model, name), weight, numbers.get(f"{name}.bias"), dtype)
    return model


class _Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 1)

    def forward(self, maps):
        return self.wide(maps) + self.narrow(maps)


def branches():
    return _Branches(), torch.randn(9, 6, 8, 8)


class _Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.head = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, batch):
        return self.head(self.inner(self.embed(batch)))


def tied():
    return {"head": (_Tied(), torch.randint(0, 50, (20, 30)), "embed", "head")}


class _Scaled(nn.Linear):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


class _Odd(nn.Module):
    def __init__(self):
        super().__init__()
        layers = nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(32, 32), _Scaled(32, 32)
        self.used, self.unused = nn.Sequential(*layers), nn.Linear(16, 16)

    def forward(self, inputs):
        return self.used(inputs)


def left_alone():
    reasons = {"used.0": "2 groups", "used.3": "Scaled", "unused": "not reached"}
    return _Odd(), torch.randn(60, 8, 4, 4), reasons


def shared():
    layer = nn.Linear(24, 24)
    return nn.Sequential(layer, nn.ReLU(), layer), torch.randn(200, 24)


def cubic_loss(outputs, batch):
    return (outputs**3).sum() / 3


class _Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, first, *, last=None):
        return self.layer(first)


def batches(array):
    inputs = torch.tensor(array).float()
    forms = {"tensor": inputs, "tuple": (inputs,), "mapping": {"first": inputs, "last": None}}
    return {name: (_Named(), batch) for name, batch in forms.items()}


def run(model, batch):
    was = model.training
    model.eval()
    with torch.no_grad():
        outputs = model(batch if isinstance(batch, torch.Tensor) else torch.as_tensor(batch)).numpy()
    model.train(was)
    return outputs


def numbers(model):
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def layer(model, name):
    return model.get_submodule(name)


def train(model):
    model.train()


def trains(model):
    return all(module.training for module in model.modules())

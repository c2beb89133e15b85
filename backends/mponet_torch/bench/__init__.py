"""Implementations of a layer in this framework that `mponet bench` times."""

from typing import Any

import torch
from torch import nn

from mponet.bench.implementation import DENSE, OURS, Implementation, Numbers
from mponet.operators.mpo import MPO
from mponet_torch.bench.peers import PEERS
from mponet_torch.freezing import freeze
from mponet_torch.nn.linear import MPOLinear
from mponet_torch.ops.arrays import Array, device_of, from_numpy, to_numpy


class Passes:
    """A layer and a batch, as `mponet.bench.implementation.Passes`.

    Eager, as most people run torch.
    """

    def __init__(self, native: nn.Module, inputs: Numbers, gradients: Numbers) -> None:
        device = device_of(None)
        self.native = native.to(device)
        self.inputs = from_numpy(inputs, torch.float32, device).requires_grad_()
        self.gradients = from_numpy(gradients, torch.float32, device)
        self.wanted = [self.inputs, *native.parameters()]

    def forward(self) -> Array:
        """The outputs, with nothing stored for a backward pass."""
        with torch.no_grad():
            return _done(self.native(self.inputs))

    def step(self) -> tuple[Array, ...]:
        """The gradients for the inputs and every parameter."""
        found = torch.autograd.grad(self.native(self.inputs), self.wanted, self.gradients)
        _done(found[0])
        return found

    def outputs(self) -> Numbers:
        """The outputs, numpy."""
        return to_numpy(self.forward())


def implementations() -> tuple[Implementation, ...]:
    """All implementations that are compared."""
    return (
        Implementation(DENSE, "dense", dense),
        Implementation(OURS, "ours", ours),
        *PEERS,
    )


def settings() -> dict[str, Any]:
    """Number of threads and device."""
    return {"threads": torch.get_num_threads(), "device": str(device_of(None))}


def step_memory(passes: Passes) -> int:
    """Peak bytes that a step adds to what was in use before it, results included."""
    passes.step()
    if passes.inputs.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        passes.step()
        return int(torch.cuda.max_memory_allocated() - before)
    return _peak_of_profile(passes)


def compiled(native: nn.Module) -> nn.Module:
    """A network whose forward and backward passes `torch.compile` makes."""
    forward = native.forward

    def whole(inputs: Array) -> Any:
        return forward(inputs)

    # a function of ours: torch does not trace the forward pass of a bare `nn.Sequential` as one
    native.forward = torch.compile(whole, dynamic=False)
    return native


def frozen(native: nn.Module) -> nn.Module:
    """A network after `freeze`."""
    return freeze(native.eval())[0]


def ours(mpo: MPO, bias: Numbers) -> nn.Module:
    """Our layer."""
    return MPOLinear.from_mpo(mpo, bias, dtype=torch.float32)


def dense(mpo: MPO, bias: Numbers) -> nn.Module:
    """PyTorch's own layer with the same matrix."""
    layer: nn.Module = MPOLinear.from_mpo(mpo, bias, dtype=torch.float32).to_dense()
    return layer


def _done(array: Array) -> Array:
    """The array, computed."""
    if array.device.type == "cuda":
        torch.cuda.synchronize()
    return array


def _peak_of_profile(passes: Passes) -> int:
    """The largest sum of what torch's allocator gave and took during a step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        kept = passes.step()  # until the profile ends
    del kept
    events = profile.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    in_use = peak = 0
    for _, size in changes:
        in_use += size
        peak = max(peak, in_use)
    return peak

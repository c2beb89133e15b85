"""The machine that plans are made for.

Cautious constants for each framework, or those that `mponet tune` measured.

Measured constants lie in the user's cache beside the fingerprint of what they were measured with:
another processor, number of cores or version of the framework takes the cautious ones again.
"""

import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mponet.files import parse_json, read_if_present, write_json, writing

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Machine:
    """Constants of the cost model.

    Attributes:
        flops: floating-point operations per second of a large matrix product in 4-byte numbers.
        half_speed_size: a product loses half its speed for each of its three sizes that is this
            small.
        cache_bandwidth: bytes per second while the working set fits ``cache``.
        llc_bandwidth: bytes per second while it fits ``shared``.
        memory_bandwidth: bytes per second beyond, where results also take fresh memory from the
            system.
        cache_bytes: bytes that a tile should keep to.
        llc_bytes: bytes of the last cache.
        call_overhead: seconds to start one operation.
        bmm_overhead: seconds to start one of the small products inside a broadcast product.
        training_memory_share: what a sweep may take beside a layer's inputs, outputs and their
            gradients, as a share of them.  A tenth is the memory of a dense layer; more where
            tiles, of which there must be many then, are slow.
        forward_memory_share: the same for a pass forward alone, which keeps nothing and gives back
            what it took.
        kernel_flops: floating-point operations per second, in 4-byte numbers, of kernels that keep
            the states of a sweep on the chip (`mponet.contraction.kernels`); 0 where there are
            none.
        transpose_bandwidth: bytes per second at which a state is transposed before a product
            (`mponet.contraction.plan`); 0 where broadcast products are fast, and none has to be.
        saved_moves: how often a state that is saved for the backward pass is moved in addition to
            what products read and write; 0 where sweeps save none.
        apart_limit: the sum over a broadcast product for the gradient of its weight is taken for
            each product apart while that makes at most this many times the numbers of the state and
            its gradient; beyond, both are copied into the order of one product.
    """

    flops: float = 1.7e11
    half_speed_size: float = 3.0
    cache_bandwidth: float = 6.0e10
    llc_bandwidth: float = 2.5e10
    memory_bandwidth: float = 6.0e9
    cache_bytes: int = 1 << 22
    llc_bytes: int = 1 << 25
    call_overhead: float = 2.5e-5
    bmm_overhead: float = 1e-7
    training_memory_share: float = 0.1
    forward_memory_share: float = 0.1
    kernel_flops: float = 0.0
    transpose_bandwidth: float = 0.0
    saved_moves: float = 1.0
    apart_limit: float = 8.0

    @overload
    def moving(self, size: float) -> float: ...
    @overload
    def moving(self, size: Floats) -> Floats: ...
    def moving(self, size: float | Floats) -> float | Floats:
        """Seconds to move a working set of ``size`` bytes; of each, for an array of sizes."""
        if isinstance(size, np.ndarray):
            slow = np.where(size <= self.llc_bytes, self.llc_bandwidth, self.memory_bandwidth)
            return size / np.where(size <= self.cache_bytes, self.cache_bandwidth, slow)
        slower = self.llc_bandwidth if size <= self.llc_bytes else self.memory_bandwidth
        return size / (self.cache_bandwidth if size <= self.cache_bytes else slower)

    @overload
    def multiplying(self, sizes: tuple[int, int, int], times: int, itemsize: int) -> float: ...
    @overload
    def multiplying(self, sizes: tuple[Any, Any, Any], times: Any, itemsize: int) -> Any: ...
    def multiplying(self, sizes: tuple[Any, Any, Any], times: Any, itemsize: int) -> Any:
        """Seconds of ``times`` products with these three sizes.

        A broadcast product if more than one.
        """
        speed = self.flops * 4 / itemsize * prod(size / (size + self.half_speed_size) for size in sizes)
        return 2 * times * prod(sizes) / speed + (times > 1) * times * self.bmm_overhead


#: Two cores and PyTorch, where a call takes Python, its reshapes and the waking of threads.
DEFAULT_COSTS = Machine()
_GPU = Machine(
    flops=5.2e13,
    half_speed_size=10.0,
    cache_bandwidth=3e12,
    llc_bandwidth=2.5e12,
    memory_bandwidth=1.8e12,
    cache_bytes=1 << 24,
    llc_bytes=1 << 26,
    call_overhead=4e-6,
    bmm_overhead=2e-9,
    training_memory_share=1.0,
    forward_memory_share=1.0,
    saved_moves=0.0,  # not measured
)
#: Loops over tiles are slow where a compiler makes them, and it plans memory on its own: states may
#: take as much again as the activations, and four times as much in a forward pass alone.
_COMPILED = replace(DEFAULT_COSTS, cache_bandwidth=4e10, training_memory_share=1.0, forward_memory_share=4.0)
#: A call is Python and the waking of threads in torch, a node of a graph in a loop over tiles in
#: TensorFlow and JAX. A GPU is an H200 under torch: broadcast products are nearly as fast as any,
#: in 16-bit numbers its matrix units multiply many times faster, and a call takes less than what
#: Python needs to start it, since work is queued.  Memory is read at 4.3 TB/s in one piece, and at
#: less than half of that as rows are laid out here.  A transposed state costs hardly more than it
#: takes to read it in JAX, which would transpose it twice for a broadcast product.  States that are
#: saved are moved once more in PyTorch; XLA copies them besides. TensorFlow finds equal products in
#: a graph and takes them once, so that states are saved in a sweep without tiles in any case.  It
#: takes fresh memory for every result, so that sums apart are worth little.
DEFAULTS: Mapping[str, Machine] = {
    "torch": DEFAULT_COSTS,
    "torch-cuda": _GPU,
    "torch-cuda-16bit": replace(_GPU, flops=3.8e14, half_speed_size=32.0, kernel_flops=3e14),
    "jax-gpu": _GPU,
    "jax-gpu-16bit": replace(_GPU, flops=3.8e14, half_speed_size=32.0),
    "jax": replace(
        _COMPILED,
        half_speed_size=8.0,
        llc_bandwidth=2.5e10,
        memory_bandwidth=1e10,
        cache_bytes=1 << 24,
        call_overhead=4e-5,
        transpose_bandwidth=1.6e11,
        saved_moves=4.0,
    ),
    "tensorflow": replace(
        _COMPILED,
        llc_bandwidth=4e10,
        memory_bandwidth=2.5e10,
        cache_bytes=1 << 23,
        call_overhead=1.6e-4,
        saved_moves=2.0,
        apart_limit=1.0,
    ),
}
#: What is taken from `DEFAULTS` however the rest is measured: kernels, turns, saved states and
#: how gradients add up, which the samples of a fit have not.
_UNMEASURED = ("kernel_flops", "transpose_bandwidth", "saved_moves", "apart_limit")
VARIABLE = "MPONET_CACHE"
#: No machine has constants beyond these: seconds, bytes, and either per second.
LEAST, MOST = 1e-12, 1e20

_log = logging.getLogger("mponet")


def machine_of(backend: str, versions: Mapping[str, str]) -> Machine:
    """The constants for a framework: measured with the same fingerprint, else the cautious ones.

    Args:
        backend: its name.
        versions: of its packages.

    A file that cannot be read or used is as none, with a warning: the measurement is optional.
    """
    measured = _measured(path(backend))
    if measured is not None and measured[0] == fingerprint(versions):
        usual = DEFAULTS.get(backend, DEFAULT_COSTS)
        return replace(measured[1], **{name: getattr(usual, name) for name in _UNMEASURED})
    return DEFAULTS.get(backend, DEFAULT_COSTS)


def save(backend: str, versions: Mapping[str, str], machine: Machine) -> Path:
    """Keep measured constants; the file that they lie in.

    Raises:
        CheckpointError: it cannot be written.
    """
    file = path(backend)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"fingerprint": fingerprint(versions), "machine": asdict(machine)})
    _measured.cache_clear()
    return file


def path(backend: str) -> Path:
    """Where constants are kept: ``$MPONET_CACHE``, else the user's cache folder."""
    root = os.environ.get(VARIABLE) or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    # os.path.expanduser: unlike Path.expanduser, it leaves the name of an unknown user as it is
    folder = Path(os.path.expanduser(root))  # noqa: PTH111
    return (folder if os.environ.get(VARIABLE) else folder / "mponet") / f"machine-{backend}.json"


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fingerprint(versions: Mapping[str, str]) -> dict[str, Any]:
    """What constants depend on: the processor, its cores that are ours, and the framework."""
    return {"processor": _processor(), "cores": cores(), "system": platform.system(), "versions": dict(versions)}


@dataclass(frozen=True, slots=True)
class _Tuning:
    """The file of `save`."""

    fingerprint: dict[str, Any]
    machine: dict[str, int | float]


@lru_cache(maxsize=16)
def _measured(file: Path) -> tuple[dict[str, Any], Machine] | None:
    """What a file holds; warned of once, since the answer is kept."""
    try:
        if (payload := read_if_present(file)) is None:
            return None
        content = parse_json(payload, _Tuning)
        names = [field.name for field in fields(Machine) if field.name not in _UNMEASURED]
        numbers = {name: content.machine[name] for name in names}
        if odd := {name: number for name, number in numbers.items() if not LEAST <= number <= MOST}:
            raise ValueError(f"constants {odd} are outside {LEAST:g} to {MOST:g}")
        return content.fingerprint, Machine(**numbers)  # type: ignore[arg-type]
    except (ValueError, LookupError) as error:  # errors of ours are ValueErrors, too
        _log.warning(
            "%s gives no constants (%s: %s); the built-in ones are used; run `mponet tune` again, or remove the file",
            *(file, type(error).__name__, error),
        )
        return None


@lru_cache(maxsize=1)
def _processor() -> str:
    """The processor's name; Python does not tell it on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())

"""What a plan costs: a model of floating-point operations, bytes moved and calls."""

from dataclasses import dataclass
from math import ceil

from mponet.plan import Plan


@dataclass(frozen=True, slots=True)
class Machine:
    """Constants of the cost model: cautious figures of a two-core processor, of which only the ratios matter.

    Attributes:
        flops: floating-point operations per second of a large matrix product in 4-byte numbers.
        near: bytes per second while the working set fits ``cache``.
        middle: bytes per second while it fits ``shared``.
        far: bytes per second beyond, where results also take fresh memory from the system.
        cache: bytes of a core's own cache.
        shared: bytes of the cache that the cores share.
        call: seconds to start one operation.
        product: seconds to start one of the small products inside a broadcast product.
        narrow: a product whose suffix is below this many columns runs proportionally slower.
    """

    flops: float = 1.5e11
    near: float = 2.0e10
    middle: float = 1.0e10
    far: float = 4.0e9
    cache: int = 1 << 21
    shared: int = 1 << 25
    call: float = 4e-6
    product: float = 1e-7
    narrow: int = 16

    def moving(self, size: int) -> float:
        """Seconds to move a working set of ``size`` bytes."""
        return size / (self.near if size <= self.cache else self.middle if size <= self.shared else self.far)


def predict(plan: Plan, batch: int, *, training: bool, itemsize: int = 4, machine: Machine = Machine()) -> float:
    """Predicted seconds of one forward pass, or with ``training`` of forward and backward.

    Backward recomputes the sweep up to its last step and runs two products for every one of forward.
    """
    batch = max(batch, 1)  # an empty batch costs the calls all the same
    rows = min(batch, plan.tile or batch)
    tiles = ceil(batch / rows)
    flops = machine.flops * 4 / itemsize
    merges, calls = (3, 4) if training else (1, 1)
    seconds = merges * (2 * plan.merge_multiplications / flops + machine.call * plan.shape.sites)
    for step in plan.steps:
        products = rows * step.prefix
        speed = flops if step.suffix == 1 else flops * min(1.0, step.suffix / machine.narrow)
        speed *= step.rows / (step.rows + 8) * step.inner / (step.inner + 8)
        size = (products * (step.inner + step.rows) * step.suffix + step.rows * step.inner) * itemsize
        started = products * machine.product if step.suffix > 1 else 0.0
        once = 2 * rows * step.multiplications / speed + machine.moving(size) + started + machine.call
        seconds += tiles * once * calls
    return seconds

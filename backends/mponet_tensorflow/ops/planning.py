"""How `mponet.contraction.planner` knows this framework.

By its versions, and by passes made ready to be timed.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from mponet.contraction import execute
from mponet.contraction.cost import Purpose
from mponet.contraction.planner import PlanningContext
from mponet.contraction.program import BasePlan
from mponet_tensorflow.ops.arrays import OPS, Array, dtype_of, from_numpy, keras, tf

#: Weights are merged in every call; a layer that is called with ``training=False`` runs the forward
#: plan.
PURPOSES: tuple[Purpose, ...] = ("forward", "training")


def versions() -> dict[str, str]:
    """Versions of the packages underneath."""
    return {"tensorflow": tf.__version__, "keras": keras.__version__}


def runner(plan: BasePlan, batch: int, purpose: Purpose, dtype: str) -> Callable[[], None]:
    """A pass by ``plan`` on random numbers, on the default device; it waits for the result."""
    program, rng = plan.program, np.random.default_rng(0)
    sizes = ((batch, program.in_features), (batch, program.out_features), *program.tensor_shapes)

    def both(inputs: Array, gradient: Array, *tensors: Array) -> object:
        if purpose != "training":
            return execute.forward(plan, tensors, inputs, OPS)
        outputs, saved = execute.forward_saving(plan, tensors, inputs, OPS)
        return outputs, execute.backward(plan, tensors, inputs, gradient, OPS, saved=saved)

    def sweep(inputs: Array, *weights: Array) -> object:
        return execute.sweep(plan, weights, inputs, OPS)

    with tf.init_scope():  # layers ask while they are traced
        inputs, gradient, *tensors = (from_numpy(rng.normal(size=size), dtype_of(dtype)) for size in sizes)
        kept = purpose == "inference"
        arrays = (inputs, *execute.weights_of(plan, tensors, OPS)) if kept else (inputs, gradient, *tensors)
        compiled = tf.function(sweep if kept else both, autograph=False).get_concrete_function(*arrays)

    def run() -> None:
        with tf.init_scope():
            compiled(*arrays)
            tf.test.experimental.sync_devices()

    return run


@cache
def planner() -> PlanningContext:
    """What plans are chosen by."""
    return PlanningContext("tensorflow", versions, runner, purposes=PURPOSES)

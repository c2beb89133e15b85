"""``inputs @ W + b`` as one differentiable operation: the core's plan forward, the core's plan backward."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from mponet.contraction import execute
from mponet.contraction.planner import PlanSet
from mponet_tensorflow.ops.arrays import OPS, Array


@tf.autograph.experimental.do_not_convert  # plans are run by Python itself: their loops and branches are static
def apply_mpo(plans: PlanSet, inputs: Array, cores: Sequence[Array], bias: Array | None = None) -> Array:
    """``inputs @ W + bias``.

    Args:
        plans: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the cores.
        cores: ``(D_{k-1}, I_k, J_k, D_k)`` each.
        bias: ``(out_features,)``, the dtype of the cores; None for none.

    Returns:
        ``(batch, out_features)``.
    """
    biases = () if bias is None else (bias,)

    @tf.custom_gradient
    def run(inputs: Array, *arrays: Array) -> tuple[Array, Callable[[Array], tuple[Array, ...]]]:
        cores, biases = arrays[: plans.forward.shape.sites], arrays[plans.forward.shape.sites :]

        def backward(gradient: Array) -> tuple[Array, ...]:  # keeps the inputs and the cores, nothing between
            slope, slopes = execute.backward(plans.training, cores, inputs, gradient, OPS)
            return slope, *slopes, *(tf.reduce_sum(gradient, 0) for _ in biases)

        return execute.forward(plans.training, cores, inputs, OPS, *biases), backward

    return run(*(tf.convert_to_tensor(array) for array in (inputs, *cores, *biases)))

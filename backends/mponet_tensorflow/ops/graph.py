"""``inputs @ W + b`` for any network as one differentiable operation: the core's pairwise plan, both ways."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from mponet.contraction import graph_execute
from mponet.contraction.graph_plan import GraphPlan
from mponet_tensorflow.ops.arrays import OPS, Array


@tf.autograph.experimental.do_not_convert  # plans are run by Python itself: their loops and branches are static
def apply_network(plan: GraphPlan, inputs: Array, tensors: Sequence[Array], bias: Array | None = None) -> Array:
    """``inputs @ W + bias``.

    Args:
        plan: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the tensors.
        tensors: those of the nodes, in the order of ``plan.wiring``.
        bias: ``(out_features,)``, the dtype of the tensors; None for none.

    Returns:
        ``(batch, out_features)``.
    """
    biases = () if bias is None else (bias,)
    nodes = len(plan.wiring.names)

    @tf.custom_gradient
    def run(inputs: Array, *arrays: Array) -> tuple[Array, Callable[[Array], tuple[Array, ...]]]:
        tensors, biases = arrays[:nodes], arrays[nodes:]

        def backward(gradient: Array) -> tuple[Array, ...]:  # keeps the inputs and the nodes, nothing between
            slope, slopes = graph_execute.backward(plan, tensors, inputs, gradient, OPS)
            return slope, *slopes, *(tf.reduce_sum(gradient, 0) for _ in biases)

        return graph_execute.forward(plan, tensors, inputs, OPS, *biases), backward

    return run(*(tf.convert_to_tensor(array) for array in (inputs, *tensors, *biases)))

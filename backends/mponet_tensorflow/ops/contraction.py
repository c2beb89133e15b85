"""``inputs @ W + b`` as one differentiable operation.

The core's plan forward, the core's plan backward.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from mponet.contraction import execute
from mponet.contraction.planner import PlanSet
from mponet_tensorflow.ops.arrays import OPS, Array


@tf.autograph.experimental.do_not_convert  # plans are run by Python itself: their loops and branches are static
def apply(
    plans: PlanSet, inputs: Array, tensors: Sequence[Array], bias: Array | None = None, *, training: bool | None = None
) -> Array:
    """``inputs @ W + bias``, by the plan of training unless ``training`` is False.

    TensorFlow does not tell whether a gradient will be asked for.  It may be, in any case.

    Args:
        plans: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the tensors.
        tensors: cores ``(D_{k-1}, I_k, J_k, D_k)``, or those of the nodes of a network.
        bias: ``(out_features,)``, the dtype of the tensors; None for none.
        training: as a Keras layer is told; None where it is not told.

    Returns:
        ``(batch, out_features)``.
    """
    ahead = plans.forward if training is False else plans.training
    biases = () if bias is None else (bias,)
    count = len(tensors)

    @tf.custom_gradient
    def run(inputs: Array, *arrays: Array) -> tuple[Array, Callable[[Array], tuple[Array, ...]]]:
        tensors, biases = arrays[:count], arrays[count:]
        outputs, saved = execute.forward_saving(ahead, tensors, inputs, OPS, *biases)

        def backward(gradient: Array) -> tuple[Array, ...]:  # holds the inputs, the tensors and what is saved
            by_inputs, by_tensors = execute.backward(plans.training, tensors, inputs, gradient, OPS, saved=saved)
            return by_inputs, *by_tensors, *(tf.reduce_sum(gradient, 0) for _ in biases)

        return outputs, backward

    return run(*(tf.convert_to_tensor(array) for array in (inputs, *tensors, *biases)))

"""``inputs @ W`` as one differentiable operation: the core's plan forward, the core's plan backward."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from mponet import contract
from mponet.plan import Plans
from mponet_tensorflow.arrays import OPS, Array


@tf.autograph.experimental.do_not_convert  # plans are run by Python itself: their loops and branches are static
def apply_mpo(plans: Plans, inputs: Array, cores: Sequence[Array]) -> Array:
    """``inputs @ W``.

    Args:
        plans: how, forward and backward.
        inputs: ``(batch, in_features)``, the dtype of the cores.
        cores: ``(D_{k-1}, I_k, J_k, D_k)`` each.

    Returns:
        ``(batch, out_features)``.
    """

    @tf.custom_gradient
    def run(inputs: Array, *cores: Array) -> tuple[Array, Callable[[Array], tuple[Array, ...]]]:
        def backward(gradient: Array) -> tuple[Array, ...]:  # keeps the inputs and the cores, nothing between
            slope, slopes = contract.backward(plans.backward, cores, inputs, gradient, OPS)
            return slope, *slopes

        return contract.forward(plans.forward, cores, inputs, OPS), backward

    return run(*(tf.convert_to_tensor(array) for array in (inputs, *cores)))

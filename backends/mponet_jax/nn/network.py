"""`NetworkLinear`: a linear layer whose weight is any tensor network."""

from collections.abc import Mapping
from typing import Any, Self

from flax import nnx

from mponet.layers.checks import check_names
from mponet.layers.fixed import FixedNodes
from mponet.layers.network import NetworkLayer
from mponet.operators.topology import NetworkShape
from mponet_jax.nn.calls import linear
from mponet_jax.nn.parameters import ParameterAccess
from mponet_jax.ops.arrays import Array


class NetworkLinear(ParameterAccess, NetworkLayer, nnx.Module):
    """``y = x @ W + b`` with ``W`` a tensor network of any form.

    Takes and gives any leading dimensions.

    For a chain with one input and one output leg on every node `MPOLinear` is faster:
    ``MPOLinear.from_nodes(nodes)``.

    Attributes:
        shape: nodes, edges and sizes (`mponet.operators.topology.NetworkShape`).
        bias: ``(out_features,)`` or None.
        ...: one parameter for each node, under its name; ``tensors`` gives all of them.

    Args:
        shape: nodes, edges and sizes.
        use_bias: whether to have a bias.
        fixed: numbers of nodes that are constants and not trained, by name; None for none.
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        dtype: as for `flax.nnx.Linear`.
        param_dtype: dtype of the parameters; None for float32, or ``dtype`` where that is wider.
        memory: bytes that a pass may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by the size of the layer.
        rngs: its ``params`` stream gives the seed of the starting values.

    Raises:
        GraphError: a node has the name of an attribute of the layer, or ``fixed`` no node.
        ShapeError: a fixed node has another shape.
        BackendError: a dtype is float64, which JAX has switched off.
    """

    def __init__(
        self,
        shape: NetworkShape,
        *,
        use_bias: bool = True,
        fixed: Mapping[str, Any] | None = None,
        initializer: str | float = "glorot",
        dtype: Any = None,
        param_dtype: Any = None,
        memory: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        check_names(shape, self)
        self.shape, self.fixed = shape, FixedNodes(shape, fixed)
        self.initializer, self.memory = initializer, memory
        self._make_parameters(use_bias, dtype, param_dtype, rngs)

    @classmethod
    def _new(cls, shape: NetworkShape, bias: bool, **options: Any) -> Self:
        return cls(shape, use_bias=bias, **{"rngs": nnx.Rngs(0), **options})

    def __call__(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
            InputError: the inputs are not an array, or complex.
        """
        return linear(self, inputs)

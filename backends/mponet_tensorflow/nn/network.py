"""`NetworkDense`: a dense layer whose kernel is any tensor network."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from mponet.layers.checks import check_names, check_width
from mponet.layers.fixed import FixedNodes
from mponet.layers.network import NetworkLayer
from mponet.operators.topology import NetworkShape
from mponet_tensorflow.nn.calls import linear
from mponet_tensorflow.nn.options import WeightOptions
from mponet_tensorflow.nn.parameters import ParameterAccess
from mponet_tensorflow.ops.arrays import Array, keras


@keras.saving.register_keras_serializable(package="mponet")
class NetworkDense(ParameterAccess, NetworkLayer, keras.layers.Layer):
    """``y = activation(x @ W + b)`` with ``W`` a tensor network of any form.

    Takes and gives any leading dimensions.

    For a chain with one input and one output leg on every node `MPODense` is faster:
    ``MPODense.from_nodes(nodes)``.

    Attributes:
        shape: nodes, edges and sizes (`mponet.operators.topology.NetworkShape`).
        units: number of outputs.
        bias: ``(units,)`` or None.
        ...: one weight for each node, under its name, once the layer is built; ``tensors`` gives
            all of them.

    Args:
        shape: nodes, edges and sizes.
        activation: as for `keras.layers.Dense`.
        use_bias: whether to have a bias.
        fixed: numbers of nodes that are constants and not trained, by name; None for none.
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        seed: seed of the starting values; None draws one, so `keras.utils.set_random_seed` governs.
        memory: bytes that a pass may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by the size of the layer.
        **kwargs: those of `keras.layers.Dense` (``kernel_initializer``, ``kernel_regularizer``,
            ``kernel_constraint``, ... see `mponet_tensorflow.nn.options.WeightOptions`) and those
            of every `keras.layers.Layer` (``name``, ``dtype``, ...).

    Raises:
        GraphError: a node has the name of an attribute of the layer, or ``fixed`` no node.
        ShapeError: a fixed node has another shape.
    """

    def __init__(
        self,
        shape: NetworkShape,
        *,
        activation: Any = None,
        use_bias: bool = True,
        fixed: Mapping[str, Any] | None = None,
        initializer: str | float = "glorot",
        seed: int | None = None,
        memory: int | None = None,
        **kwargs: Any,
    ) -> None:
        options = WeightOptions.taken_from(kwargs)
        super().__init__(**kwargs)
        self._take(activation, use_bias, initializer, seed, memory, options)
        self.shape, self.fixed = shape, FixedNodes(shape, fixed)
        self.units = shape.out_features
        check_names(shape, self)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights; the inputs are ``(..., features)``.

        Raises:
            ShapeError: the last dimension is not the number of inputs.
        """
        if not len(input_shape) or input_shape[-1] is not None:  # else checked at every call
            check_width(self.in_features, self.shape, tuple(input_shape))
        self._make_parameters()

    @classmethod
    def _new(cls, shape: NetworkShape, bias: bool, **options: Any) -> Self:
        layer = cls(shape, use_bias=bias, **{"seed": 0, **options})
        layer.build((None, shape.in_features))
        return layer

    def call(self, inputs: Array, training: bool | None = None) -> Array:
        """``activation(inputs @ W + b)``, ``(..., inputs)`` to ``(..., units)``.

        Raises:
            ShapeError: the last dimension is not the number of inputs.
            InputError: the inputs are complex, sparse or ragged.
        """
        return linear(self, inputs, training)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        shape = self.shape
        sizes = {"names": shape.names, "edges": shape.edges, "sizes": shape.sizes, "copies": shape.copies}
        return {**super().get_config(), "shape": sizes, "fixed": self.fixed.config(), **self._own_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer of `get_config`, not built."""
        return super().from_config({**config, "shape": NetworkShape(**config["shape"])})  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        if not self.built:
            return f"<NetworkDense name={self.name}, units={self.units}, {self.shape}, built=False>"
        return f"<NetworkDense name={self.name}, {self._description('use_bias')}>"

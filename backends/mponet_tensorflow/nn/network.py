"""`NetworkDense`: a dense layer whose kernel is any tensor network."""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import explain, matrix_of, plan_for
from mponet.contraction.search import DEFAULT_BATCH
from mponet.display import NotebookRepr
from mponet.errors import ShapeError
from mponet.layers.linear import check_bias, check_names, check_width, default_graph_plan, weights_kept
from mponet.operators.initialize import exact_tensors
from mponet.operators.topology import NetworkShape, check_tensors, from_nodes, to_nodes
from mponet_tensorflow.nn.linear import as_leading, as_rows, given, put
from mponet_tensorflow.ops.arrays import Array, keras, tf, to_numpy
from mponet_tensorflow.ops.graph import apply_network
from mponet_tensorflow.ops.planning import PLANNER


@keras.saving.register_keras_serializable(package="mponet")
class NetworkDense(NotebookRepr, keras.layers.Layer):
    """``y = activation(x @ W + b)`` with ``W`` a tensor network of any form; takes and gives any leading dimensions.

    A chain with one input and one output leg on every node is a matrix product operator, for which
    `MPODense` is
    faster: ``MPODense.from_mpo(mponet.operators.nodes.from_network(nodes))``.

    Attributes:
        wiring: how the nodes are joined (`mponet.operators.topology.NetworkShape`).
        units: number of outputs.
        bias: ``(units,)`` or None.
        ...: one weight for each node, under its name, once the layer is built; ``tensors`` is all of them.

    Args:
        wiring: how the nodes are joined.
        activation: as for `keras.layers.Dense`.
        use_bias: whether to have one.
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        seed: of the starting values; None draws one, so `keras.utils.set_random_seed` governs.
        **kwargs: ``name``, ``dtype``, ... as for every `keras.layers.Layer`.

    Raises:
        GraphError: a node has the name of something that the layer has already.
    """

    def __init__(
        self,
        wiring: NetworkShape,
        *,
        activation: Any = None,
        use_bias: bool = True,
        initializer: str | float = "glorot",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.wiring = wiring
        self.units = wiring.out_features
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.initializer = initializer
        self.seed = seed
        self.supports_masking = True
        check_names(wiring, self)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the weights; the inputs are ``(..., features)``.

        Raises:
            ShapeError: the last dimension is not the number of inputs.
        """
        if not len(input_shape) or input_shape[-1] is not None:  # else checked at every call
            check_width(self.wiring, tuple(input_shape))
        # keras draws the seeds of its own initialisers like this
        seed = random.randint(1, 10**9) if self.seed is None else self.seed
        start = exact_tensors(self.wiring, np.random.default_rng(seed), self.initializer)
        for name, tensor in zip(self.wiring.names, start, strict=True):
            setattr(self, name, self.add_weight(name=name, shape=tensor.shape, initializer=given(tensor)))
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros") if self.use_bias else None

    @property
    def tensors(self) -> tuple[keras.Variable, ...]:
        """The nodes' tensors, in the order of the wiring.

        Raises:
            ShapeError: there are none before the layer is built.
        """
        if not self.built:
            raise ShapeError(
                f"{self.name} has no weights yet; expected a built layer; call it, or "
                f"build((None, {self.wiring.in_features}))"
            )
        return tuple(getattr(self, name) for name in self.wiring.names)

    @classmethod
    def from_nodes(cls, nodes: Sequence[Any], bias: ArrayLike | None = None, **kwargs: Any) -> Self:
        """The layer of TensorNetwork nodes with the dangling edges ``in1 ..`` and ``out1 ..``, built.

        For a chain with one of each on every node `MPODense` is faster.

        Args:
            nodes: all of the network; they are copied, and not consumed.
            bias: ``(units,)``; None for a layer without.
            **kwargs: ``activation``, ``name``, ``dtype``, ... as for the layer.

        Raises:
            GraphError: the nodes are no legal layer.
            ShapeError: the bias has another shape.
        """
        wiring, tensors = from_nodes(nodes)
        layer = cls(wiring, use_bias=bias is not None, **{"seed": 0, **kwargs})
        layer.build((None, wiring.in_features))
        layer.assign(tensors, bias)
        return layer

    def to_nodes(self) -> tuple[Any, ...]:
        """TensorNetwork nodes, float64 numpy, joined and named as the wiring says."""
        return to_nodes(self.wiring, [to_numpy(tensor) for tensor in self.tensors])

    def to_matrix(self) -> NDArray[np.float64]:
        """``W``, ``(in_features, units)``, float64 numpy."""
        return matrix_of(self.wiring, [to_numpy(tensor) for tensor in self.tensors])

    def assign(self, tensors: Sequence[ArrayLike], bias: ArrayLike | None = None) -> None:
        """Overwrite the nodes' tensors, in the order of the wiring, and the bias if one is given.

        Raises:
            ShapeError: a tensor or the bias has another shape, or there is no bias to overwrite.
        """
        numbers = check_tensors(self.wiring, tensors)
        values = None if bias is None else check_bias(bias, self.units, wanted=self.use_bias)
        for tensor, value in zip(self.tensors, numbers, strict=True):
            put(tensor, value)
        if values is not None:
            put(self.bias, values)

    def plan(self, batch: int | None) -> GraphPlan:
        """The plan in use for a batch of so many rows; None while tracing, where the batch may vary."""
        return plan_for(self.wiring, batch, self.compute_dtype, PLANNER)

    def explain(self, batch: int | None = DEFAULT_BATCH) -> str:
        """The steps of the plan in use for a batch, and what else was considered."""
        return explain(self.wiring, batch, self.compute_dtype, PLANNER)

    def call(self, inputs: Array) -> Array:
        """``activation(inputs @ W + b)``, ``(..., inputs)`` to ``(..., units)``.

        Raises:
            ShapeError: the last dimension is not the number of inputs.
        """
        # Keras itself casts floating-point numbers only
        rows = as_rows(tf.cast(inputs, self.compute_dtype), self.wiring)
        outputs = apply_network(self.plan(rows.shape[0]), rows, self.tensors, self.bias)
        return self.activation(as_leading(outputs, inputs))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """``(..., inputs)`` to ``(..., units)``."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        wiring = self.wiring
        return {
            **super().get_config(),
            "wiring": {"names": wiring.names, "edges": wiring.edges, "sizes": wiring.sizes},
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "initializer": self.initializer,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer of `get_config`, not built."""
        return super().from_config({**config, "wiring": NetworkShape(**config["wiring"])})  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        wiring = self.wiring
        return (
            f"<NetworkDense name={self.name}, {wiring.in_features}, {wiring.out_features}, {wiring}, "
            f"use_bias={self.use_bias}, weights={weights_kept(wiring)}, plan='{default_graph_plan(wiring)}', "
            f"built={self.built}>"
        )

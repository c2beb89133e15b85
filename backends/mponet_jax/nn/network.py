"""`NetworkLinear`: a linear layer whose weight is any tensor network."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx import reprlib
from flax.nnx.nn.dtypes import promote_dtype
from numpy.typing import ArrayLike, NDArray

from mponet.contraction.graph_plan import GraphPlan
from mponet.contraction.graph_search import explain, matrix_of, plan_for
from mponet.contraction.search import DEFAULT_BATCH
from mponet.display import NotebookRepr
from mponet.layers.linear import check_bias, check_names, check_width, default_graph_plan, weights_kept
from mponet.operators.initialize import exact_tensors
from mponet.operators.topology import NetworkShape, check_tensors, from_nodes, to_nodes
from mponet_jax.nn.linear import put, start
from mponet_jax.ops.arrays import Array, accumulator, supported, to_numpy
from mponet_jax.ops.graph import apply_network
from mponet_jax.ops.planning import PLANNER


class NetworkLinear(NotebookRepr, nnx.Module):
    """``y = x @ W + b`` with ``W`` a tensor network of any form; takes and gives any leading dimensions.

    A chain with one input and one output leg on every node is a matrix product operator, for which
    `MPOLinear` is
    faster: ``MPOLinear.from_mpo(mponet.operators.nodes.from_network(nodes))``.

    Attributes:
        wiring: how the nodes are joined (`mponet.operators.topology.NetworkShape`).
        bias: ``(out_features,)`` or None.
        ...: one parameter for each node, under its name; ``tensors`` is all of them.

    Args:
        wiring: how the nodes are joined.
        use_bias: whether to have a bias.
        initializer: variance of the entries of ``W``, met exactly: ``glorot``, ``he``, ``lecun`` or
            a number.
        dtype: as for `flax.nnx.Linear`.
        param_dtype: dtype of the parameters; None for float32, or ``dtype`` where that is wider.
        rngs: its ``params`` stream gives the seed of the starting values.

    Raises:
        GraphError: a node has the name of something that the layer has already.
        BackendError: a dtype is float64, which JAX has switched off.
    """

    def __init__(
        self,
        wiring: NetworkShape,
        *,
        use_bias: bool = True,
        initializer: str | float = "glorot",
        dtype: Any = None,
        param_dtype: Any = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.wiring = wiring
        self.use_bias = use_bias
        self.dtype = dtype
        self.param_dtype = supported(accumulator(dtype or jnp.float32) if param_dtype is None else param_dtype)
        check_names(wiring, self)
        tensors = start(lambda rng: exact_tensors(wiring, rng, initializer), wiring.sizes, rngs, self.param_dtype)
        for name, tensor in zip(wiring.names, tensors, strict=True):
            setattr(self, name, nnx.Param(tensor))
        self.bias = nnx.Param(jnp.zeros(self.out_features, self.param_dtype)) if use_bias else nnx.data(None)

    @property
    def tensors(self) -> tuple[nnx.Param[Array], ...]:
        """The nodes' tensors, in the order of the wiring."""
        return tuple(getattr(self, name) for name in self.wiring.names)

    @property
    def in_features(self) -> int:
        """Number of inputs."""
        return self.wiring.in_features

    @property
    def out_features(self) -> int:
        """Number of outputs."""
        return self.wiring.out_features

    @classmethod
    def from_nodes(
        cls, nodes: Sequence[Any], bias: ArrayLike | None = None, *, dtype: Any = None, param_dtype: Any = None
    ) -> Self:
        """The layer of TensorNetwork nodes with the dangling edges ``in1 ..`` and ``out1 ..``.

        For a chain with one of each on every node `MPOLinear` is faster.

        Args:
            nodes: all of the network; they are copied, and not consumed.
            bias: ``(out_features,)``; None for a layer without.
            dtype: as for the layer.
            param_dtype: as for the layer.

        Raises:
            GraphError: the nodes are no legal layer.
            ShapeError: the bias has another shape.
        """
        wiring, tensors = from_nodes(nodes)
        layer = cls(wiring, use_bias=bias is not None, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0))
        layer.assign(tensors, bias)
        return layer

    def to_nodes(self) -> tuple[Any, ...]:
        """TensorNetwork nodes, float64 numpy, joined and named as the wiring says."""
        return to_nodes(self.wiring, [to_numpy(tensor[...]) for tensor in self.tensors])

    def to_matrix(self) -> NDArray[np.float64]:
        """``W``, ``(in_features, out_features)``, float64 numpy."""
        return matrix_of(self.wiring, [to_numpy(tensor[...]) for tensor in self.tensors])

    def assign(self, tensors: Sequence[ArrayLike], bias: ArrayLike | None = None) -> None:
        """Overwrite the nodes' tensors, in the order of the wiring, and the bias if one is given.

        Raises:
            ShapeError: a tensor or the bias has another shape, or there is no bias to overwrite.
        """
        numbers = check_tensors(self.wiring, tensors)
        values = None if bias is None else check_bias(bias, self.out_features, wanted=self.bias is not None)
        for tensor, value in zip(self.tensors, numbers, strict=True):
            put(tensor, value)
        if self.bias is not None and values is not None:
            put(self.bias, values)

    def plan(self, batch: int | None) -> GraphPlan:
        """The plan in use for a batch of so many rows; None where `jax.export` leaves it open."""
        return plan_for(self.wiring, batch, _dtype(self), PLANNER)

    def explain(self, batch: int | None = DEFAULT_BATCH) -> str:
        """The steps of the plan in use for a batch, and what else was considered."""
        return explain(self.wiring, batch, _dtype(self), PLANNER)

    def __call__(self, inputs: Array) -> Array:
        """``inputs @ W + b``, ``(..., in_features)`` to ``(..., out_features)``.

        Raises:
            ShapeError: the last dimension is not ``in_features``.
        """
        check_width(self.wiring, inputs.shape)
        leading = inputs.shape[:-1]
        bias = None if self.bias is None else self.bias[...]
        arrays: tuple[Any, ...] = (inputs, bias, *(tensor[...] for tensor in self.tensors))
        inputs, bias, *tensors = promote_dtype(arrays, dtype=self.dtype)
        rows = inputs.reshape(prod(leading), self.in_features)
        batch = rows.shape[0] if isinstance(rows.shape[0], int) else None
        # not by the method: nnx.tabulate compiles the methods that a forward pass calls, and a plan
        # is no array
        plan = plan_for(self.wiring, batch, rows.dtype.name, PLANNER)
        return apply_network(plan, rows, tensors, bias).reshape(*leading, self.out_features)

    def __nnx_repr__(self) -> Iterator[reprlib.Object | reprlib.Attr]:
        """Nodes, counts, and the plan at the usual batch, beside what nnx shows."""
        shown = super().__nnx_repr__()  # type: ignore[no-untyped-call]
        yield next(shown)
        attributes = [attribute for attribute in shown if attribute.key != "wiring"]
        if attributes:  # none the second time that nnx meets a shared layer
            yield reprlib.Attr("wiring", str(self.wiring), use_raw_value=True)
            yield reprlib.Attr("weights", weights_kept(self.wiring), use_raw_value=True)
            yield reprlib.Attr("plan", default_graph_plan(self.wiring))
            yield from attributes


def _dtype(layer: NetworkLinear) -> str:
    """In which it computes."""
    return str(jnp.dtype(layer.dtype or layer.param_dtype).name)

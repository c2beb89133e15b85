"""`MPOEmbed`: an embedding whose table is a chain of cores."""

from collections.abc import Sequence
from math import prod
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from numpy.typing import NDArray

from mponet.contraction import execute
from mponet.contraction.planner import plans_for
from mponet.errors import InputError, ShapeError
from mponet.layers.embedding import EmbeddingShape
from mponet.layers.embedding_layer import EmbeddingLayer
from mponet.layers.lookup import laid_out, lookup
from mponet.layers.operator import DenseWeights
from mponet_jax.nn.calls import check_inputs
from mponet_jax.nn.parameters import ParameterAccess, put
from mponet_jax.ops.arrays import OPS, PRECISION, Array, to_numpy
from mponet_jax.ops.contraction import apply
from mponet_jax.ops.planning import planner


class MPOEmbed(ParameterAccess, EmbeddingLayer, nnx.Module):
    """`flax.nnx.Embed` with a table that is a chain of cores; the table is never formed.

    Attributes:
        shape: vocabulary, factors and bonds (`mponet.layers.embedding.EmbeddingShape`).
        core1, core2, ...: one parameter per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all
            of them.
        embedding: the table, built when it is asked for.

    Args:
        num_embeddings: length of the vocabulary; any number, since the factors may have a larger
            product.
        features: length of a row.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        sites: number of factors where they are chosen; None takes that of the factors given, else
            2.
        input_dims: factors whose product is at least ``num_embeddings``; None chooses.
        output_dims: factors of ``features``; None chooses.
        initializer: variance of the entries of the table, met exactly: a number, ``glorot``, ``he``
            or ``lecun``; None for ``1 / features`` as for `flax.nnx.Embed`.
        dtype: as for `flax.nnx.Embed`.
        param_dtype: dtype of the parameters; None for float32, or ``dtype`` where that is wider.
        memory: bytes that a head may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by its size.
        rngs: its ``params`` stream gives the seed of the starting values.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.
        BackendError: a dtype is float64, which JAX has switched off.

    Example:
        >>> layer = MPOEmbed(30522, 384, bond=16, rngs=nnx.Rngs(0))
        >>> rows = layer(jnp.array([[1, 2, 3]]))
        >>> rows.shape, layer.attend(rows).shape
        ((1, 3, 384), (1, 3, 30522))
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        bond: int | Sequence[int],
        *,
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        initializer: str | float | None = None,
        dtype: Any = None,
        param_dtype: Any = None,
        memory: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.shape = EmbeddingShape.from_sizes(
            num_embeddings, features, bond, sites=sites, input_dims=input_dims, output_dims=output_dims
        )
        self.initializer, self.memory = 1.0 / features if initializer is None else initializer, memory
        self._make_parameters(False, dtype, param_dtype, rngs)

    @property
    def num_embeddings(self) -> int:
        """Length of the vocabulary."""
        return self.shape.num_embeddings

    @property
    def features(self) -> int:
        """Length of a row."""
        return self.shape.out_features

    @property
    def embedding(self) -> Array:
        """The table ``(num_embeddings, features)``, built when it is asked for.

        It is differentiable in the cores; writing to it does not change them.
        """
        table: Array = execute.dense_matrix(self.dense_plan, [core[...] for core in self.cores], OPS)
        return table[: self.num_embeddings]

    @property
    def kernel(self) -> Array:
        """The table, under the name that all layers have."""
        return self.embedding

    @classmethod
    def _new(cls, shape: EmbeddingShape, bias: bool, **options: Any) -> Self:
        mpo = shape.mpo
        dims: dict[str, Any] = {"input_dims": mpo.input_dims, "output_dims": mpo.output_dims}
        options = {"rngs": nnx.Rngs(0), **dims, **options}
        return cls(shape.num_embeddings, mpo.out_features, mpo.bond_dims[1:-1], **options)

    @classmethod
    def _dense_weights(cls, dense: Any) -> DenseWeights:
        if not isinstance(dense, nnx.Embed):
            raise InputError(f"embedding is a {type(dense).__name__}; expected a flax.nnx.Embed")
        table = dense.embedding[...]
        options = {"dtype": dense.dtype, "param_dtype": table.dtype}
        return DenseWeights(to_numpy(table), None, options, jax.default_device(next(iter(table.devices()))))

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> Any:
        first = self.tensors[0][...]
        with jax.default_device(next(iter(first.devices()))):
            dense = nnx.Embed(
                self.num_embeddings,
                self.features,
                dtype=self.dtype,
                param_dtype=first.dtype,
                embedding_init=nnx.initializers.zeros_init(),
                rngs=nnx.Rngs(0),
            )
            put(dense.embedding, matrix)
        return dense

    def __call__(self, inputs: Array) -> Array:
        """Rows of the table for integer tokens, ``(...)`` to ``(..., features)``.

        As with `flax.nnx.Embed`, negative tokens count from the end, and the rows of tokens beyond
        the vocabulary are not numbers.

        Raises:
            InputError: the tokens are not integers.
        """
        check_inputs(inputs)
        if not jnp.issubdtype(inputs.dtype, jnp.integer):
            raise InputError(f"tokens have the dtype {inputs.dtype}; expected integers")
        tokens = inputs.reshape(-1).astype(jnp.promote_types(inputs.dtype, jnp.int32))
        tokens = jnp.where(tokens < 0, tokens + self.num_embeddings, tokens)
        rows: Array
        if self.frozen is not None and (table := self.frozen.table) is not None:
            rows = _gathered(table, jnp.where(tokens < 0, self.num_embeddings, tokens))
        else:
            cores = promote_dtype(tuple(core[...] for core in self.cores), dtype=self.dtype)
            parts = laid_out(self.lookup_plan, cores, OPS) if self.frozen is None else self.frozen.rows()
            rows = lookup(self.lookup_plan, parts, tokens, OPS, _gathered, _multiplied)
        return rows.reshape(*inputs.shape, self.features)

    def attend(self, query: Array) -> Array:
        """``query @ table.T``.

        Logits ``(..., num_embeddings)`` of ``(..., features)``, by the same cores.

        Raises:
            ShapeError: the last dimension is not ``features``.
            InputError: the query is not an array, or complex.
        """
        check_inputs(query)
        if not query.ndim or query.shape[-1] != self.features:
            raise ShapeError(f"query has the shape {query.shape}; expected (..., {self.features})")
        leading = query.shape[:-1]
        query, *cores = promote_dtype((query, *(core[...] for core in self.cores)), dtype=self.dtype)
        rows = query.reshape(prod(leading), self.features)
        if self.frozen is not None and self.frozen.plans is not None:
            logits = self.frozen.product(rows, None, (0, self.shape.head.out_features - self.num_embeddings))
            return logits.reshape(*leading, self.num_embeddings)  # type: ignore[no-any-return]
        batch = rows.shape[0] if isinstance(rows.shape[0], int) else None
        # not by the method: nnx.tabulate compiles the methods that a forward pass calls, and a plan
        # is not an array
        plans = plans_for(self.shape.head, batch, rows.dtype.name, planner(), self.memory)
        logits = apply(plans, rows, [core.transpose(0, 2, 1, 3) for core in cores])
        return logits[:, : self.num_embeddings].reshape(*leading, self.num_embeddings)


def _gathered(rows: Array, indices: Array) -> Array:
    # a token outside the vocabulary has an index beyond the rows, or one so far below that it does
    # not wrap
    return rows.at[indices].get(mode="fill", fill_value=jnp.nan)


def _multiplied(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=PRECISION)

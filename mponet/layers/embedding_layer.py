"""`EmbeddingLayer`: an embedding whose table is a chain of cores."""

from collections.abc import Sequence
from typing import Any, Self

from mponet.errors import ShapeError
from mponet.layers.chain import ChainLayer
from mponet.layers.embedding import EmbeddingShape, from_table
from mponet.layers.fitting import fit_table
from mponet.layers.lookup import LookupPlan, best_lookup, explain_lookup
from mponet.layers.operator import Array
from mponet.operators.mpo import MPO
from mponet.operators.shape import MPOShape


class EmbeddingLayer(ChainLayer):
    """The part of a layer that knows its operator is the table of an embedding.

    Attributes:
        shape: vocabulary, factors and bonds (`mponet.layers.embedding.EmbeddingShape`).
    """

    shape: EmbeddingShape  # type: ignore[assignment]

    @property
    def chain_shape(self) -> MPOShape:
        """Factors and bonds of the table, rows beyond the vocabulary included."""
        return self.shape.mpo

    @property
    def lookup_plan(self) -> LookupPlan:
        """How rows are made."""
        return best_lookup(self.shape)

    @classmethod
    def from_mpo(cls, mpo: MPO, *, num_embeddings: int | None = None, **options: Any) -> Self:  # type: ignore[override]
        """The layer of an operator that is a table.

        Args:
            mpo: the operator; its rows are at least as many as the vocabulary.
            num_embeddings: length of the vocabulary; None for all rows.
            **options: further arguments of the layer, such as its dtype.

        Raises:
            ShapeError: the vocabulary is longer than the operator has rows.
        """
        shape = EmbeddingShape(mpo.shape.in_features if num_embeddings is None else num_embeddings, mpo.shape)
        layer = cls._new(shape, False, **options)
        layer.assign(mpo)
        return layer

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        max_bond: int | Sequence[int] | None = None,
        relative_error: float = 0.0,
        counts: Any = None,
        **options: Any,
    ) -> Self:
        """The layer nearest to an embedding with ``table``.

        Args:
            table: ``(num_embeddings, features)``.
            sites: number of factors where they are chosen; None takes that of the factors given,
                else 2.
            input_dims: factors whose product is at least ``num_embeddings``; None chooses.
            output_dims: factors of ``features``; None chooses.
            max_bond: largest bond, one for all or one for each inner bond; None for no limit.
            relative_error: largest Frobenius error, relative to the norm of the table.
            counts: ``(num_embeddings,)``, how often each token is read; rows count as much, and
                ``relative_error`` is that of the rows read.  None counts all rows alike.
            **options: further arguments of the layer, such as its dtype.

        Raises:
            ShapeError: the table has not two axes, or the factors do not fit it.
        """
        rows = cls._to_numpy(table)
        if rows.ndim != 2:
            raise ShapeError(f"table has the shape {rows.shape}; expected (num_embeddings, features)")
        tokens, features = rows.shape
        dims = {"input_dims": input_dims, "output_dims": output_dims}
        shape = EmbeddingShape.from_sizes(tokens, features, 1, sites=sites, **dims)
        limits: dict[str, Any] = {"max_bond": max_bond, "relative_error": relative_error}
        seen = cls._statistics(None, counts, tokens, has_bias=False)
        mpo = from_table(rows, shape, **limits).mpo if seen is None else fit_table(rows, shape, seen.metric, **limits)
        return cls.from_mpo(mpo, num_embeddings=shape.num_embeddings, **options)

    @classmethod
    def from_embedding(cls, embedding: Any, **options: Any) -> Self:
        """The layer nearest to a trained embedding, on its device and in its dtype.

        Args:
            embedding: the framework's own layer.
            **options: as for `from_table`: ``sites``, ``max_bond``, ``counts``, ...;
                further arguments of the layer override what ``embedding`` says.

        Raises:
            ShapeError: factors do not fit, or ``embedding`` has no weights yet.
            InputError: ``embedding`` is not an embedding that the layer can stand in for.
        """
        weights = cls._dense_weights(embedding)
        with weights.place:
            layer = cls.from_table(weights.matrix, **{**weights.options, **options})
        layer._adopt(embedding)
        return layer

    @classmethod
    def from_dense(cls, dense: Any, **options: Any) -> Self:
        """`from_embedding`, under the name that all layers have."""
        return cls.from_embedding(dense, **options)

    def to_table(self) -> Array:
        """The table ``(num_embeddings, features)``, float64 numpy."""
        return self.to_matrix()[: self.shape.num_embeddings]

    def to_dense(self) -> Any:
        """The framework's embedding with the same table, device and dtype."""
        return self._make_dense(self.to_table(), None)

    def explain(self, batch: int | None = None) -> str:
        """How rows are made, and the other way that was considered.

        The same for any number of tokens.
        """
        return explain_lookup(self.shape)

    @property
    def _planned_shape(self) -> MPOShape:
        """The shape of the output head of the same cores, a product with the transposed table."""
        return self.shape.head

    def _plan_in_use(self) -> str:
        return str(self.lookup_plan)

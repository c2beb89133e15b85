"""`MPOEmbedding`.

An embedding whose table is a chain of cores, and `TiedHead`, an output head of the same cores.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import nn
from torch.fx import Proxy
from torch.nn import functional

from mponet.contraction import execute
from mponet.errors import InputError, ShapeError
from mponet.layers.embedding import EmbeddingShape
from mponet.layers.embedding_layer import EmbeddingLayer
from mponet.layers.lookup import laid_out, lookup
from mponet.layers.operator import DenseWeights
from mponet_torch.nn.calls import (
    autocast,
    check_inputs,
    check_layer,
    flattened,
    known_size,
    leaf,
    nested,
    shaped,
    unflattened,
)
from mponet_torch.nn.dense import TRIED, check_weight
from mponet_torch.nn.parameters import ParameterAccess
from mponet_torch.ops.arrays import OPS, Array, to_numpy
from mponet_torch.ops.contraction import apply


class MPOEmbedding(ParameterAccess, EmbeddingLayer):
    """`torch.nn.Embedding` with a table that is a chain of cores; the table is never formed.

    Attributes:
        shape: vocabulary, factors and bonds (`mponet.layers.embedding.EmbeddingShape`).
        core1, core2, ...: one parameter per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all
            of them.
        padding_row: the row of ``padding_idx``, which is not trained: zero at first; None without
            one.
        weight: the table, built when it is asked for.

    Args:
        num_embeddings: length of the vocabulary; any number, since the factors may have a larger
            product.
        embedding_dim: length of a row.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        padding_idx: as for `torch.nn.Embedding`.
        sites: number of factors where they are chosen; None takes that of the factors given, else
            2.
        input_dims: factors whose product is at least ``num_embeddings``; None chooses.
        output_dims: factors of ``embedding_dim``; None chooses.
        initializer: variance of the entries of the table, met exactly: a number, ``glorot``, ``he``
            or ``lecun``; 1 as for `torch.nn.Embedding`.
        seed: seed of the starting values; None draws one from torch's generator.
        memory: bytes that a head may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by its size.
        device: as for `torch.nn.Embedding`.
        dtype: as for `torch.nn.Embedding`.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.

    Example:
        >>> layer = MPOEmbedding(30522, 384, bond=16)
        >>> layer(torch.tensor([[1, 2, 3]])).shape
        torch.Size([1, 3, 384])
        >>> sum(p.numel() for p in layer.parameters())  # the table has 11.7 million
        112000
    """

    padding_row: Array | None
    #: What `torch.nn.Embedding` has in addition, and PEFT reads.
    max_norm, norm_type, scale_grad_by_freq, sparse = None, 2.0, False, False

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        bond: int | Sequence[int],
        padding_idx: int | None = None,
        *,
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        initializer: str | float = 1.0,
        seed: int | None = None,
        memory: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.shape = EmbeddingShape.from_sizes(
            num_embeddings, embedding_dim, bond, sites=sites, input_dims=input_dims, output_dims=output_dims
        )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ShapeError(f"padding_idx is {padding_idx}; expected a token of {num_embeddings}")
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.initializer, self.seed, self.memory = initializer, seed, memory
        self._make_parameters(False, device, dtype)
        row = None if padding_idx is None else torch.zeros(embedding_dim, device=device, dtype=self.cores[0].dtype)
        self.register_buffer("padding_row", row)

    @property
    def num_embeddings(self) -> int:
        """Length of the vocabulary."""
        return self.shape.num_embeddings

    @property
    def embedding_dim(self) -> int:
        """Length of a row."""
        return self.shape.out_features

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        return self.num_embeddings, self.embedding_dim

    def _dense_weight(self) -> Array:
        table = execute.dense_matrix(self._rebuild, self.tensors, OPS)[: self.num_embeddings]
        return self._padded(table, torch.arange(self.num_embeddings, device=table.device))

    @classmethod
    def _new(cls, shape: EmbeddingShape, bias: bool, **options: Any) -> Self:
        mpo = shape.mpo
        dims: dict[str, Any] = {"input_dims": mpo.input_dims, "output_dims": mpo.output_dims}
        return cls(shape.num_embeddings, mpo.out_features, mpo.bond_dims[1:-1], **dims, **{"seed": 0, **options})

    @classmethod
    def _dense_weights(cls, dense: Any) -> DenseWeights:
        if not isinstance(dense, nn.Embedding):
            raise InputError(f"embedding is a {type(dense).__name__}; expected a torch.nn.Embedding")
        if dense.max_norm is not None or dense.scale_grad_by_freq or dense.sparse:
            raise InputError(
                f"embedding has max_norm={dense.max_norm}, scale_grad_by_freq={dense.scale_grad_by_freq}, "
                f"sparse={dense.sparse}; expected none of them, which need the rows of a table"
            )
        check_weight(dense, dense.weight)
        if type(dense).forward is not nn.Embedding.forward or "forward" in vars(dense):
            _try(dense)
        table = to_numpy(dense.weight)
        return DenseWeights(table, None, cls._dense_options(dense))

    @staticmethod
    def _dense_options(dense: Any) -> dict[str, Any]:
        """Constructor arguments that carry over from a dense layer."""
        return {"padding_idx": dense.padding_idx, "device": dense.weight.device, "dtype": dense.weight.dtype}

    def reset_parameters(self) -> None:
        """Draw the starting values anew, by ``seed`` or else by torch's generator.

        The padding row becomes zero.
        """
        super().reset_parameters()
        row = self._buffers.get("padding_row")
        if row is not None:
            nn.init.zeros_(row)

    def _prepare_plans(self) -> None:
        super()._prepare_plans()
        self._lookup = self.lookup_plan

    def _adopt(self, dense: Any) -> None:
        super()._adopt(dense)
        if self.padding_row is not None and not dense.weight.is_meta:
            self._write(self.padding_row, to_numpy(dense.weight[self.padding_idx]))

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> Any:
        first = self.tensors[0]
        sizes = self.num_embeddings, self.embedding_dim, self.padding_idx
        dense = nn.Embedding(*sizes, device=first.device, dtype=first.dtype)
        if self.padding_row is not None:
            matrix[self.padding_idx] = to_numpy(self.padding_row)
        return self._filled(dense, matrix, None)

    def forward(self, inputs: Array) -> Array:
        """Rows of the table for integer tokens, ``(...)`` to ``(..., embedding_dim)``.

        Raises:
            IndexError: a token is outside the vocabulary, as `torch.nn.Embedding` raises it.
            InputError: the tokens are not a tensor of integers, or sparse or masked.
        """
        if isinstance(inputs, Proxy):
            return leaf(self, inputs)
        check_inputs(inputs)
        if inputs.is_nested:
            return nested(self, inputs, 0)
        if inputs.is_floating_point():
            raise InputError(f"tokens have the dtype {inputs.dtype}; expected integers")
        check_layer(self.cores)
        tokens = inputs.reshape(-1).long()
        if inputs.device.type != "meta" and torch.is_autocast_enabled(inputs.device.type):
            with torch.autocast(inputs.device.type, enabled=False):  # a table of torch keeps its dtype as well
                rows = self._rows(tokens)
        else:
            rows = self._rows(tokens)
        return shaped(self._padded(rows, tokens), (*inputs.shape, self.embedding_dim))

    def _rows(self, tokens: Array) -> Array:
        """Rows of the table, ``(tokens, embedding_dim)``."""
        frozen = self.frozen_weights
        if frozen is None:
            parts = laid_out(self._lookup, self.cores, OPS)
        elif (table := frozen.table) is not None:
            return _gathered(table, tokens)
        else:
            parts = frozen.rows()
        rows: Array = lookup(self._lookup, parts, tokens, OPS, _gathered, torch.matmul)
        return rows

    def attend(self, inputs: Array) -> Array:
        """``inputs @ table.T``.

        Logits ``(..., num_embeddings)`` of ``(..., embedding_dim)``, by the same cores.

        Raises:
            ShapeError: the last dimension is not ``embedding_dim``.
        """
        check_inputs(inputs)
        if inputs.is_nested:
            return nested(self.attend, inputs, 1)
        if not inputs.ndim or inputs.shape[-1] != self.embedding_dim:
            raise ShapeError(f"inputs have the shape {tuple(inputs.shape)}; expected (..., {self.embedding_dim})")
        rows, padding, cores = autocast(flattened(inputs), self.padding_row, self.cores)
        frozen = self.frozen_weights
        if frozen is not None and frozen.plans is not None:
            logits = frozen.product(rows, None, (0, self.shape.head.out_features - self.num_embeddings))
        else:
            plans = self.plans(known_size(rows.shape[0]), rows.dtype)
            transposed = [core.transpose(1, 2) for core in cores]
            logits = apply(plans, rows, transposed, cache=self.cache)[:, : self.num_embeddings].contiguous()
        if padding is not None and self.padding_idx is not None:
            logits = logits.clone()
            logits[:, self.padding_idx] = rows @ padding
        return unflattened(logits, inputs)

    def extra_repr(self) -> str:
        """Sizes, shape, counts and the plan in use."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return self._description() + padding

    def _padded(self, rows: Array, tokens: Array) -> Array:
        """The rows with that of ``padding_idx`` in its place."""
        if self.padding_row is None or self.padding_idx is None:
            return rows
        return torch.where((tokens == self.padding_idx).unsqueeze(-1), self.padding_row, rows)


class TiedHead(nn.Module):
    """An output head that shares the parameters of an `MPOEmbedding`: ``x @ table.T + b``.

    The cores are parameters of the embedding alone, which is not a submodule of the head: state
    dicts and checkpoints have them once.  The model that holds the head also holds the embedding.

    Attributes:
        embedding: the embedding whose cores are used.
        bias: ``(num_embeddings,)`` or None.

    Args:
        embedding: the embedding whose cores are used.
        bias: whether to have a bias.

    Example:
        >>> embedding = MPOEmbedding(100, 16, bond=4)
        >>> TiedHead(embedding)(torch.ones(2, 16)).shape
        torch.Size([2, 100])
    """

    embedding: MPOEmbedding

    def __init__(self, embedding: MPOEmbedding, bias: bool = False) -> None:
        super().__init__()
        object.__setattr__(self, "embedding", embedding)
        first = embedding.cores[0]
        made = nn.Parameter(torch.zeros(embedding.num_embeddings, device=first.device, dtype=first.dtype))
        self.bias = made if bias else None

    @property
    def in_features(self) -> int:
        """Number of inputs, the length of a row."""
        return self.embedding.embedding_dim

    @property
    def out_features(self) -> int:
        """Number of outputs, the length of the vocabulary."""
        return self.embedding.num_embeddings

    @property
    def weight(self) -> Array:
        """The table ``(num_embeddings, embedding_dim)``, built when it is asked for."""
        return self.embedding.weight

    def reset_parameters(self) -> None:
        """Set the bias to zero; the embedding resets its own parameters."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, inputs: Array) -> Array:
        """Logits ``(..., num_embeddings)`` of ``(..., embedding_dim)``."""
        if isinstance(inputs, Proxy):
            return leaf(self, inputs)
        if isinstance(inputs, torch.Tensor) and inputs.is_nested:
            return nested(self, inputs, 1)
        logits = self.embedding.attend(inputs)
        return logits if self.bias is None else logits + self.bias.to(logits.dtype)

    def __repr__(self) -> str:
        # as in `ParameterAccess.__repr__`
        return type(self).__name__ if torch.compiler.is_compiling() else super().__repr__()

    def extra_repr(self) -> str:
        """Sizes, and the operator."""
        return f"{self.in_features}, {self.out_features}, {self.embedding.shape}, bias={self.bias is not None}"


def _try(dense: nn.Embedding) -> None:
    """Refuse a subclass that does not give the rows of its table, as one that scales them."""
    tokens = torch.arange(min(TRIED, dense.num_embeddings), device=dense.weight.device)
    with torch.no_grad():
        if not torch.equal(dense.forward(tokens), dense.weight[tokens]):
            raise InputError(
                f"embedding is a {type(dense).__name__}, which computes something else than the rows of its weight; "
                "expected a plain torch.nn.Embedding"
            )


def _gathered(rows: Array, indices: Array) -> Array:
    return functional.embedding(indices, rows)

"""`MPOEmbedding`: an embedding whose table is a chain of cores."""

from collections.abc import Sequence
from typing import Any, Self

from numpy.typing import NDArray

from mponet.contraction import execute
from mponet.errors import InputError, ShapeError
from mponet.layers.embedding import EmbeddingShape
from mponet.layers.embedding_layer import EmbeddingLayer
from mponet.layers.lookup import laid_out, lookup
from mponet.layers.operator import DenseWeights
from mponet_tensorflow.nn.calls import as_leading, as_rows, dense_real, real
from mponet_tensorflow.nn.options import WeightOptions
from mponet_tensorflow.nn.parameters import ParameterAccess
from mponet_tensorflow.ops.arrays import OPS, Array, keras, tf, to_numpy
from mponet_tensorflow.ops.contraction import apply


@keras.saving.register_keras_serializable(package="mponet")
class MPOEmbedding(ParameterAccess, EmbeddingLayer, keras.layers.Layer):
    """`keras.layers.Embedding` with a table that is a chain of cores; the table is never formed.

    Called with ``reverse=True`` it is an output head of the same cores, as
    `keras.layers.ReversibleEmbedding` is.

    Attributes:
        shape: vocabulary, factors and bonds (`mponet.layers.embedding.EmbeddingShape`).
        core1, core2, ...: one weight per site, ``(D_{k-1}, I_k, J_k, D_k)``; ``cores`` gives all of
            them.
        embeddings: the table, built when it is asked for.

    Args:
        input_dim: length of the vocabulary; any number, since the factors may have a larger
            product.
        output_dim: length of a row.
        bond: bond dimension, one for all or one for each inner bond; clamped to what is useful.
        mask_zero: as for `keras.layers.Embedding`.
        sites: number of factors where they are chosen; None takes that of the factors given, else
            2.
        input_dims: factors whose product is at least ``input_dim``; None chooses.
        output_dims: factors of ``output_dim``; None chooses.
        initializer: variance of the entries of the table, met exactly: a number, ``glorot``, ``he``
            or ``lecun``; that of `keras.layers.Embedding`, which is uniform within 0.05.
        seed: seed of the starting values; None draws one, so `keras.utils.set_random_seed` governs.
        memory: bytes that a head may take beside inputs, outputs and their gradients; None for what
            ``MPONET_MEMORY`` says, else for a limit by its size.
        **kwargs: ``embeddings_initializer``, ``embeddings_regularizer`` and
            ``embeddings_constraint`` as for `keras.layers.Embedding` (see
            `mponet_tensorflow.nn.options.WeightOptions`), and those of every `keras.layers.Layer`.

    Raises:
        ShapeError: sizes, factors and bonds do not fit together.

    Example:
        >>> layer = MPOEmbedding(30522, 384, bond=16)
        >>> rows = layer(tf.constant([[1, 2, 3]]))
        >>> rows.shape, layer(rows, reverse=True).shape
        (TensorShape([1, 3, 384]), TensorShape([1, 3, 30522]))
    """

    #: What `mponet_tensorflow.merge` makes of it.
    _dense_type: Any = keras.layers.Embedding

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        bond: int | Sequence[int],
        mask_zero: bool = False,
        *,
        sites: int | None = None,
        input_dims: Sequence[int] | None = None,
        output_dims: Sequence[int] | None = None,
        initializer: str | float = 0.1**2 / 12,
        seed: int | None = None,
        memory: int | None = None,
        **kwargs: Any,
    ) -> None:
        options = WeightOptions.taken_from(_renamed(kwargs, "embeddings_", "kernel_"))
        super().__init__(**kwargs)
        self._take(None, False, initializer, seed, memory, options)
        self.shape = EmbeddingShape.from_sizes(
            input_dim, output_dim, bond, sites=sites, input_dims=input_dims, output_dims=output_dims
        )
        self.input_dim, self.output_dim = input_dim, output_dim
        self.mask_zero = self.supports_masking = mask_zero
        self.autocast = False  # integers must not be cast to the dtype of the layer
        self.units = output_dim

    def build(self, input_shape: Sequence[int | None] | None = None) -> None:
        """Make the weights, which do not depend on the inputs."""
        if not self.built:
            self._make_parameters()
            self.built = True

    @property
    def embeddings(self) -> Array:
        """The table ``(input_dim, output_dim)``, built when it is asked for.

        It is differentiable in the cores; writing to it does not change them.
        """
        cores = [tf.convert_to_tensor(core) for core in self.cores]
        return execute.dense_matrix(self.dense_plan, cores, OPS)[: self.input_dim]

    @property
    def kernel(self) -> Array:
        """The table, under the name that all layers have."""
        return self.embeddings

    @classmethod
    def _new(cls, shape: EmbeddingShape, bias: bool, **options: Any) -> Self:
        mpo = shape.mpo
        dims: dict[str, Any] = {"input_dims": mpo.input_dims, "output_dims": mpo.output_dims}
        sizes = shape.num_embeddings, mpo.out_features, mpo.bond_dims[1:-1]
        layer = cls(*sizes, **dims, **{"seed": 0, **options})
        layer.build()
        return layer

    @classmethod
    def _dense_weights(cls, dense: Any) -> DenseWeights:
        if not isinstance(dense, keras.layers.Embedding):
            raise InputError(f"embedding is a {type(dense).__name__}; expected a keras.layers.Embedding")
        if not dense.built:
            raise ShapeError(f"{dense.name} has no weights yet; expected a built layer; call it, or build()")
        if dense.quantization_mode is not None:
            raise InputError(
                f"{dense.name} is quantised to {dense.quantization_mode}; expected float weights; make the operator "
                "before quantising"
            )
        names = ("name", "mask_zero", "embeddings_regularizer", "embeddings_constraint")
        options = {name: getattr(dense, name) for name in names} | {"dtype": dense.dtype_policy}
        return DenseWeights(to_numpy(tf.convert_to_tensor(dense.embeddings)), None, options)  # merges LoRA

    def _make_dense(self, matrix: NDArray[Any], bias: NDArray[Any] | None) -> Any:
        dense = keras.layers.Embedding(
            self.input_dim,
            self.output_dim,
            embeddings_regularizer=self.options.kernel_regularizer,
            embeddings_constraint=self.options.kernel_constraint,
            mask_zero=self.mask_zero,
            dtype=self.dtype_policy,
            name=self.name,
        )
        dense.build()
        dense.trainable = self.trainable
        self._write(dense.embeddings, matrix)
        return dense

    def call(self, inputs: Array, reverse: bool = False) -> Array:
        """Rows of the table for integer tokens, ``(...)`` to ``(..., output_dim)``.

        Or `attend` if ``reverse``.

        Raises:
            InputError: the tokens are complex, sparse or ragged.
        """
        if reverse:
            return self.attend(inputs)
        inputs = dense_real(inputs)
        tokens = inputs if inputs.dtype in (tf.int32, tf.int64) else tf.cast(inputs, tf.int32)
        rows = self._rows(tf.reshape(tokens, (-1,)))
        shaped = tf.reshape(rows, tf.concat([tf.shape(tokens), [self.output_dim]], 0))
        shaped.set_shape([*tokens.shape, self.output_dim])  # no operation, unlike ensure_shape, which LiteRT lacks
        return shaped

    def _rows(self, tokens: Array) -> Array:
        """Rows of the table, ``(tokens, output_dim)``."""
        if self.frozen is None:
            cores = [tf.cast(tf.convert_to_tensor(core), self.compute_dtype) for core in self.cores]
            parts = laid_out(self.lookup_plan, cores, OPS)
        elif (table := self.frozen.table) is not None:
            return tf.gather(table, tokens)
        else:
            parts = self.frozen.rows()
        return lookup(self.lookup_plan, parts, tokens, OPS, tf.gather, tf.matmul)

    def attend(self, inputs: Array) -> Array:
        """``inputs @ table.T``.

        Logits ``(..., input_dim)`` of ``(..., output_dim)``, by the same cores.

        Raises:
            ShapeError: the last dimension is not ``output_dim``.
            InputError: the inputs are complex, sparse or ragged.
        """
        rows = as_rows(real(inputs, self.compute_dtype), self.output_dim, self.shape.head)
        if self.frozen is not None and self.frozen.plans is not None:
            dropped = self.shape.head.out_features - self.input_dim
            return as_leading(self.frozen.product(rows, None, (0, dropped)), inputs)
        cores = [tf.cast(tf.convert_to_tensor(core), self.compute_dtype) for core in self.cores]
        transposed = [tf.transpose(core, (0, 2, 1, 3)) for core in cores]
        logits = apply(self.plans(rows.shape[0]), rows, transposed)
        return as_leading(logits[:, : self.input_dim], inputs)

    def compute_mask(self, inputs: Array, previous_mask: Any = None) -> Array | None:
        """The integer tokens that are not 0, if ``mask_zero``; no mask for an output head."""
        tokens = "int" in keras.backend.standardize_dtype(inputs.dtype)
        return keras.ops.not_equal(inputs, 0) if self.mask_zero and tokens else None

    def compute_output_spec(self, inputs: Array, reverse: bool = False) -> keras.KerasTensor:
        """``(...)`` to ``(..., output_dim)``.

        With ``reverse``, ``(..., output_dim)`` to ``(..., input_dim)``.
        """
        known = tuple(inputs.shape)
        shape = (*known[:-1], self.input_dim) if reverse else (*known, self.output_dim)
        return keras.KerasTensor(shape, self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """``(...)`` to ``(..., output_dim)``."""
        return (*input_shape, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        mpo = self.shape.mpo
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "bond": mpo.bond_dims[1:-1],
            "mask_zero": self.mask_zero,
            "input_dims": mpo.input_dims,
            "output_dims": mpo.output_dims,
            "initializer": self.initializer,
            "seed": self.seed,
            "memory": self.memory,
            **_renamed(self.options.config(), "kernel_", "embeddings_"),
        }

    def __repr__(self) -> str:
        if not self.built:
            return f"<MPOEmbedding name={self.name}, {self.shape}, built=False>"
        return f"<MPOEmbedding name={self.name}, {self._description('use_bias')}, mask_zero={self.mask_zero}>"


def _renamed(arguments: dict[str, Any], before: str, after: str) -> dict[str, Any]:
    """The options for the table under other names; they are taken out of the arguments."""
    found = [name for name in arguments if name.startswith(before)]
    return {name.replace(before, after): arguments.pop(name) for name in found}

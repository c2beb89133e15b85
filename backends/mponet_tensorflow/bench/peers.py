"""What `mponet bench` compares our layer with.

Other ways to apply the same operator, written here or by others.

Packages are imported when a layer of theirs is made.
"""

from functools import cache, partial

from mponet.bench.implementation import Implementation, Numbers, bare, einsum_expression, low_rank, paper_matrices
from mponet.errors import ShapeError
from mponet.operators.mpo import MPO
from mponet_tensorflow.ops.arrays import Array, keras, tf


class LowRank(keras.Sequential):
    """Two dense layers with as many parameters as the operator: another map, for orientation."""

    @classmethod
    def of(cls, mpo: MPO, bias: Numbers) -> "LowRank":
        """At the rank of `low_rank`."""
        shape, rank = mpo.shape, low_rank(mpo.shape)
        layers = keras.layers.Dense(rank, use_bias=False), keras.layers.Dense(shape.out_features)
        return cls([keras.Input((shape.in_features,)), *layers])


class Sweep(tf.Module):
    """The authors' own way.

    From the first core to the last, the rest of the input after it, one transposition per core.
    """

    def __init__(self, mpo: MPO, bias: Numbers) -> None:
        super().__init__()
        self.output_dims = mpo.shape.output_dims
        self.matrices = [_parameter(matrix) for matrix in paper_matrices(mpo)]
        self.bias = _parameter(bias)

    def __call__(self, inputs: Array) -> Array:
        """``inputs @ W + b``."""
        state = tf.transpose(inputs)
        for matrix, output in zip(self.matrices, self.output_dims, strict=True):
            state = matrix @ tf.reshape(state, (matrix.shape[1], -1))
            state = tf.transpose(tf.reshape(state, (output, -1)))
        return tf.reshape(state, (inputs.shape[0], -1)) + self.bias


class Einsum(tf.Module):
    """One Einstein sum along the best path that a package finds."""

    def __init__(self, mpo: MPO, bias: Numbers, package: str) -> None:
        super().__init__()
        self.dims = mpo.shape.input_dims
        self.cores = [_parameter(core) for core in bare(mpo)]
        self.bias = _parameter(bias)
        self.expression = cache(lambda batch: einsum_expression(mpo.shape, batch, package))

    def __call__(self, inputs: Array) -> Array:
        """``inputs @ W + b``."""
        batch = inputs.shape[0]
        cores = [tf.convert_to_tensor(core) for core in self.cores]
        outputs = self.expression(batch)(tf.reshape(inputs, (batch, *self.dims)), *cores)
        return tf.reshape(outputs, (batch, -1)) + self.bias


def dense_mpo(mpo: MPO, bias: Numbers) -> keras.layers.Layer:
    """The layer of TensorNetwork, with nodes ``(input, left, right, output)``.

    Boundary axes are left out.
    """
    shape = mpo.shape
    bonds = shape.bond_dims[1:-1]
    if shape.sites < 3:
        raise ShapeError("takes 3 nodes at least")
    if len(set(shape.input_dims)) > 1 or len(set(shape.output_dims)) > 1:
        raise ShapeError("takes sizes that are perfect powers only, all factors alike")
    if len(set(bonds)) > 1:
        raise ShapeError(f"takes one bond dimension for all; here they are {bonds}")
    from tensornetwork.tn_keras.layers import DenseMPO

    layer = DenseMPO(shape.out_features, shape.sites, bonds[0])
    layer.build((None, shape.in_features))
    for node, core in zip(layer.nodes, mpo.cores, strict=True):
        node.assign(core.transpose(1, 0, 3, 2).reshape(node.shape))
    layer.bias_var.assign(bias)
    return layer


def _parameter(values: Numbers) -> tf.Variable:
    return tf.Variable(values, dtype=tf.float32)


PEERS = (
    Implementation("low rank", "other", LowRank.of),
    Implementation("paper's sweep", "peer", Sweep),
    Implementation("opt_einsum", "peer", partial(Einsum, package="opt_einsum"), ("opt-einsum",)),
    Implementation("cotengra", "peer", partial(Einsum, package="cotengra"), ("cotengra", "autoray")),
    Implementation("DenseMPO", "peer", dense_mpo, ("tensornetwork",)),
)

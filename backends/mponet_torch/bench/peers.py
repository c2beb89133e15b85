"""What `mponet bench` compares our layer with.

Other ways to apply the same operator, written here or by others.

Packages are imported when a layer of theirs is made.
"""

from contextlib import redirect_stdout
from functools import cache, partial
from io import StringIO
from typing import Any

import torch
from torch import nn

from mponet.bench.implementation import Implementation, Numbers, bare, einsum_expression, low_rank, paper_matrices
from mponet.errors import ShapeError
from mponet.operators.mpo import MPO
from mponet_torch.ops.arrays import Array

TENSORLY = ("tensorly-torch", "tensorly")


class LowRank(nn.Sequential):
    """Two dense layers with as many parameters as the operator: another map, for orientation."""

    @classmethod
    def of(cls, mpo: MPO, bias: Numbers) -> "LowRank":
        """At the rank of `low_rank`."""
        shape, rank = mpo.shape, low_rank(mpo.shape)
        return cls(nn.Linear(shape.in_features, rank, bias=False), nn.Linear(rank, shape.out_features))


class Sweep(nn.Module):
    """The authors' own way.

    From the first core to the last, the rest of the input after it, one transposition per core.
    """

    def __init__(self, mpo: MPO, bias: Numbers) -> None:
        super().__init__()
        self.outputs = mpo.shape.output_dims
        self.matrices = nn.ParameterList(_parameter(matrix) for matrix in paper_matrices(mpo))
        self.bias = _parameter(bias)

    def forward(self, inputs: Array) -> Array:
        """``inputs @ W + b``."""
        state = inputs.T
        for matrix, output in zip(self.matrices, self.outputs, strict=True):
            state = matrix @ state.reshape(matrix.shape[1], -1)
            state = state.reshape(output, -1).T
        return state.reshape(inputs.shape[0], -1) + self.bias


class Einsum(nn.Module):
    """One Einstein sum along the best path that a package finds."""

    def __init__(self, mpo: MPO, bias: Numbers, package: str) -> None:
        super().__init__()
        self.dims = mpo.shape.input_dims
        self.cores = nn.ParameterList(_parameter(core) for core in bare(mpo))
        self.bias = _parameter(bias)
        self.expression = cache(lambda batch: einsum_expression(mpo.shape, batch, package))

    def forward(self, inputs: Array) -> Array:
        """``inputs @ W + b``."""
        batch = inputs.shape[0]
        outputs: Array = self.expression(batch)(inputs.reshape(batch, *self.dims), *self.cores)
        return outputs.reshape(batch, -1) + self.bias


def tensorly(mpo: MPO, bias: Numbers, implementation: str) -> nn.Module:
    """The layer of tensorly-torch, its factors ``(left, output, input, right)``."""
    import tltorch

    shape = mpo.shape
    layer: Any = tltorch.FactorizedLinear(
        shape.input_dims,
        shape.output_dims,
        factorization="blocktt",
        rank=shape.bond_dims,
        implementation=implementation,
    )
    with torch.no_grad():
        for factor, core in zip(layer.weight.factors, mpo.cores, strict=True):
            factor.copy_(torch.tensor(core.transpose(0, 2, 1, 3)))
        layer.bias.copy_(torch.tensor(bias))
    made: nn.Module = layer
    return made


def tednet(mpo: MPO, bias: Numbers) -> nn.Module:
    """The layer of tednet, its nodes ``(input, output, left, right)``, boundary axes left out."""
    from tednet.tnn.tensor_train import TTLinear

    shape = mpo.shape
    if shape.sites < 2:
        raise ShapeError(f"operator is {shape}; expected at least 2 sites")
    with redirect_stdout(StringIO()):  # it prints when it is made
        layer: Any = TTLinear(list(shape.input_dims), list(shape.output_dims), list(shape.bond_dims[1:-1]))
    with torch.no_grad():
        for k, core in enumerate(mpo.cores):
            node = getattr(layer, f"node{k}")
            node.copy_(torch.tensor(core.transpose(1, 2, 0, 3).reshape(node.shape)))
        layer.bias.copy_(torch.tensor(bias))
    made: nn.Module = layer
    return made


def _parameter(values: Numbers) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32))


PEERS = (
    Implementation("low rank", "other", LowRank.of),
    Implementation("paper's sweep", "peer", Sweep),
    Implementation("opt_einsum", "peer", partial(Einsum, package="opt_einsum"), ("opt-einsum",)),
    Implementation("cotengra", "peer", partial(Einsum, package="cotengra"), ("cotengra", "autoray")),
    Implementation("tensorly factorized", "peer", partial(tensorly, implementation="factorized"), TENSORLY),
    Implementation("tensorly reconstructed", "peer", partial(tensorly, implementation="reconstructed"), TENSORLY, True),
    Implementation("tednet", "peer", tednet, ("tednet",)),
)

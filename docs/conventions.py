"""Checks the conventions of the other libraries that are installed.

Usage: ``python docs/conventions.py``.

For each library of `mponet.operators.convert.CONVENTIONS` that can be imported: an operator is
written to it, the library computes its dense matrix, and the cores are read back.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from mponet import MPO
from mponet.operators.convert import CONVENTIONS, from_library, to_library


def quimb(cores: list[Any]) -> tuple[Any, Any]:
    """Its operator acts on kets, which are columns: the upper indices are the outputs."""
    operator = import_module("quimb.tensor").MatrixProductOperator(cores)
    return operator, operator.to_dense()


def t3f(cores: list[Any]) -> tuple[Any, Any]:
    """A TT-matrix, used as ``x @ W`` by its layer."""
    module = import_module("t3f")
    operator = module.TensorTrain([import_module("tensorflow").constant(core) for core in cores])
    return operator, module.full(operator).numpy()


def tensorkrowch(cores: list[Any]) -> tuple[Any, Any]:
    """A network: contracted with each unit vector."""
    torch = import_module("torch")
    operator = import_module("tensorkrowch").models.MPO(tensors=[torch.tensor(core) for core in cores])
    dims = [core.shape[0] if k == 0 else core.shape[1] for k, core in enumerate(cores)]
    rows = np.indices(dims).reshape(len(dims), -1).T
    units = [torch.eye(dim, dtype=torch.float64)[rows[:, k]] for k, dim in enumerate(dims)]
    operator.set_data_nodes()
    operator.auto_stack = operator.auto_unbind = False
    return operator, operator(units).detach().reshape(len(rows), -1).numpy()


def tensorly(cores: list[Any]) -> tuple[Any, Any]:
    """A TT-matrix."""
    operator = import_module("tensorly.tt_matrix").TTMatrix(cores)
    return operator, operator.to_matrix()


def tensorly_torch(cores: list[Any]) -> tuple[Any, Any]:
    """The weight of a layer, ``(out_features, in_features)`` as PyTorch keeps weights."""
    torch = import_module("torch")
    block = import_module("tltorch").factorized_tensors.BlockTT
    shape = tuple(core.shape[1] for core in cores), tuple(core.shape[2] for core in cores)
    operator = block([torch.tensor(core) for core in cores], tensorized_shape=shape)
    return operator, operator.to_matrix().detach().numpy()


def tensornetwork(cores: list[Any]) -> tuple[Any, Any]:
    """Its DMRG applies a core to a state as (left, right, new, old)."""
    operator = import_module("tensornetwork").FiniteMPO(cores, backend="numpy")
    chain = operator.tensors[0]
    for core in operator.tensors[1:]:
        chain = np.einsum("aboi,bcpj->acopij", chain, core).reshape(
            chain.shape[0], core.shape[1], chain.shape[2] * core.shape[2], chain.shape[3] * core.shape[3]
        )
    return operator, chain[0, 0]


def torchtt(cores: list[Any]) -> tuple[Any, Any]:
    """A TT-matrix that acts on column vectors."""
    torch = import_module("torch")
    operator = import_module("torchtt").TT([torch.tensor(core) for core in cores])
    rows = int(np.prod([core.shape[1] for core in cores]))
    return operator, operator.full().numpy().reshape(rows, -1)


CHECKS: dict[str, Callable[[list[Any]], tuple[Any, Any]]] = {
    "quimb": quimb,
    "t3f": t3f,
    "tensorkrowch": tensorkrowch,
    "tensorly": tensorly,
    "tensorly-torch": tensorly_torch,
    "tensornetwork": tensornetwork,
    "torchtt": torchtt,
}


def main() -> None:
    """One line for each library: its version, and the largest error of both ways."""
    matrix = np.random.default_rng(0).normal(size=(24, 30))
    mpo = MPO.from_matrix(matrix, (2, 3, 4), (5, 3, 2))
    for library, check in CHECKS.items():
        try:
            release = version(library)
            operator, dense = check(to_library(library, mpo))
        except (ImportError, PackageNotFoundError) as error:
            print(f"{library}: not checked ({error})")
            continue
        dense = dense.T if CONVENTIONS[library].matrix == "W.T" else dense
        back = from_library(library, operator, matrix=matrix)
        errors = np.abs(dense - matrix).max(), np.abs(back.to_matrix() - matrix).max()
        print(f"{library} {release}: written {errors[0]:.0e}, read {errors[1]:.0e}")


if __name__ == "__main__":
    main()

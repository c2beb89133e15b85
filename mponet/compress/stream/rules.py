"""Which tensors of a checkpoint are matrices, told by names, shapes and configuration alone.

No model is built, so a rule reads what a file says: ``<module>.weight`` with two axes is a linear
layer ``(out, in)`` unless its name or the configuration says otherwise.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mponet.compress.stream.header import FLOATS
from mponet.compress.stream.sources import Source, open_source
from mponet.compress.target import Kind, Target

#: Last part of the name of a module that looks rows up.
EMBEDDING = re.compile(r"(.*[._])?(embed\w*|embd|wte|wpe|emb|\w*embeddings?)")
#: Model types of Hugging Face whose linear layers keep ``(in, out)``.
CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
CONV1D = re.compile(r".*\.(c_attn|c_proj|c_fc|q_attn)")
WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class Matrix:
    """A tensor as a matrix.

    Attributes:
        module: name of the module, the tensor's without ``.weight``.
        tensor: name of the tensor.
        kind: of the module.
        transposed: whether the tensor is ``(out, in)``.
        why_not: why it is left alone; empty if it may be replaced.
    """

    module: str
    tensor: str
    kind: Kind
    transposed: bool
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Loader:
    """Reads one tensor as a float64 matrix ``(in, out)``.

    It opens the file itself, so it can be pickled.
    """

    source: Path
    tensor: str
    transposed: bool

    def __call__(self) -> NDArray[np.float64]:
        """The matrix."""
        values = _opened(self.source).read(self.tensor)
        return values.T if self.transposed else values


@lru_cache(maxsize=2)
def _opened(path: Path) -> Source:
    return open_source(path)


def matrices(source: Source, config: Mapping[str, Any]) -> tuple[Matrix, ...]:
    """Every tensor of a checkpoint that is the weight of a module.

    Args:
        source: the checkpoint.
        config: the folder's ``config.json``; empty if there is none.
    """
    found = []
    for name, entry in source.entries.items():
        if not name.endswith(WEIGHT) or len(entry.shape) < 2:
            continue
        module = name.removesuffix(WEIGHT)
        kind: Kind = "embedding" if EMBEDDING.fullmatch(module) else "linear"
        why_not = "" if entry.dtype in FLOATS else f"dtype {entry.dtype} holds no plain numbers"
        if len(entry.shape) > 2:
            kind, why_not = "convolution", "convolutions are compressed in a framework, where their strides are known"
        elif kind == "embedding":
            why_not = "embeddings are compressed in a framework, where their use is known"
        found.append(Matrix(module, name, kind, kind == "linear" and is_transposed(module, config), why_not))
    return tuple(found)


def is_transposed(module: str, config: Mapping[str, Any]) -> bool:
    """Whether a linear module keeps its weight as ``(out, in)``.

    Args:
        module: its name.
        config: the folder's ``config.json``; empty if there is none.
    """
    return str(config.get("model_type")) not in CONV1D_MODELS or CONV1D.fullmatch(module) is None


def targets(source: Source, found: Iterable[Matrix]) -> tuple[Target, ...]:
    """The matrices as `mponet.compress` sees them."""
    return tuple(_target(source, matrix) for matrix in found)


def _target(source: Source, matrix: Matrix) -> Target:
    entry = source.entries[matrix.tensor]
    first, rest = entry.shape[0], max(entry.size // max(entry.shape[0], 1), 1)
    rows, columns = (rest, first) if matrix.transposed or matrix.kind == "convolution" else (first, rest)
    bias = f"{matrix.module}.bias"
    return Target(
        name=matrix.module,
        kind=matrix.kind,
        type_name="tensor",
        in_features=rows,
        out_features=columns,
        load=Loader(source.path, matrix.tensor, matrix.transposed),
        load_bias=Loader(source.path, bias, False) if bias in source.entries else None,
        itemsize=max(entry.nbytes // max(entry.size, 1), 1),
        unsupported=matrix.why_not,
    )

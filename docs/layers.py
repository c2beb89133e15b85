"""Makes docs/layers.md from what the contract suite runs.

Python docs/layers.py > docs/layers.md.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from contract.uses import FRAMEWORKS, USES, cells

HEAD = """# Layers in place of others

`MPOLinear` stands in for `torch.nn.Linear` and `flax.nnx.Linear`, `MPODense` for
`keras.layers.Dense`. `NetworkLinear` and `NetworkDense` do the same with any tensor network. All of
them offer the same methods:

| method | what it does |
| --- | --- |
| `from_dense(layer)` | the nearest operator to a trained dense layer, with its dtype, device and mode |
| `from_matrix(matrix, input_dims, output_dims)` | the nearest operator to a matrix |
| `from_mpo(mpo, bias)`, `from_nodes(nodes, bias)` | the layer of an operator |
| `to_dense()`, `to_matrix()`, `to_mpo()`, `to_nodes()` | the way back |
| `assign(operator, bias)` | overwrite the numbers; nothing changes if a shape does not fit |
| `plans(batch)`, `explain(batch)` | how a batch of so many rows is computed, and why |

## What is tested

The table lists what a layer must survive where it replaces a dense one. Every cell with a check
mark is a test that runs for every kind of layer (`tests/backends/test_contract.py`); a number
refers to the notes below, and an empty cell is not tested yet."""

TORCH = """## Notes for PyTorch

**`layer.weight`** is the dense matrix `(out_features, in_features)`, for modules that read it:
`nn.TransformerEncoderLayer`, `nn.MultiheadAttention`, T5. Shape, dtype and device cost nothing; any
other use builds the matrix, with gradients that reach the cores. Writes raise `InputError`, because
they would not reach the cores.

**State dicts** hold the cores, the bias, and under the name `weight` the two sizes of the layer. A
dense model therefore refuses the file with a size mismatch. Without it,
`transformers.from_pretrained` would fill the missing weights with random numbers and only log it.
Tools that load a checkpoint key by key into a model that already holds operators (`accelerate`)
should leave this key out.

**`AutoModel.from_pretrained`** of a model that makes operators in its `__init__` works: layers
built on the meta device draw no numbers, and what a checkpoint lacks gets the starting values of
`reset_parameters`.

**PEFT** does not know the layer and has a door for such layers:

    config = peft.LoraConfig(target_modules=["fc1"])
    config._register_custom_module({MPOLinear: peft.tuners.lora.Linear})

Merging such an adapter is refused; merge into `layer.to_dense()` and convert again.

**`torch.fx.symbolic_trace`** records the layer as one node, as it does with layers of torch.

**Sources of `from_dense`**: `nn.Linear` and subclasses that compute what their weight and bias
say (a subclass with a `forward` of its own is tried on four rows), `Conv1D` of `transformers`, and
1x1 convolutions, whose matrix acts on the last axis of the inputs. Quantised layers, layers with
adapters, lazy layers without weights and layers on the meta device are refused."""


def page() -> Iterator[str]:
    """Lines of the page."""
    yield from HEAD.splitlines()
    yield ""
    yield f"| use | {' | '.join(FRAMEWORKS.values())} |"
    yield f"| --- |{' --- |' * len(FRAMEWORKS)}"
    reasons: list[str] = []
    for use, row in cells().items():
        marks = []
        for framework, cell in row.items():
            if cell in ("", "tested"):
                marks.append("✓" if cell else "")
                continue
            reason = f"{FRAMEWORKS[framework]}: {cell}"
            if reason not in reasons:
                reasons.append(reason)
            marks.append(f"[{reasons.index(reason) + 1}]")
        yield f"| {USES[use]} | {' | '.join(marks)} |"
    yield ""
    yield from (f"{number}. {reason}" for number, reason in enumerate(reasons, start=1))
    if reasons:
        yield ""
    yield from TORCH.splitlines()


if __name__ == "__main__":
    print("\n".join(page()))

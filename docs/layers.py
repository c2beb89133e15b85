"""Makes docs/layers.md from what the contract suite runs.

Python docs/layers.py > docs/layers.md.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from contract.uses import FRAMEWORKS, USES, cells

HEAD = """# Layers in place of others

`MPOLinear` replaces `torch.nn.Linear` and `flax.nnx.Linear`, `MPODense` replaces
`keras.layers.Dense`. `NetworkLinear` and `NetworkDense` do the same with any tensor network.
`MPOConv1d`, `MPOConv2d`, `MPOConv`, `MPOConv1D` and `MPOConv2D` replace convolutions,
`MPOEmbedding` and `MPOEmbed` embeddings. All of them offer the same methods:

| method | what it does |
| --- | --- |
| `from_dense(layer)` | the nearest operator to a trained dense layer, with its dtype, device and mode |
| `from_matrix(matrix, input_dims, output_dims)` | the nearest operator to a matrix |
| `from_mpo(mpo, bias)`, `from_nodes(nodes, bias)` | the layer of an operator |
| `to_dense()`, `to_matrix()`, `to_mpo()`, `to_nodes()` | the way back |
| `assign(operator, bias)` | overwrite the numbers; nothing changes if a shape does not fit |
| `plans(batch)`, `explain(batch)` | how a batch of so many rows is computed, and why |

## Sizes that factor badly

A prime, or a size with a large prime factor, gives cores that are far from square. Such a side is
padded by zeros to a size that factors well:

```python
from mponet_torch import MPOLinear

layer = MPOLinear(127, 113, bond=8)
print(layer.in_features, layer.out_features, layer.shape, layer.padding)
# 127 113 M^{13,9}_{13,10}(8) (3, 4)
```

The layer appends 3 zeros to its inputs and drops the last 4 outputs. `to_matrix`, `to_dense`,
`weight` and `kernel` have the sizes of the layer; `shape`, `to_mpo` and the parameters are those of
the padded operator. The three frameworks choose the same factors. Plans count the products with the
padded operator, and `explain` says how much of them is padding.

- `padding=(0, 0)` pads nothing, `padding=(3, 4)` pads so much; with factors, as in
  `MPOLinear((13, 10), (13, 9), 8, padding=(3, 4))`, it says how much of them is padding.
- `objective="parameters"` or `"multiplications"` takes the factors with the fewest weights or
  multiplications in place of balanced ones. `mponet.choose_factors` is the same choice without a
  layer.
- A layer with more weights than the dense one gives a `SizeWarning` that says what would help.

## What is tested

The table lists what a layer must survive where it replaces a dense one. Every check mark is a test
that runs for every kind of layer (`tests/backends/test_contract.py`): linear layers, those with
padding, tensor networks, convolutions of one and two axes, embeddings, and output heads of the same
cores. A number refers to a note below: why the framework, or one kind of layer, does not have the
use."""

ENDURANCE = """`python benchmarks/layer_endurance.py` calls one layer of every kind by eight threads, compares
each result with the dense layer's, and takes the memory of the process between the first quarter
and the last of 20 000 sizes of batch, and of 2 000 layers that are made, called and dropped.
PyTorch runs eagerly, JAX and Keras run compiled functions. The dense layer of the framework goes
the same way: what its memory grows by is the framework's own. Keras does
not free about 36 kB of each `keras.Variable`: a layer with four of them leaves twice as much as one
with two."""

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


#: Reported faults of layers that replace others, and the test that shows the right value; without
#: a file it is a use of the contract.
FAULTS = (
    (
        "01",
        "Two calls of one layer before the backward pass",
        "backends/test_torch_memory.py",
        "test_two_calls_of_any_plan_live_side_by_side",
    ),
    (
        "02",
        "One layer, eight threads, any batch sizes",
        "backends/test_torch_memory.py",
        "test_threads_with_any_batch_and_any_mode_are_served_right",
    ),
    ("04, 19", "Forward-mode derivatives", "", "forward_mode"),
    ("05, 06", "Complex numbers are refused", "", "odd_inputs"),
    ("07", "FSDP2", "", "sharded"),
    ("08", "The meta device, fake tensors", "", "without_numbers"),
    ("09", "Readers of `weight`", "", "weight_readers"),
    ("10, 11", "`torch.jit.trace`, `torch.fx.symbolic_trace`", "", "traced"),
    ("13", "float64 under autocast", "", "mixed_precision"),
    ("15", "Nested tensors", "", "odd_inputs"),
    ("16", "`jax.shard_map` with its defaults", "", "sharded"),
    (
        "21",
        "Quantised Keras layers",
        "backends/test_tensorflow_options.py",
        "test_an_int8_layer_is_read_with_its_scale",
    ),
    (
        "22",
        "Regularisers, constraints and initialisers of Keras",
        "backends/test_tensorflow_options.py",
        "test_options_survive_the_config",
    ),
    (
        "23",
        "Parameters and 16-bit tensors of PyTorch",
        "backends/test_torch_layer.py",
        "test_doors_take_parameters_of_torch_in_any_dtype",
    ),
    ("24", "Cores of other libraries", "core/test_convert.py", "test_a_library_gets_the_matrix_and_gives_it_back"),
    ("25", "Planning of many sites", "core/test_scores.py", "test_planning_makes_few_plans_however_many_there_are"),
    ("26", "Decomposing a large matrix", "core/test_svd.py", "test_few_values_are_found_without_all_of_them"),
    ("29", "Copy nodes stay fixed", "backends/test_network_layers.py", "test_a_copy_node_is_not_trained"),
    ("30", "Frozen layers stay frozen", "", "kept"),
    ("33", "LAPACK does not converge", "core/test_svd.py", "test_another_driver_takes_over"),
    ("34", "PEFT's LoRA", "", "adapters"),
    (
        "35, 42",
        "`from_pretrained` of Hugging Face",
        "backends/test_torch_transformers.py",
        "test_trained_saved_and_loaded",
    ),
    ("40, 45", "Compiled inference, compiled first", "", "compiled"),
    (
        "41",
        "A sharded batch on explicit and automatic meshes",
        "backends/test_jax_sharding.py",
        "test_four_devices",
    ),
    (
        "43",
        "More weights than the dense layer",
        "core/test_padding.py",
        "test_more_weights_than_the_matrix_are_announced",
    ),
    ("44", "Messages for ordinary mistakes", "", "sources"),
)


def faults() -> Iterator[str]:
    """The section of reported faults."""
    yield "## Reported faults and their tests"
    yield ""
    yield "What public reports say of layers that replace others, and the test that fails where it does."
    yield "The numbers are those of the scripts that showed the faults."
    yield ""
    yield "| case | fault | test |"
    yield "| --- | --- | --- |"
    for number, what, file, test in FAULTS:
        place = (
            f"`tests/{file}`: {test.removeprefix('test_').replace('_', ' ')}"
            if file
            else f"the table above: {USES[test]}"
        )
        yield f"| {number} | {what} | {place} |"
    yield ""


def endurance() -> Iterator[str]:
    """The section of many calls, from the figures of benchmarks/layer_endurance.py."""
    file = Path(__file__).parent / "measured" / "endurance.json"
    if not file.exists():
        return
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    yield "## Endurance"
    yield ""
    yield from ENDURANCE.splitlines()
    yield ""
    yield "| framework | layer | calls | wrong or raised | sizes of batch | MB | layers | MB |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        cells = [FRAMEWORKS[row["backend"]], row["layer"], row["calls"], row["faults"]]
        for name in ("sizes", "layers"):
            memory = row[f"megabytes over {name}"]
            cells += [row[name], f"{memory[-1] - memory[0]:+.0f}"]
        yield "| " + " | ".join(map(str, cells)) + " |"
    yield ""


def page() -> Iterator[str]:
    """Lines of the page."""
    yield from HEAD.splitlines()
    yield ""
    yield f"| use | {' | '.join(FRAMEWORKS.values())} |"
    yield f"| --- |{' --- |' * len(FRAMEWORKS)}"
    reasons: list[str] = []
    for use, row in cells().items():
        marks = []
        for tested, why in row.values():
            for reason in why:
                if reason not in reasons:
                    reasons.append(reason)
            notes = " ".join(f"[{reasons.index(reason) + 1}]" for reason in why)
            marks.append(f"{'✓ ' if tested else ''}{notes}".strip())
        yield f"| {USES[use]} | {' | '.join(marks)} |"
    yield ""
    yield from (f"{number}. {reason}" for number, reason in enumerate(reasons, start=1))
    if reasons:
        yield ""
    yield from faults()
    yield from endurance()
    yield from TORCH.splitlines()


if __name__ == "__main__":
    print("\n".join(page()))

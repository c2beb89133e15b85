"""What the ``config.json`` of a compressed Hugging Face model says of its operators.

`transformers` hands the entry ``quantization_config`` to the method that it names, which
`mponet_torch` registers; ``from_pretrained`` then builds the operators before it reads weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mponet.compress.layer_plan import LayerPlan

#: Name of the entry in ``config.json``.
ENTRY = "quantization_config"
METHOD, VERSION = "mponet", 1


def config_entry(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The entry of a model.

    Args:
        layers: what `operator_entry` gives, by the name of the layer.
    """
    return {"quant_method": METHOD, "version": VERSION, "layers": dict(layers)}


def is_entry(entry: Any) -> bool:
    """Whether a ``quantization_config`` is one of ours."""
    return isinstance(entry, Mapping) and entry.get("quant_method") == METHOD


def operator_entry(layer: LayerPlan, bonds: Sequence[int], tied: Iterable[str] = ()) -> dict[str, Any]:
    """What it takes to build one operator again, as JSON has it.

    Args:
        layer: its row in the plan.
        bonds: inner bonds as they are now.
        tied: names of the modules that share the operator.
    """
    assert layer.layout is not None
    return {
        "kind": layer.kind,
        "weights": layer.dense_weights,
        "structure": layer.layout.structure,
        "input_dims": list(layer.layout.input_dims),
        "output_dims": list(layer.layout.output_dims),
        "bonds": list(bonds),
        "input_axes": list(layer.layout.input_axes),
        "input_order": list(layer.layout.input_order),
        "tied": list(tied),
    }

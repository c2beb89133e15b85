"""Changes of one layer of a plan by hand."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from mponet.compress.layer_plan import LayerPlan
from mponet.compress.speed import speedup, use_multiplications
from mponet.compress.structures import Layout
from mponet.errors import CompressionError
from mponet.operators.shape import MPOShape, inner_bonds

CHANGES = ("bond", "input_dims", "output_dims", "dense")


def edited(layer: LayerPlan, changes: Mapping[str, Any]) -> LayerPlan:
    """The layer with the changes; predictions that they make void are None.

    Raises:
        CompressionError: a change is unknown, does not fit, or the layer cannot be replaced.
        ShapeError: bonds and factors do not fit together.
    """
    unknown = sorted(set(changes) - set(CHANGES))
    if unknown or not changes:
        raise CompressionError(f"changes are {', '.join(changes) or 'none'}; expected some of {', '.join(CHANGES)}")
    if changes.get("dense"):
        return dense(layer, "left dense by hand")
    if not layer.matched:
        raise CompressionError(f"{layer.name} cannot be replaced: {layer.reason}")
    layout = _layout(layer, changes)
    bond = changes.get("bond", layer.bonds or None)
    if bond is None:
        raise CompressionError(f"{layer.name} has no bond yet; expected bond= with the factors")
    return operator(layer, layout, inner_bonds(bond, len(layout.input_dims)))


def operator(layer: LayerPlan, layout: Layout, bonds: tuple[int, ...]) -> LayerPlan:
    """The layer replaced by an operator; its errors are unknown."""
    shape = layout.shape(bonds)
    return replace(
        layer,
        layout=layout,
        bonds=shape.bond_dims[1:-1],
        reason="",
        multiplications=counted(layer, shape),
        output_error=None,
        loss=None,
        speed=speedup(shape) if layer.kind == "linear" else None,
        measured=None,
    )


def dense(layer: LayerPlan, reason: str) -> LayerPlan:
    """The layer left as it is."""
    count = layer.dense_multiplications
    return replace(
        layer, layout=None, bonds=(), reason=reason, multiplications=count, output_error=0.0, loss=0.0, speed=1.0
    )


def follow(layer: LayerPlan, owner: LayerPlan) -> LayerPlan:
    """A tied layer after the one that it is tied to has changed."""
    shape = owner.shape
    count = layer.dense_multiplications if shape is None else counted(layer, shape)
    return replace(layer, multiplications=count, output_error=None if owner.replaced else 0.0)


def counted(layer: LayerPlan, shape: MPOShape) -> int:
    """Multiplications of an operator for one example of a layer."""
    return use_multiplications(shape, layer.kind, layer.positions)


def _layout(layer: LayerPlan, changes: Mapping[str, Any]) -> Layout:
    given = [name for name in ("input_dims", "output_dims") if name in changes]
    if not given:
        if layer.layout is None:
            raise CompressionError(f"{layer.name} is dense; expected input_dims= and output_dims= with the bond")
        return layer.layout
    if len(given) == 1:
        raise CompressionError(f"only {given[0]} is given; expected input_dims and output_dims together")
    inputs, outputs = tuple(changes["input_dims"]), tuple(changes["output_dims"])
    if prod(inputs) * prod(outputs) != layer.dense_weights:
        raise CompressionError(
            f"{inputs} and {outputs} multiply to {prod(inputs) * prod(outputs)}; expected the {layer.dense_weights} "
            f"weights of {layer.name}"
        )
    return Layout("given", inputs, outputs)

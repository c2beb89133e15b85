"""``mponet info``: what a network is made of."""

from typing import Any

import click

from mponet import models
from mponet.cli.output import bond_option, count, dimensions, emit, json_option, model_argument, people, variant_option
from mponet.measure import whole_ratio
from mponet.models import infer
from mponet.models.infer import LayerInfo
from mponet.models.layers import Dense, Model
from mponet.plan import USUAL_BATCH, choose


@click.command(
    epilog="""\b
Examples:
  mponet info fc2                    the published bonds
  mponet info fc2 --bond 8           another bond dimension
  mponet info lenet5 --variant dense --json
"""
)
@model_argument
@variant_option
@bond_option
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=USUAL_BATCH,
    show_default=True,
    help="Images at a time that the plans are for.",
)
@json_option
def info(model: str, variant: str, bond: int | None, batch: int, as_json: bool) -> None:
    """Show the layers, counts and compression ratios of a network.

    Counts of parameters include biases.  rho is the compression ratio of the paper (Eq. 9): weights of the operators
    over weights of the layers that they replace, biases left out.
    """
    facts = describe(models.build(model, variant, bond), batch)
    emit(facts) if as_json else _show(facts)


def describe(model: Model, batch: int) -> dict[str, Any]:
    """Everything there is to say about a network, for JSON.

    Args:
        model: the network.
        batch: examples at a time that the plans are chosen for.
    """
    dense = models.build(model.name, "dense")
    parameters = infer.parameter_count(model)
    return {
        "model": model.name,
        "variant": model.variant,
        "bond": model.bond,
        "source": model.source,
        "input_shape": model.input_shape,
        "parameters": parameters,
        "weights": sum(_weights(layer) for layer in infer.layers(model)),
        "rho": infer.rho(model),
        "whole_ratio": whole_ratio(parameters, infer.parameter_count(dense)),
        "dense_parameters": infer.parameter_count(dense),
        "batch": batch,
        "layers": [_layer(layer, batch) for layer in infer.layers(model)],
    }


def _layer(layer: LayerInfo, batch: int) -> dict[str, Any]:
    facts = {
        "name": getattr(layer.layer, "name", None),
        "kind": layer.kind,
        "input_shape": layer.input_shape,
        "output_shape": layer.output_shape,
        "parameters": layer.size,
        "multiplications": layer.multiplications,
    }
    return {**facts, **_operator(layer, batch)} if isinstance(layer.layer, Dense) and layer.mpo else facts


def _operator(layer: LayerInfo, batch: int) -> dict[str, Any]:
    """What only an operator has; multiplications are for one example, merging its cores is once per batch."""
    shape = layer.mpo
    assert shape is not None
    plan = choose(shape, batch, training=False)
    return {
        "notation": str(shape),
        "input_dims": shape.input_dims,
        "output_dims": shape.output_dims,
        "bond_dims": shape.bond_dims,
        "mpo_weights": shape.parameters,
        "replaced_weights": infer.replaced_weights(layer),
        "plan": str(plan),
        "plan_multiplications": plan.sweep_multiplications,
        "plan_merge_multiplications": plan.merge_multiplications,
    }


def _weights(layer: LayerInfo) -> int:
    """Parameters that are no biases."""
    return layer.size - sum(shape[0] for name, shape in layer.parameters.items() if name.endswith("/bias"))


def _show(facts: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("layer", "kind"):
        table.add_column(heading, no_wrap=True)
    for heading in ("output", "parameters", "products"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("" if facts["rho"] is None else "operator and plan")
    for layer in facts["layers"]:
        table.add_row(*_row(layer))
    console = people()
    bond = "" if facts["bond"] is None else f", bond {facts['bond']}"
    console.print(f"{facts['model']} ({facts['variant']}{bond})", style="bold")
    console.print(table)
    console.print(_totals(facts))
    console.print(f"Source: {facts['source']}", style="dim")


def _row(layer: dict[str, Any]) -> tuple[str, ...]:
    operator = "notation" in layer
    products = layer["plan_multiplications" if operator else "multiplications"]
    return (
        layer["name"] or "",
        "MPO" if operator else layer["kind"],
        dimensions(layer["output_shape"]),
        count(layer["parameters"]) if layer["parameters"] else "",
        count(products) if products else "",
        f"{layer['notation']}\n{layer['plan']}" if operator else "",
    )


def _totals(facts: dict[str, Any]) -> str:
    total = f"{count(facts['parameters'])} parameters, biases included"
    products = f"Products: multiplications for one example, plans for {facts['batch']} at a time."
    if facts["rho"] is None:
        return f"{total}; nothing is replaced, so there is no rho.\n{products}"
    replaced = sum(layer.get("replaced_weights", 0) for layer in facts["layers"])
    kept = sum(layer.get("mpo_weights", 0) for layer in facts["layers"])
    return (
        f"{total}; whole ratio {facts['whole_ratio']:.5f} (dense: {count(facts['dense_parameters'])}).\n"
        f"rho = {facts['rho']:.5f} (Eq. 9): {count(kept)} weights stand for {count(replaced)}.\n{products}"
    )

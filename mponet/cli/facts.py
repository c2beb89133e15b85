"""What ``mponet info`` says of networks, as objects for JSON."""

from typing import Any

from mponet import models
from mponet.models import shapes
from mponet.models.cost import PLAN_MACHINE, multiplications, operator_multiplications, operator_plan
from mponet.models.shapes import LayerInfo, Operator
from mponet.models.spec import PAPER, Model, Residual
from mponet.operators.measure import parameter_ratio


def describe(model: Model, batch: int) -> dict[str, Any]:
    """Everything there is to say about a network, for JSON.

    Multiplications are for one example.  Those of a plan leave out the merging of cores, which is
    once per batch.

    Args:
        model: the network.
        batch: examples at a time that the plans are chosen for.
    """
    dense = models.build(model.name, "dense")
    counts, layers = shapes.counts(model), shapes.layers(model)
    operators = shapes.operators(model)
    return {
        "model": model.name,
        "variant": model.variant,
        "bond": model.bond,
        "source": model.source,
        "input_shape": model.input_shape,
        "parameters": counts.parameters,
        "weights": counts.weights,
        "biases": counts.biases,
        "norms": counts.norms,
        "statistics": counts.statistics,
        "mpo_weights": sum(operator.shape.parameters for operator in operators),
        "replaced_weights": sum(operator.replaced_weights for operator in operators),
        "rho": shapes.compression_ratio(model),
        "parameter_ratio": parameter_ratio(counts.parameters, shapes.parameter_count(dense)),
        "dense_parameters": shapes.parameter_count(dense),
        "multiplications": sum(info.multiplications for info in layers),
        "plan_multiplications": sum(multiplications(info, batch) for info in layers),
        "dense_multiplications": sum(info.multiplications for info in shapes.layers(dense)),
        "batch": batch,
        "plan_machine": PLAN_MACHINE,
        "layers": [_layer(layer, batch) for layer in layers],
    }


def listed(name: str) -> dict[str, Any]:
    """A network of the paper in one line."""
    model, family = models.build(name), models.family(name)
    parameters, dense = (shapes.parameter_count(models.build(name, variant)) for variant in ("mpo", "dense"))
    return {
        "model": name,
        "title": family.title,
        "data": family.data,
        "dense_parameters": dense,
        "parameters": parameters,
        "rho": shapes.compression_ratio(model),
        "parameter_ratio": parameter_ratio(parameters, dense),
        "source": model.source.removeprefix(f"{PAPER}, ").partition(";")[0],
    }


def _layer(layer: LayerInfo, batch: int) -> dict[str, Any]:
    facts = {
        "name": layer.name or None,
        "kind": layer.kind,
        "input_shape": layer.input_shape,
        "output_shape": layer.output_shape,
        "parameters": layer.size,
        "multiplications": layer.multiplications,
    }
    branches = ("body", "shortcut") if isinstance(layer.layer, Residual) else ("body",)
    inside = {
        name: [_layer(inner, batch) for inner in branch] for name, branch in zip(branches, layer.branches, strict=False)
    }
    first, *others = [_operator(operator, batch) for operator in layer.operators] or [{}]
    return facts | inside | first | ({"other_operators": others} if others else {})


def _operator(operator: Operator, batch: int) -> dict[str, Any]:
    """Notation, size and plan of an operator."""
    shape, plan = operator.shape, operator_plan(operator, batch)
    return {
        "notation": str(shape),
        "input_dims": shape.input_dims,
        "output_dims": shape.output_dims,
        "bond_dims": shape.bond_dims,
        "mpo_weights": shape.parameters,
        "replaced_weights": operator.replaced_weights,
        "plan": str(plan),
        "plan_multiplications": operator_multiplications(operator, batch),
        "plan_merge_multiplications": plan.merge_multiplications,
    }

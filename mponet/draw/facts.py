"""Facts shown next to the drawings of a network.

Sizes, ratios, floating-point operations, plans.
"""

from collections.abc import Iterator

from mponet.draw.spacing import shown
from mponet.errors import ModelError
from mponet.models import build, shapes
from mponet.models.cost import PLAN_MACHINE, multiplications, operator_multiplications, operator_plan
from mponet.models.outline import Line, count, dimensions
from mponet.models.shapes import LayerInfo, Operator
from mponet.models.spec import Model
from mponet.operators.measure import parameter_ratio

Facts = tuple[tuple[str, str], ...]


def flops(info: LayerInfo, batch: int) -> int:
    """Floating-point operations for one example, two per multiplication.

    Operators by their plans.
    """
    return 2 * multiplications(info, batch)


def operator_facts(operator: Operator, batch: int) -> Facts:
    """Notation, size, cost and plan of an operator as (name, value), in the order of reading."""
    shape, replaced, rows = operator.shape, operator.replaced_weights, operator.positions
    work = 2 * operator_multiplications(operator, batch)
    return (
        ("operator", str(shape)),
        ("weights", f"{count(shape.parameters)} for {count(replaced)}"),
        ("rho", f"{shape.parameters / replaced:.4g}"),
        ("flops per image", f"{count(work)}, full matrix {count(2 * rows * shape.dense_parameters)}"),
        (f"plan for {batch * rows}", str(operator_plan(operator, batch))),
    )


def totals(model: Model, batch: int) -> Facts:
    """Size and cost of a network as (name, value), compared with its dense variant."""
    layers = shapes.layers(model)
    parameters, work = shapes.parameter_count(model), sum(flops(info, batch) for info in layers)
    rho, dense = shapes.compression_ratio(model), _dense(model)
    facts = [("parameters", count(parameters)), ("flops per image", count(work))]
    if dense is not None:
        whole = shapes.parameter_count(dense)
        dense_work = sum(flops(info, batch) for info in shapes.layers(dense))
        ratio = f"{parameter_ratio(parameters, whole):.4g}"
        facts = [
            ("parameters", f"{count(parameters)}, dense network {count(whole)} (ratio {ratio})"),
            ("flops per image", f"{count(work)}, dense network {count(dense_work)}"),
        ]
    if rho is not None:
        operators = shapes.operators(model)
        kept = sum(operator.shape.parameters for operator in operators)
        replaced = sum(operator.replaced_weights for operator in operators)
        facts.append(("rho", f"{rho:.4g}: {count(kept)} weights in cores replace {count(replaced)}"))
        facts.append(("plans", f"for {batch} images per batch, {PLAN_MACHINE}"))
    return tuple(facts)


def sizes(line: Line) -> Iterator[tuple[str, str]]:
    """The parameters and running statistics of a line's layers, by name, with their shapes."""
    for info in line.infos:
        for name, shape in (*info.parameters.items(), *info.statistics.items()):
            yield name, dimensions(shape)


def input_and_output(line: Line) -> str:
    """Shapes of input and output: ``28x28x1 → 784``."""
    first, last = line.infos[0], line.infos[-1]
    return f"{dimensions(first.input_shape, last.input_shape)} → {line.output}"


def shown_name(line: Line) -> str:
    """The name of a line as it is drawn."""
    return shown(line.name)


def _dense(model: Model) -> Model | None:
    """The dense variant of the same name.

    None for a network without a family, and for the dense variant.
    """
    if model.variant == "dense":
        return None
    try:
        return build(model.name, "dense")
    except ModelError:
        return None

"""What stands beside the drawings of a network: sizes, ratios, floating-point operations, plans."""

from collections.abc import Iterator

from mponet.draw.spacing import shown
from mponet.errors import ModelError
from mponet.models import build, shapes
from mponet.models.cost import multiplications, operator_multiplications, operator_plan
from mponet.models.outline import Line, count, dimensions
from mponet.models.shapes import LayerInfo, Operator
from mponet.models.spec import Model
from mponet.operators.measure import parameter_ratio

Facts = tuple[tuple[str, str], ...]


def flops(info: LayerInfo, batch: int) -> int:
    """Floating-point operations for one example: an addition for each multiplication; operators by their plans."""
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
    """What there is to say about a network; compared with the normal one where there is one of its name."""
    layers = shapes.layers(model)
    parameters, own = shapes.parameter_count(model), sum(flops(info, batch) for info in layers)
    rho, normal = shapes.compression_ratio(model), _normal(model)
    found = [("parameters", count(parameters)), ("flops per image", count(own))]
    if normal is not None:
        whole = shapes.parameter_count(normal)
        others = sum(flops(info, batch) for info in shapes.layers(normal))
        ratio = f"{parameter_ratio(parameters, whole):.4g}"
        found = [
            ("parameters", f"{count(parameters)}, normal network {count(whole)} (ratio {ratio})"),
            ("flops per image", f"{count(own)}, normal network {count(others)}"),
        ]
    if rho is not None:
        operators = shapes.operators(model)
        kept = sum(operator.shape.parameters for operator in operators)
        replaced = sum(operator.replaced_weights for operator in operators)
        found.append(("rho", f"{rho:.4g}: {count(kept)} weights in cores stand for {count(replaced)}"))
    return tuple(found)


def sizes(line: Line) -> Iterator[tuple[str, str]]:
    """The parameters and running statistics of a line's layers, by name, with their shapes."""
    for info in line.infos:
        for name, shape in (*info.parameters.items(), *info.statistics.items()):
            yield name, dimensions(shape)


def passage(line: Line) -> str:
    """What goes in and what comes out: ``28x28x1 → 784``."""
    first, last = line.infos[0], line.infos[-1]
    return f"{dimensions(first.input_shape, last.input_shape)} → {line.output}"


def named(line: Line) -> str:
    """The name of a line as it is drawn."""
    return shown(line.name)


def _normal(model: Model) -> Model | None:
    """The normal network of the same name; None for a network that is not in the table, or is normal itself."""
    if model.variant == "dense":
        return None
    try:
        return build(model.name, "dense")
    except ModelError:
        return None

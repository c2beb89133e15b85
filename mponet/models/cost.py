"""Multiplications that a layer takes for one example, operators by the plans chosen for them.

Plans depend on the machine.  Without a framework they are made with the default cost constants,
which are those of PyTorch on a CPU; layers choose their own plans when they run.
"""

from mponet.contraction.plan import Plan
from mponet.contraction.search import choose
from mponet.models.shapes import LayerInfo, Operator

#: The machine that these plans assume.
PLAN_MACHINE = "PyTorch on a CPU"


def multiplications(info: LayerInfo, batch: int) -> int:
    """Multiplications for one example; merging the cores, once per batch, is not counted.

    Args:
        info: the layer.
        batch: examples per batch that the plans are chosen for.
    """
    if info.branches:
        return sum(multiplications(inner, batch) for branch in info.branches for inner in branch)
    if not info.operators:
        return info.multiplications
    return sum(operator_multiplications(operator, batch) for operator in info.operators)


def operator_multiplications(operator: Operator, batch: int) -> int:
    """Multiplications of one operator for one example; merging the cores is not counted."""
    return operator.positions * operator_plan(operator, batch).sweep_multiplications


def operator_plan(operator: Operator, batch: int) -> Plan:
    """The plan chosen for an operator, for the `PLAN_MACHINE`.

    Args:
        operator: the operator.
        batch: examples per batch; a convolution applies its operator to ``batch * positions`` rows.
    """
    return choose(operator.shape, batch * operator.positions)

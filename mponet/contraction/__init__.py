"""How an operator is contracted with a batch.

Plans, their cost, the search for them, and their execution.

Plans are values: `Plan` for a chain, `GraphPlan` for any other network.  Both lower to a `Program`,
which `forward` and `backward` run on any array library that offers `Ops`.  `plans_for` chooses them
for a layer; `PlanSet.explain` says why.
"""

from mponet.contraction.cost import predict as predict
from mponet.contraction.cost import workspace as workspace
from mponet.contraction.execute import backward as backward
from mponet.contraction.execute import forward as forward
from mponet.contraction.graph_plan import GraphPlan as GraphPlan
from mponet.contraction.machine import Machine as Machine
from mponet.contraction.ops import Ops as Ops
from mponet.contraction.plan import Plan as Plan
from mponet.contraction.planner import PlanningContext as PlanningContext
from mponet.contraction.planner import PlanRequest as PlanRequest
from mponet.contraction.planner import PlanSet as PlanSet
from mponet.contraction.planner import plans_for as plans_for
from mponet.contraction.program import Program as Program
from mponet.contraction.search import candidates as candidates
from mponet.contraction.search import choose as choose
from mponet.contraction.search import ranked as ranked

__all__ = [
    "GraphPlan",
    "Machine",
    "Ops",
    "Plan",
    "PlanRequest",
    "PlanSet",
    "PlanningContext",
    "Program",
    "backward",
    "candidates",
    "choose",
    "forward",
    "plans_for",
    "predict",
    "ranked",
    "workspace",
]

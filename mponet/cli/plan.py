"""``mponet plan``: how a layer is contracted, and why so."""

from typing import Any

import click

from mponet.backend import TRAINABLE, load
from mponet.cli.output import json_option, print_json
from mponet.contraction.cost import Purpose, cost
from mponet.contraction.memory import memory_budget
from mponet.contraction.planner import FINALISTS, ITEMSIZE, PURPOSES, PlanRequest, PlanSet, mode, rounded
from mponet.contraction.program import DEFAULT_BATCH
from mponet.contraction.search import AnyPlan
from mponet.operators.shape import MPOShape

#: Plans of more sites take seconds and hundreds of megabytes.
MAX_SITES, MAX_FACTOR = 32, 99_999_999
MAX_BATCH = 1 << 40


class Factors(click.ParamType[tuple[int, ...]]):
    """``4,7,7,4``: positive whole numbers."""

    name = "factors"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers."""
        parts = str(value).split(",")
        if len(parts) > MAX_SITES or any(len(part) > len(str(MAX_FACTOR)) for part in parts):
            self.fail(f"expected at most {MAX_SITES} numbers of at most {MAX_FACTOR}, for example 4,7,7,4", param, ctx)
        try:
            return tuple(map(int, parts))
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers; expected for example 4,7,7,4", param, ctx)


FACTORS = Factors()


@click.command(
    epilog="""\b
Examples:
  mponet plan 64,64 64,64 --bond 4 --batch 512
  mponet plan 4,7,7,4 4,4,4,4 --bond 16 --batch 100 --purpose forward --backend jax
  mponet plan 8,8,8,8 8,8,8,8 --bond 8 --measure           time the best few here

With MPONET_PLAN=measure, layers choose as --measure does, and so does this command.
"""
)
@click.argument("inputs", type=FACTORS)
@click.argument("outputs", type=FACTORS)
@click.option(
    "--bond", type=FACTORS, required=True, metavar="D", help="Bond dimension, or a list with one for each inner bond."
)
@click.option(
    "--batch",
    type=click.IntRange(0, MAX_BATCH),
    default=DEFAULT_BATCH,
    show_default=True,
    help="Batch size, rounded up to four significant bits as layers do.",
)
@click.option("--purpose", type=click.Choice(PURPOSES), default="training", show_default=True, help="Pass to plan for.")
@click.option(
    "--dtype", type=click.Choice(tuple(ITEMSIZE)), default="float32", show_default=True, help="Floating-point type."
)
@click.option(
    "--backend",
    metavar="B",
    help=f"Framework: {', '.join(TRAINABLE)}.  Default: $MPONET_BACKEND, else the first installed.",
)
@click.option(
    "--memory",
    type=click.IntRange(0),
    metavar="BYTES",
    help="Memory beside that of the activations.  Default: $MPONET_MEMORY, else by the size of the layer.",
)
@click.option("--measure", is_flag=True, help=f"Time the best {FINALISTS} candidates here.")
@click.option("--top", type=click.IntRange(1), default=8, show_default=True, help="Number of candidates to show.")
@json_option
def plan(
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    bond: tuple[int, ...],
    batch: int,
    purpose: Purpose,
    dtype: str,
    backend: str | None,
    memory: int | None,
    measure: bool,
    top: int,
    as_json: bool,
) -> None:
    """Explain how a layer with factors INPUTS and OUTPUTS is contracted.

    Each candidate is a way to merge neighbouring cores into groups, an order to sweep a batch
    through them, a size of tiles, and whether a training step saves its states.  Shown are
    predicted times and what they are made of, memory beside that of the activations, and the
    winner.
    """
    shape = MPOShape.from_factors(inputs, outputs, bond[0] if len(bond) == 1 else bond)
    planner = load(backend).planner
    machine, budget = planner.machine(dtype), memory_budget(memory)
    request = PlanRequest(shape, rounded(batch), ITEMSIZE[dtype], machine, planner.purposes, budget)
    plans = PlanSet.of(request, planner.runner if measure or mode() == "measure" else None, dtype)
    if as_json:
        print_json({"backend": planner.name, **_facts(plans, request, purpose, top)})
    else:
        click.echo(f"{planner.name}: {plans.explain(purpose, top)}")


def _facts(plans: PlanSet, request: PlanRequest, purpose: Purpose, top: int) -> dict[str, Any]:
    def facts(plan: AnyPlan) -> dict[str, Any]:
        parts = cost(plan, request.rows, purpose=purpose, itemsize=request.itemsize, machine=request.machine)
        return {
            "plan": str(plan),
            "predicted_seconds": parts.seconds,
            **parts._asdict(),
            "measured_seconds": plans.seconds.get((purpose, plan)),
            "workspace_bytes": request.workspace_bytes(plan, purpose),
            "saves_states": plan.saves_states,
            "saved_bytes": request.saved_bytes(plan),
        }

    return {
        "shape": str(request.shape),
        "batch": request.batch,
        "purpose": purpose,
        "memory_limit_bytes": request.memory_limit(purpose),
        "chosen": facts(getattr(plans, purpose)),
        "candidates": [facts(one) for one in request.ranked(purpose, top)],
    }

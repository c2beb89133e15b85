"""One measurement in this process: ``python -m mponet.bench.worker ANSWER TASK``.

TASK is JSON.

The answer goes into the file ANSWER, so that output of packages does not matter.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mponet.bench import inference, layers, memory, networks
from mponet.bench.rows import Network, Row
from mponet.files import write_json
from mponet.operators.shape import MPOShape


def row_of(task: dict[str, Any]) -> Row:
    """The inverse of `task_of`."""
    shape = MPOShape(tuple(task["input_dims"]), tuple(task["output_dims"]), tuple(task["bond_dims"]))
    return Row(task["name"], shape, task["batch"], task["forward"], task["step"], task["compared"])


def task_of(row: Row) -> dict[str, Any]:
    """The fields of a row, for JSON."""
    return {
        "name": row.name,
        "input_dims": row.shape.input_dims,
        "output_dims": row.shape.output_dims,
        "bond_dims": row.shape.bond_dims,
        "batch": row.batch,
        "forward": row.forward,
        "step": row.step,
        "compared": row.compared,
    }


def _layers(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Measures layers, one after another."""
    options = {key: task[key] for key in ("rounds", "patience", "peers")}
    return [layers.measure(task["backend"], row_of(row), **options) for row in task["rows"]]


def _memory(task: dict[str, Any]) -> dict[str, Any]:
    return memory.measure(task["backend"], row_of(task["row"]), task["implementation"])


def _implementations(task: dict[str, Any]) -> dict[str, Any]:
    """Names of the implementations of a framework, and its environment."""
    names = memory.names(task["backend"], row_of(task["row"]), peers=task["peers"])
    return {"names": names, "environment": memory.environment(task["backend"])}


def _network(task: dict[str, Any]) -> dict[str, Any]:
    return networks.measure(task["backend"], Network(**task["network"]), rounds=task["rounds"])


def _inference(task: dict[str, Any]) -> dict[str, Any]:
    return inference.measure(task["backend"], task["row"], rounds=task["rounds"])


JOBS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "layers": _layers,
    "inference": _inference,
    "implementations": _implementations,
    "memory": _memory,
    "network": _network,
}


def main(answer: str, task: str) -> None:
    """Run the job of a task and write its answer."""
    parsed = json.loads(task)
    write_json(Path(answer), {"answer": JOBS[parsed["job"]](parsed)})


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What one process measures: ``python -m mponet.bench.worker ANSWER TASK``, both JSON, the task on the command line.

Whatever packages print does not matter: the answer goes into a file.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mponet.bench import layers, memory, networks
from mponet.bench.rows import Network, Row
from mponet.files import write_json
from mponet.operators.shape import MPOShape


def row_of(task: dict[str, Any]) -> Row:
    """The row that `task_of` took apart."""
    shape = MPOShape(tuple(task["input_dims"]), tuple(task["output_dims"]), tuple(task["bond_dims"]))
    return Row(task["name"], shape, task["batch"], task["forward"], task["step"], task["compared"])


def task_of(row: Row) -> dict[str, Any]:
    """A row as JSON takes it."""
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
    """Layers, one after the other."""
    options = {key: task[key] for key in ("rounds", "patience", "peers")}
    return [layers.measure(task["backend"], row_of(row), **options) for row in task["rows"]]


def _memory(task: dict[str, Any]) -> dict[str, Any]:
    return memory.measure(task["backend"], row_of(task["row"]), task["contender"])


def _contenders(task: dict[str, Any]) -> dict[str, Any]:
    """Who there is in a framework, and where it runs."""
    names = memory.names(task["backend"], row_of(task["row"]), peers=task["peers"])
    return {"names": names, "about": memory.about(task["backend"])}


def _network(task: dict[str, Any]) -> dict[str, Any]:
    return networks.measure(task["backend"], Network(**task["network"]), rounds=task["rounds"])


JOBS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "layers": _layers,
    "contenders": _contenders,
    "memory": _memory,
    "network": _network,
}


def main(answer: str, task: str) -> None:
    """Do what is asked, and write the answer."""
    asked = json.loads(task)
    write_json(Path(answer), {"answer": JOBS[asked["job"]](asked)})


if __name__ == "__main__":
    main(*sys.argv[1:])

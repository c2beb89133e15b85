"""``mponet backends``: which frameworks there are, and which one is meant."""

import os
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from typing import Any

import click

from mponet.backend import ADAPTERS, TRAINABLE, VARIABLE, Adapter, choose, installed, missing
from mponet.cli.output import json_option, people, print_json
from mponet.crosscheck import process
from mponet.errors import BackendError
from mponet.files import parse_json


@click.command(
    epilog="""\b
Examples:
  mponet backends
  mponet backends --devices          what each framework can run on
  MPONET_BACKEND=jax mponet backends --json
"""
)
@click.option("--devices", is_flag=True, help="Also list devices; starts each framework, which takes seconds.")
@json_option
def backends(devices: bool, as_json: bool) -> None:
    """Show which frameworks are installed, and which one is used.

    The one in use is MPONET_BACKEND, or else the first that is installed.  Versions are read
    without starting any framework.
    """
    facts = describe(devices=devices)
    print_json(facts) if as_json else _show(facts)


def describe(*, devices: bool = False) -> dict[str, Any]:
    """Everything about the frameworks here, for JSON.

    Args:
        devices: whether to start each installed framework and ask; otherwise ``devices`` is None.
    """
    try:
        choice = choose()
        active, why = choice.name, choice.why
        if not installed(active):
            why = f"{why}, but it is not installed"
    except BackendError as error:
        active, why = None, str(error)
    return {
        "active": active,
        "why": why,
        "variable": VARIABLE,
        "value": os.environ.get(VARIABLE),
        "backends": [*(_known(name, devices) for name in ADAPTERS), *_others()],
    }


def _known(name: str, devices: bool) -> dict[str, Any]:
    adapter = ADAPTERS[name]
    absent = missing(adapter)
    return {
        "name": name,
        "installed": not absent,
        "trains": name in TRAINABLE,
        "versions": {module: _version(module) for module in adapter.needs if module not in absent},
        "devices": _devices(name) if devices and not absent else None,
        "missing": absent,
        "install": _remedy(adapter) if absent else None,
        "module": adapter.module,
        "aliases": adapter.aliases,
    }


def _others() -> list[dict[str, Any]]:
    """Adapters that other packages bring; what they need is theirs to say."""
    return [
        {
            "name": point.name,
            "installed": True,
            "trains": None,
            "versions": {point.dist.name: point.dist.version} if point.dist else {},
            "devices": None,
            "missing": (),
            "install": None,
            "module": point.value,
            "aliases": (),
        }
        for point in entry_points(group="mponet.backends")
        if point.name not in ADAPTERS
    ]


def _version(module: str) -> str:
    """Version of an installed module, read from its metadata; ``unknown`` where there is none."""
    try:
        return version(module)
    except PackageNotFoundError:  # installed under another name, such as tensorflow-cpu
        owners = packages_distributions().get(module, [])
        return version(owners[0]) if owners else "unknown"


def _devices(name: str) -> list[str]:
    """Devices, from a process of its own.

    Frameworks may clash, and a broken one must not hide the others.
    """
    try:
        return parse_json(process.run([process.devices(name)])[0].splitlines()[-1], list[str])
    except BackendError as error:
        return [f"none: {error}"]


def _remedy(adapter: Adapter) -> str:
    return f"pip install 'mponet[{adapter.extra}]'"


def _show(facts: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "backend", "installed", "devices" if _asked(facts) else "trains"):
        table.add_column(heading)
    for backend in facts["backends"]:
        versions = ", ".join(f"{name} {number}" for name, number in backend["versions"].items())
        last = (
            ", ".join(backend["devices"] or ()) if _asked(facts) else {True: "yes", False: "no"}.get(backend["trains"])
        )
        table.add_row(
            "→" if backend["name"] == facts["active"] else "",
            backend["name"],
            versions if backend["installed"] else f"no: {backend['install']}",
            last or "",
        )
    console = people()
    console.print(table)
    if facts["active"] is None:
        console.print(f"None is in use: {facts['why']}")
    else:
        console.print(f"In use: {facts['active']} ({facts['why']})")
    console.print(f"Choose another with {VARIABLE}=NAME.")


def _asked(facts: dict[str, Any]) -> bool:
    return any(backend["devices"] is not None for backend in facts["backends"])

"""Benchmarks in cells: a JSON file that keeps what was measured, and time that ends between cells.

A benchmark that is killed and started again measures only what its file does not hold.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

from mponet.files import write_json

MEASURED = Path(__file__).parent.parent / "docs" / "measured"


def parser(text: str, name: str) -> argparse.ArgumentParser:
    """Options that all benchmarks of cells have; ``name`` is that of their file."""
    made = argparse.ArgumentParser(description=text.splitlines()[0])
    made.add_argument("--json", type=Path, default=MEASURED / f"{name}.json", help="file of the figures")
    made.add_argument("--seconds", type=float, default=float("inf"), help="start no further cell after this time")
    made.add_argument("--only", default="", help="measure cells whose name contains this")
    return made


class Cells:
    """The figures of a benchmark by name of a cell.

    Args:
        options: of `parser`.
        about: what holds for all cells, kept in the file.
    """

    def __init__(self, options: argparse.Namespace, about: Mapping[str, Any]) -> None:
        self._path, self._only = options.json, options.only
        self._end = perf_counter() + options.seconds
        kept = json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
        self.figures: dict[str, Any] = kept.get("cells", {})
        self._about = dict(about)

    def wants(self, *names: str) -> bool:
        """Whether any of some cells remains to be measured."""
        return any(name not in self.figures and self._only in name for name in names)

    def measure(self, name: str, measured: Callable[[], Any]) -> None:
        """Measure a cell and keep its figures, unless that was done or the time is over."""
        if name in self.figures or self._only not in name:
            return
        if perf_counter() > self._end:
            raise SystemExit(75)
        began = perf_counter()
        self.figures[name] = measured()
        write_json(self._path, {**self._about, "cells": self.figures})
        print(f"{name}: {json.dumps(self.figures[name])[:400]}  ({perf_counter() - began:.0f} s)", flush=True)

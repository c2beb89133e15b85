"""Small suites to test with: a toy network on real digits, on a backend of numpy."""

from core.toy import ToyBackend
from mponet.training.suite import plan

STEPS = 60  # an evaluation, and so a checkpoint, every 20 of them
CELLS = [
    f"toy-{kind}-seed{seed}" for seed in (0, 1) for kind in ("dense", "mpo", "mpo-D1")
]  # seed by seed: whole rows first
OPTIONS = ("suite", "--backend", "numpy", "--models", "toy,toy:1", "--data", "digits", "--steps", "60", "--seeds", "2")
TABLES = ("tables.md", "tables.csv", "tables.json")


def make(entries=("toy", "toy:1"), **others):
    """A suite of some entries, other settings given by name."""
    settings = {"backend": "toy", "images": {"digits": 1437}, "seeds": 2, "data": "digits", "steps": STEPS}
    return plan(entries, **settings | others)


def tables(home):
    """The bytes of a suite's tables."""
    return {name: (home / name).read_bytes() for name in TABLES}


class Breaking(ToyBackend):
    """Cannot train operators of bond 1."""

    def build(self, model, *others, **named):
        """As any other."""
        if model.bond == 1:
            raise ZeroDivisionError("no such\noperator")
        return super().build(model, *others, **named)

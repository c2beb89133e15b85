"""A run and a suite of the toy network, small enough to be killed hundreds of times."""

from dataclasses import replace

from core.toy import FAMILY, RECIPE, ToyBackend
from mponet.models import FAMILIES
from mponet.recipe import PRESETS
from mponet.training.data import load
from mponet.training.run import Settings, run
from mponet.training.suite import plan, run_suite

SHORT = replace(RECIPE, evaluate_every=20, steps=40)


def known() -> None:
    """Make the toy network known; tests do it with monkeypatch."""
    FAMILIES["toy"] = FAMILY
    PRESETS["toy"] = {"short": SHORT, "paper": SHORT}


def run_in(folder, **options):
    """A run of both variants, to be called later."""
    digits = load("digits")
    settings = Settings("toy", None, "digits", SHORT, 0)
    return lambda: run(settings, options.get("backend") or ToyBackend(), digits, folder, resume=True)


def suite_in(folder):
    """A suite of two trainings, to be called later."""
    digits = load("digits")
    suite = plan(("toy",), backend="toy", images={"digits": 1437}, seeds=1, data="digits", steps=40)
    return lambda: run_suite(suite, ToyBackend(), {"digits": digits}, folder)

"""Shared by the tests of suites: a registered toy network, real digits, six trainings."""

from dataclasses import replace

import pytest

from core.suites import make
from core.toy import FAMILY, RECIPE
from mponet.models import FAMILIES
from mponet.recipe import PRESETS
from mponet.training.data import load


@pytest.fixture(autouse=True)
def toy_network(monkeypatch):
    """A network called toy, its recipes evaluating often."""
    recipe = replace(RECIPE, evaluate_every=20)
    monkeypatch.setitem(FAMILIES, "toy", FAMILY)
    monkeypatch.setitem(PRESETS, "toy", {"short": recipe, "paper": recipe})


@pytest.fixture(scope="module")
def digits():
    """Data by name, as a suite takes it."""
    return {"digits": load("digits")}


@pytest.fixture
def suite():
    """Six cells."""
    return make()

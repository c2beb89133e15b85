"""The names that the packages for models, drawings, cross-checks and measurements export.

A change is deliberate.
"""

from importlib import import_module
from types import ModuleType

import pytest

EXPORTED = {
    "mponet.models": "FAMILIES PAPER_VARIANTS VARIANTS Family Model build family full_name published spellings",
    "mponet.draw": "FORMATS DrawOptions diagram line notebook_html notebook_svg operators render save sheet",
    "mponet.crosscheck": "Comparison Report crosscheck crosschecks markdown",
    "mponet.bench": "",  # its modules are the parts of a command
}


@pytest.mark.parametrize("package", EXPORTED)
def test_a_package_exports_these_names(package):
    values = vars(import_module(package)).items()
    found = {name for name, value in values if not name.startswith("_") and not isinstance(value, ModuleType)}
    assert found == set(EXPORTED[package].split())

"""docs/api.md lists what the packages of the core export: each name is there, under its package."""

import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def listed():
    """Package to names, from the page."""
    sections = re.split(r"^## (\S+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        package: set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
        for package, text in zip(sections[::2], sections[1::2], strict=True)
    }


CORE = [package for package in listed() if package.partition(".")[0] == "mponet"]


def test_the_page_lists_the_core_and_the_adapters():
    assert {"mponet", "mponet.models", "mponet_torch", "mponet_jax", "mponet_tensorflow"} <= set(listed())


@pytest.mark.parametrize("package", CORE)
def test_names_are_those_that_the_package_has(package):
    module, names = import_module(package), listed()[package]
    public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    if hasattr(module, "__all__"):
        assert names == set(module.__all__)
    elif hasattr(module, "__path__"):
        required = {name for name, value in public.items() if not isinstance(value, ModuleType)}
        assert required == {name for name in names if not name.startswith("_")}
    else:  # of a module, what it defines; it may also hand on what it imports
        required = {name for name, value in public.items() if getattr(value, "__module__", "") == package}
        assert {name for name in required if callable(public[name])} <= names <= set(public)
    assert all(hasattr(module, name) for name in names)

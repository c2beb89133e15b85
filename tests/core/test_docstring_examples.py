"""The examples in docstrings run and print what they show."""

import doctest
import pkgutil
from importlib import import_module

import pytest

PACKAGES = ("mponet.models", "mponet.draw", "mponet.crosscheck", "mponet.bench")


def modules():
    """Names of all modules of the packages, and `mponet.recipe`."""
    for package in PACKAGES:
        yield package
        yield from (found.name for found in pkgutil.walk_packages(import_module(package).__path__, f"{package}."))
    yield "mponet.recipe"


def examples(name):
    """The examples of a module."""
    return [found for found in doctest.DocTestFinder().find(import_module(name)) if found.examples]


@pytest.mark.parametrize("name", [*modules()])
def test_the_examples_of_a_module_run(name):
    for example in examples(name):
        failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
        assert not failed, f"{example.name}: see the output"

"""Examples in docstrings print what they show, and every public name of the root has one."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import mponet


def modules(package):
    """Names of a package and all its modules; ``__main__`` would run a command."""
    yield package
    for found in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
        if not found.name.endswith("__main__"):
            yield found.name


def examples(module):
    """The docstrings of a module that have examples."""
    return [found for found in doctest.DocTestFinder().find(import_module(module)) if found.examples]


@pytest.mark.parametrize("module", [*modules("mponet")])
def test_the_examples_of_a_module_run(module):
    for example in examples(module):
        failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
        assert not failed, f"{example.name}: see the output"


# ---------------------------------------------------------------- the root package


@pytest.mark.parametrize("name", [name for name in mponet.__all__ if not name.startswith("_")])
def test_every_public_name_has_an_example(name):
    value = getattr(mponet, name)
    finder = doctest.DocTestFinder(recurse=False)
    if name not in ("MPONetError", "load"):  # an error is shown where it is raised, a framework is not installed here
        assert any(found.examples for found in finder.find(value, name, module=False))


@pytest.mark.parametrize("name", ["MPO", "MPOShape", "NetworkShape", "PaddedShape"])
def test_every_constructor_has_an_example(name):
    made = [member for member in vars(getattr(mponet, name)) if member.startswith("from_")]
    for member in made:
        assert ">>>" in getattr(getattr(mponet, name), member).__doc__, f"{name}.{member}"


def test_the_root_shows_its_public_names_only():
    assert dir(mponet) == sorted(mponet.__all__)
    assert mponet.__all__ == sorted(mponet.__all__, key=lambda name: (not name.isupper(), name))


def test_packages_are_imported_when_they_are_used():
    assert mponet.draw is import_module("mponet.draw")
    assert mponet.errors.ShapeError.__module__ == "mponet.errors"


@pytest.mark.parametrize("name", ["MPOLinear", "NetworkLinear", "MPODense", "MPOConv2d"])
def test_a_layer_is_answered_with_its_import(name):
    with pytest.raises(AttributeError, match=f"from mponet_torch import {name}"):
        getattr(mponet, name)


@pytest.mark.parametrize("name", ["mpo", "backends", "_private", "draw.line"])
def test_a_name_that_is_nowhere_is_answered_with_those_there_are(name):
    with pytest.raises(AttributeError, match="choose_factors, factorize"):
        getattr(mponet, name)
    assert not hasattr(mponet, name)

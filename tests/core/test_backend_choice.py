"""Which backend is chosen, and the errors when it is missing.  No framework is imported."""

import sys
from types import SimpleNamespace

import pytest

import mponet
from mponet import backend
from mponet.backend import ADAPTERS, TRAINABLE, choose, installed, load, normalize
from mponet.errors import BackendError


@pytest.fixture
def only(monkeypatch):
    """Pretend that only these import names are installed."""

    def pretend(*names):
        monkeypatch.setattr(backend, "find_spec", lambda name: object() if name in names else None)

    monkeypatch.delenv("MPONET_BACKEND", raising=False)
    return pretend


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("torch", "torch"),
        ("PyTorch", "torch"),
        ("pt", "torch"),
        ("flax", "jax"),
        ("JAX", "jax"),
        ("tf", "tensorflow"),
        ("keras", "tensorflow"),
        (" TensorFlow ", "tensorflow"),
        ("np", "numpy"),
        ('"torch"', "torch"),
        ("'jax' ", "jax"),
        (" ' tf ' ", "tensorflow"),
    ],
)
def test_what_people_write_is_understood(written, meant, monkeypatch):
    assert normalize(written) == meant
    monkeypatch.setenv("MPONET_BACKEND", written)
    assert choose().name == meant


def test_the_argument_wins_over_the_variable_and_the_variable_over_what_is_installed(only, monkeypatch):
    only("torch", "jax", "flax", "optax", "tensorflow", "keras")
    assert choose().name == "torch"
    assert "first installed" in choose().why
    monkeypatch.setenv("MPONET_BACKEND", "jax")
    assert choose() == backend.Choice("jax", "MPONET_BACKEND=jax")
    assert choose("tensorflow") == backend.Choice("tensorflow", "asked for by name")


@pytest.mark.parametrize("blank", ["", "  ", "''", '" "'])
def test_a_blank_variable_is_as_good_as_none(blank, only, monkeypatch):
    only("jax", "flax", "optax")
    monkeypatch.setenv("MPONET_BACKEND", blank)
    assert choose().name == "jax"


def test_the_variable_is_read_when_it_is_needed_not_at_import(monkeypatch):
    monkeypatch.setenv("MPONET_BACKEND", "numpy")
    assert mponet.load().name == "numpy"


def test_a_framework_that_lacks_a_part_is_not_installed(only):
    only("torch", "jax", "flax")
    assert [name for name in TRAINABLE if installed(name)] == ["torch"]
    assert backend.missing(ADAPTERS["jax"]) == ("optax",)


def test_an_unknown_name_lists_the_known_ones_and_the_variable(monkeypatch):
    monkeypatch.setenv("MPONET_BACKEND", "theano")
    with pytest.raises(BackendError, match=r"'theano'; expected one of torch, jax, tensorflow, numpy.*MPONET_BACKEND"):
        load()


def test_a_missing_framework_names_the_extra_and_what_there_is(only):
    only("torch", "numpy")
    with pytest.raises(
        BackendError, match=r"'jax' needs jax, flax, optax.*mponet\[jax\].*MPONET_BACKEND to one of: torch, numpy"
    ):
        load("jax")


def test_a_missing_framework_is_no_silent_fallback(only, monkeypatch):
    only("torch", "numpy")
    monkeypatch.setenv("MPONET_BACKEND", "tensorflow")
    with pytest.raises(BackendError, match="'tensorflow' needs"):
        load()


def test_no_framework_at_all_says_how_to_get_one(only):
    only("numpy")
    with pytest.raises(BackendError, match=r"no framework is installed.*pip install 'mponet\[torch\]'"):
        choose()


def test_the_error_is_an_import_error_too():
    with pytest.raises(ImportError):
        load("theano")


def test_the_reference_needs_no_framework():
    before = set(sys.modules)
    assert load("numpy") is sys.modules["mponet_numpy"].backend
    assert not {"torch", "jax", "tensorflow"} & (set(sys.modules) - before)


def test_others_can_bring_a_backend(monkeypatch):
    theirs = SimpleNamespace(name="mlx")
    point = SimpleNamespace(name="mlx", load=lambda: theirs)
    monkeypatch.setattr(backend, "entry_points", lambda group: [point] if group == "mponet.backends" else [])
    assert load("mlx") is theirs
    assert normalize("'MLX'") == "mlx"
    assert installed("mlx")
    with pytest.raises(BackendError, match="numpy, mlx"):
        load("theano")


def test_nobody_can_replace_a_backend_of_ours(monkeypatch):
    point = SimpleNamespace(name="numpy", load=lambda: pytest.fail("loaded"))
    monkeypatch.setattr(backend, "entry_points", lambda group: [point])
    assert load("numpy").name == "numpy"

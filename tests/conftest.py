"""MPONET_BACKENDS names the frameworks under test; a missing one is an error and not a skip."""

import os
from contextlib import suppress

import pytest

from mponet.backend import load, normalize
from mponet.errors import BackendError


def requested() -> list[str]:
    """Canonical names in MPONET_BACKENDS."""
    return [normalize(name) for name in os.environ.get("MPONET_BACKENDS", "").split(",") if name.strip()]


def pytest_configure(config):
    if "torch" in requested():
        load_triton()
    for name in requested():
        try:
            load(name)
        except BackendError as error:
            raise pytest.UsageError(f"MPONET_BACKENDS asks for {name}: {error}") from error


def load_triton():
    """Before TensorFlow: each brings an LLVM, and Triton's stops the process if it comes second."""
    with suppress(ImportError):  # a framework that is missing is an error of its own; Triton may be
        import torch

        if not torch.cuda.is_available():  # read once, as Triton is imported
            os.environ["TRITON_INTERPRET"] = "1"
        import triton  # noqa: F401


def pytest_generate_tests(metafunc):
    if "backend_name" in metafunc.fixturenames:
        metafunc.parametrize("backend_name", requested(), scope="session")


@pytest.fixture(scope="session")
def backend(backend_name):
    """The `Backend` object of each framework under test."""
    return load(backend_name)


@pytest.fixture
def double_precision(backend_name):
    """JAX computes in float64 only where it is allowed to; training runs without, as users do."""
    if backend_name == "jax" and os.environ.get("JAX_ENABLE_X64") != "1":
        import jax

        with jax.enable_x64(True):
            yield
        return
    yield

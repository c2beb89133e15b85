"""The frameworks under test come from MPONET_BACKENDS; one that is named but missing is an error, never a skip."""

import os

import pytest

from mponet.backend import load, normalize
from mponet.errors import BackendError


def requested() -> list[str]:
    """Canonical names in MPONET_BACKENDS."""
    return [normalize(name) for name in os.environ.get("MPONET_BACKENDS", "").split(",") if name.strip()]


def pytest_configure(config):
    for name in requested():
        try:
            load(name)
        except BackendError as error:
            raise pytest.UsageError(f"MPONET_BACKENDS asks for {name}: {error}") from error
    if "torch" in requested():
        import torch

        if not torch.cuda.is_available():  # Triton reads it once, when torch.compile or a kernel first asks for it
            os.environ["TRITON_INTERPRET"] = "1"


def pytest_generate_tests(metafunc):
    if "backend_name" in metafunc.fixturenames:
        metafunc.parametrize("backend_name", requested(), scope="session")


@pytest.fixture(scope="session")
def backend(backend_name):
    """The adapter module of each framework under test."""
    return load(backend_name)


@pytest.fixture
def double_precision(backend_name):
    """JAX computes in float64 only where it is allowed to; training is tested as users run it, without."""
    if backend_name == "jax" and os.environ.get("JAX_ENABLE_X64") != "1":
        import jax

        with jax.enable_x64(True):
            yield
        return
    yield

"""Shared by the tests of the core: property-test settings, published data sets, the browser.

The first example of a property test imports TensorNetwork or warms a cache; a deadline would fail
on that, not on a defect, so there is none.
"""

import shutil

import pytest
from hypothesis import settings

from core.faults.toys import SHORT
from core.published import PUBLISHED, place, published_payloads, sign
from core.toy import FAMILY
from mponet.models import FAMILIES
from mponet.recipe import PRESETS

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

settings.register_profile("core", settings(), max_examples=40, deadline=None)
settings.load_profile("core")


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window; the test is skipped on a machine that has none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine: none of {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # as root, in a container, there is no other sandbox to be had
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def synthetic(tmp_path, monkeypatch):
    """All three data sets, small, below the returned folder, with matching digests."""
    for name in PUBLISHED:
        payloads = published_payloads(name)
        sign(monkeypatch, payloads)
        place(tmp_path, payloads)
    return tmp_path


@pytest.fixture
def toy_runs(monkeypatch):
    """A network called toy, with recipes of 40 steps."""
    monkeypatch.setitem(FAMILIES, "toy", FAMILY)
    monkeypatch.setitem(PRESETS, "toy", {"short": SHORT, "paper": SHORT})

"""docs/models.md is what docs/models.py prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.paper import ROWS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def page():
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run(
        [sys.executable, DOCS / "models.py"], capture_output=True, encoding="utf-8", check=True, env=environment
    )
    return run.stdout


def test_the_page_is_up_to_date(page):
    assert page == (DOCS / "models.md").read_text(encoding="utf-8"), "run: python docs/models.py > docs/models.md"


def test_the_page_has_the_figures_of_the_paper(page):
    rows = {cells[1].strip(" `"): cells for line in page.splitlines() if len(cells := line.split("|")) == 12}
    for name, row in ROWS.items():
        dense, mpo, _, kept, replaced = (cell.strip().replace(" ", "") for cell in rows[name][3:8])
        assert (dense, mpo, kept, replaced) == tuple(map(str, (row.dense, row.mpo, row.weights, row.replaced)))

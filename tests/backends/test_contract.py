"""What a layer must survive where it replaces a dense layer.

One suite for all layers and frameworks.

The uses are listed in `contract.uses`; a framework's functions are in `contract.torch_uses` and its
twins.  docs/layers.md shows the table.
"""

import re
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from contract.uses import FRAMEWORKS, USES, cells

DOCS, CONTRACT = Path(__file__).parents[2] / "docs", Path(__file__).parents[1] / "contract"


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("kind", range(2), ids=["linear", "network"])
@pytest.mark.parametrize("use", USES)
def test_a_layer_survives(use, kind, backend_name, backend):
    module = import_module(f"contract.{backend_name}_uses")
    if use in module.ABSENT:
        pytest.skip(module.ABSENT[use])
    if not hasattr(module, use):
        pytest.skip("not written yet; the table in docs/layers.md shows an empty cell")
    getattr(module, use)(module.kinds()[kind])


def test_the_page_of_layers_shows_what_is_tested():
    spec = spec_from_file_location("layers_page", DOCS / "layers.py")
    page = module_from_spec(spec)
    spec.loader.exec_module(page)
    assert "\n".join(page.page()) + "\n" == (DOCS / "layers.md").read_text(encoding="utf-8"), (
        "run: python docs/layers.py > docs/layers.md"
    )


def test_every_use_is_described_and_every_function_is_a_use():
    for framework in FRAMEWORKS:
        module = (CONTRACT / f"{framework}_uses.py").read_text(encoding="utf-8")
        takes_kind = set(re.findall(r"^def (\w+)\(kind\):", module, flags=re.MULTILINE))
        assert takes_kind <= set(USES)
    assert all(cell for row in cells().values() for cell in [row["torch"]])

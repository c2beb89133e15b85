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


#: Kinds in the order of `kinds()` of every framework's module.
KINDS = ("linear", "padded", "network", "conv1d", "conv2d", "embedding", "head")


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
@pytest.mark.parametrize("use", USES)
def test_a_layer_survives(use, kind, backend_name, backend):
    module = import_module(f"contract.{backend_name}_uses")
    kind = module.kinds()[kind]
    absent = module.ABSENT.get(use) or module.ABSENT_KINDS.get(kind.layer, {}).get(use)
    if absent:
        pytest.skip(absent)
    getattr(module, use)(kind)


def layers_page():
    spec = spec_from_file_location("layers_page", DOCS / "layers.py")
    page = module_from_spec(spec)
    spec.loader.exec_module(page)
    return page


def test_every_reported_fault_names_a_test_that_exists():
    for _, _, file, test in layers_page().FAULTS:
        assert f"def {test}(" in (CONTRACT.parent / file).read_text(encoding="utf-8") if file else test in USES


def test_the_page_of_layers_shows_what_is_tested():
    page = layers_page()
    assert "\n".join(page.page()) + "\n" == (DOCS / "layers.md").read_text(encoding="utf-8"), (
        "run: python docs/layers.py > docs/layers.md"
    )


def test_every_cell_is_a_test_or_has_a_reason():
    for framework in FRAMEWORKS:
        source = (CONTRACT / f"{framework}_uses.py").read_text(encoding="utf-8")
        assert set(re.findall(r"^def ([a-z]\w+)\(kind\):", source, flags=re.MULTILINE)) <= set(USES)
    for use, row in cells().items():
        for framework, (tested, reasons) in row.items():
            assert tested or reasons, f"{use} of {framework}"

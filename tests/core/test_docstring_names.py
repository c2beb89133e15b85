"""Names between single backticks in docstrings and comments exist, in all packages."""

import ast
import io
import re
import tokenize

import pytest

from references import NAME, identifiers, modules, problem, tree

REFERENCE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
#: Names of other libraries and of files, commands and formats that are written like ours.
FOREIGN = {"Any", "float", "int", "str", "transformers"}


def texts(module):
    """Docstrings and comments of a module, with their first lines."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text
    source = modules()[module].read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def wrong(text):
    """What is wrong with a reference, or None."""
    name = text.removesuffix("()")
    if NAME.fullmatch(name) and "." not in name:
        return None if name in identifiers() | FOREIGN else f"nothing is called {name}"
    return problem(text)


@pytest.mark.parametrize("module", [*modules()])
def test_backticked_names_exist(module):
    found = [
        f"line {line}: {message}"
        for line, text in texts(module)
        for reference in REFERENCE.findall(text)
        if (message := wrong(reference))
    ]
    assert not found


def test_a_stale_name_is_found():
    assert wrong("mponet.models.spec.global_map") and not wrong("mponet.models.spec.global_maps")
    assert wrong("mponet.contract.Ops") and wrong("sample_mask") and not wrong("sample_masks")

"""Writes docs/api.md from the source of the packages: ``python docs/api.py > docs/api.md``.

A package exports what its ``__init__`` imports under the same name (``from a import b as b``), and
the functions and constants that it defines.  Some modules are listed with their classes and
functions.  No framework is imported.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import fill

ROOT = Path(__file__).parents[1]
#: Where the packages are, in the order of the page.
FOLDERS = ("mponet", *(f"backends/mponet_{name}" for name in ("torch", "jax", "tensorflow", "numpy")))
#: Modules whose classes and functions are public, without being exported by a package.
MODULES = (
    *("mponet.backend", "mponet.errors", "mponet.recipe", "mponet.models.init", "mponet.models.shapes"),
    *("mponet.operators.initialize", "mponet.operators.measure", "mponet.operators.nodes", "mponet.operators.topology"),
)
#: What only the `mponet` command uses.
INTERNAL = ("mponet.cli", "bench")
HEAD = """# Public API and stability

    python docs/api.py > docs/api.md

makes this page from the source; a test compares the two.

**Public** are the names on this page, the `mponet` command with its options, and the layout of
checkpoints (`mponet.training.checkpoint`) and run folders. Import a name from the package under
which it is listed. Everything else is internal and may change at any time, including the packages
that only the command uses (`mponet.cli`, and `bench` in each adapter).

**Stability.** Version 0.1.0 is not released yet. Until version 1.0, a new minor version (0.1 to
0.2) may change public names; a new patch version (0.1.0 to 0.1.1) does not. The
[changelog](../CHANGELOG.md) lists every change of a public name and says what to use instead.

**Adapters** are twins: each exports its native layers and `backend`, an object with the functions
of `mponet.backend.Backend`. Layers have the names that are usual in the framework: a linear layer
is `MPOLinear` in PyTorch and JAX and `MPODense` in Keras."""


def packages() -> Iterator[str]:
    """Dotted names of all packages and modules that export something, in the order of the page."""
    for folder in map(ROOT.joinpath, FOLDERS):
        inits = (path.parent.relative_to(folder.parent) for path in folder.rglob("__init__.py"))
        modules = (module for module in MODULES if module.startswith(f"{folder.name}."))
        for name in sorted([*(".".join(path.parts) for path in inits), *modules]):
            if exported(name) and not name.endswith(INTERNAL):
                yield name


@cache
def source(module: str) -> str:
    """The text of a module of ours."""
    parts = Path(*module.split("."))
    homes = {Path(folder).parent for folder in FOLDERS}
    paths = (ROOT / home / file for home in homes for file in (parts / "__init__.py", parts.with_suffix(".py")))
    return next(path for path in paths if path.exists()).read_text(encoding="utf-8")


@cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a module of ours."""
    return ast.parse(source(module))


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module and, of names that are imported late, those for type checkers."""
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.body
        else:
            yield node


def exported(package: str) -> dict[str, str]:
    """Public names of a package, sorted, with the summary of each."""
    found: dict[str, str] = {}
    for node in statements(tree(package).body):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (alias.name for alias in node.names if alias.asname == alias.name)
            found |= {name: summary(node.module, name) for name in names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found[node.name] = first_line(node)
        elif package not in MODULES and (name := assigned(node)) and comment(package, node):
            found[name] = comment(package, node)
    return dict(sorted(found.items(), key=lambda item: (item[0].lower(), item[0])))


def summary(module: str, name: str) -> str:
    """The first line of the documentation of a name."""
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name and not is_overload(node):
            return first_line(node)
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module.startswith("mponet"):
                    return summary(node.module, alias.name)
        if assigned(node) == name:
            value = getattr(node, "value", None)
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and not comment(module, node):
                return summary(module, value.func.id)
            return comment(module, node) or f"Constant of `{module}`."
    raise LookupError(f"{module} does not define {name}")


def is_overload(node: ast.FunctionDef | ast.ClassDef) -> bool:
    """Whether a definition only declares one of several signatures."""
    return any(isinstance(mark, ast.Name) and mark.id == "overload" for mark in node.decorator_list)


def assigned(node: ast.stmt) -> str:
    """The name that a statement assigns to, or an empty string."""
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else ""


def comment(module: str, node: ast.stmt) -> str:
    """The comment ``#:`` above a statement, in one line, or an empty string."""
    lines, first = source(module).splitlines(), node.lineno - 1
    start = first
    while start and lines[start - 1].startswith("#:"):
        start -= 1
    return " ".join(line.removeprefix("#:").strip() for line in lines[start:first])


def first_line(node: ast.Module | ast.FunctionDef | ast.ClassDef) -> str:
    """The first line of a docstring, with Markdown's backticks."""
    text = ast.get_docstring(node)
    if text is None:
        raise LookupError(f"{getattr(node, 'name', 'a module')} has no docstring")
    return text.splitlines()[0].replace("``", "`").replace("|", "\\|")


def page() -> Iterator[str]:
    """The page, line by line."""
    yield HEAD
    for package in packages():
        text = first_line(tree(package))
        yield from (
            f"\n## {package}\n",
            fill(text, 100, break_on_hyphens=False),
            "",
            "| name | what it is |",
            "|---|---|",
        )
        yield from (f"| `{name}` | {line} |" for name, line in exported(package).items())


if __name__ == "__main__":
    print("\n".join(page()))

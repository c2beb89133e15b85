"""Names, paths and commands in text, looked up in the source without importing a framework.

`problem` says what is wrong with one reference.  Documents and docstrings share it: a dotted name
is found if the module exists and defines the name, a file path if the file exists.
"""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("mponet", "mponet_torch", "mponet_jax", "mponet_tensorflow", "mponet_numpy", "mponet_triton")
#: Folders of the repository in which a written path may begin.
FOLDERS = ("mponet", "backends", "tests", "docs", "examples", "benchmarks", ".ci")
#: The group in which others register adapters; it looks like a module.
ENTRY_POINTS = "mponet.backends"
#: What text calls modules of other libraries, where we have a module of the same name.
ALIASES = ("nn",)
#: Of files that are not in the repository; ``spectra.jsonl`` is written by a run.
ENDINGS = ("csv", "html", "json", "jsonl", "lock", "md", "png", "safetensors", "svg", "txt")
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


# ---------------------------------------------------------------- names


@cache
def modules():
    """Dotted name to path of every module of our packages; a package is its ``__init__``."""
    found = {}
    for package in PACKAGES:
        spec = find_spec(package)
        if spec is None:
            continue
        root = Path(spec.origin).parent
        for path in root.rglob("*.py"):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module):
    """The syntax tree of a module."""
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def bound(statements):
    """Name to node of what these statements define, those below ``if`` and ``try`` included."""
    found = {}
    for node in statements:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
            found |= dict.fromkeys((name.id for name in names), node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name.partition(".")[0]): node for alias in node.names}
        elif isinstance(node, ast.If | ast.Try | ast.With):
            inner = [*node.body, *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
            found |= bound(inner) | bound(s for h in getattr(node, "handlers", []) for s in h.body)
    return found


def source_of(node, name):
    """The (module, name) that an import statement takes a name from."""
    if isinstance(node, ast.ImportFrom):
        original = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
        return node.module, original
    return None


def has(module, parts):
    """Whether a module defines ``parts``, a name and attributes of it."""
    if not parts:
        return True
    first, *rest = parts
    if f"{module}.{first}" in modules() and has(f"{module}.{first}", rest):
        return True
    node = bound(tree(module).body).get(first)
    if node is None:
        return bool(lazy(module)) and first in lazy(module)
    if not rest:
        return True
    if isinstance(node, ast.ClassDef):
        return len(rest) == 1 and attribute(module, node, rest[0])
    if origin := source_of(node, first):
        base, name = origin
        return base not in modules() or has(base, [name, *rest])
    return True  # an attribute of a value: the source does not say what it has


@cache
def lazy(module):
    """The names that a module's ``__getattr__`` hands out, by the strings of its source."""
    function = bound(tree(module).body).get("__getattr__")
    if function is None:
        return frozenset()
    strings = {node.value for node in ast.walk(tree(module)) if isinstance(node, ast.Constant)}
    return frozenset(text for text in strings if isinstance(text, str))


def attribute(module, node, name):
    """Whether a class has an attribute: in its body, set on ``self``, or of a base class."""
    if name in bound(node.body):
        return True
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store) and inner.attr == name:
            return True
    return any(inherited(module, base, name) for base in node.bases)


def inherited(module, base, name):
    """Whether a base class has an attribute; a class of another library has any attribute."""
    base = base.value if isinstance(base, ast.Subscript) else base
    if not isinstance(base, ast.Name):
        return True
    node = bound(tree(module).body).get(base.id)
    if isinstance(node, ast.ClassDef):
        return attribute(module, node, name)
    origin = source_of(node, base.id) if node is not None else None
    while origin is not None and origin[0] in modules():
        node = bound(tree(origin[0]).body).get(origin[1])
        if isinstance(node, ast.ClassDef):
            return attribute(origin[0], node, name)
        origin = source_of(node, origin[1]) if node is not None else None
    return base.id not in ("Protocol", "Generic", "NamedTuple", "Enum", "StrEnum", "TypedDict", "object")


@cache
def identifiers():
    """Every identifier of our packages: modules, definitions, arguments, attributes, keywords."""
    found = set()
    for module in modules():
        found.update(module.split("."))
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.keyword):
                found.add(node.arg)
            elif isinstance(node, ast.alias):
                found.update(node.name.split("."))
            elif isinstance(node, ast.Constant) and re.fullmatch(r"[A-Z]+(_[A-Z]+)+", str(node.value)):
                found.add(node.value)  # variables of the environment
    return found


def unknown_name(name):
    """Why a dotted name of ours does not resolve; None where it does."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if module in modules():
            if has(module, parts[length:]):
                return None
            return f"{module} does not define {'.'.join(parts[length:])}"
    return f"there is no module {parts[0]}"


# ---------------------------------------------------------------- files


def is_path(text):
    """Whether text is a path: below a folder of the repository, or a Python file."""
    if not re.fullmatch(r"[\w./*-]+", text):
        return False
    return (text.partition("/")[0] in FOLDERS and "/" in text) or text.endswith(".py")


def unknown_path(text):
    """Why a path does not exist, from the root or as the end of the path of a Python file."""
    if any(ROOT.glob(text.rstrip("/"))) or any(f"/{path.as_posix()}".endswith(f"/{text}") for path in sources()):
        return None
    return f"{text} does not exist"


@cache
def sources():
    """Every Python file of the repository."""
    return [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]


# ---------------------------------------------------------------- text


def problem(text):
    """What is wrong with the text between backticks; None if it resolves or is not about our code.

    A dotted name that begins with one of our packages must resolve.  One that begins with the name
    of a class or of a module of ours must be defined there: ``Plan.order``, ``recipe.PRESETS``.
    """
    if is_path(text):
        return unknown_path(text)
    name = re.sub(r"\(.*\)$", "", text)
    first, _, rest = name.partition(".")
    if not NAME.fullmatch(name) or not rest or name == ENTRY_POINTS or first in ALIASES or rest in ENDINGS:
        return None
    if first in PACKAGES:
        return unknown_name(name)
    homes = [module for module in modules() if module.endswith(f".{first}")]
    homes += [
        f"{module}.{first}" for module in modules() if isinstance(bound(tree(module).body).get(first), ast.ClassDef)
    ]
    if homes and all(unknown_name(f"{home}.{rest}") for home in homes):
        return f"none of {', '.join(homes)} defines {rest}"
    return None

"""The pages of the documentation: their text, the code in it, the names in it."""

import ast
import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

from references import ROOT

PAGES = sorted(
    path.relative_to(ROOT)
    for folder in (".", "docs", "docs/decisions", "benchmarks")
    for path in (ROOT / folder).glob("*.md")
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n?)+")
ADAPTERS = {"mponet_torch": "torch", "mponet_jax": "jax", "mponet_tensorflow": "tensorflow"}


def text_of(page):
    """The page as written."""
    return (ROOT / page).read_text(encoding="utf-8")


def prose(page):
    """The page without its blocks of code."""
    return INDENTED.sub("", FENCE.sub("", text_of(page)))


def inline(page):
    """What stands between single backticks in the text of a page, tables included."""
    return sorted({" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))})


def code(page, language):
    """The fenced blocks of a language; for ``bash`` also the indented ones."""
    found = [block for name, block in FENCE.findall(text_of(page)) if name == language]
    if language == "bash":
        found += [re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in INDENTED.findall(text_of(page))]
    return found


def command_lines(page):
    """Every ``mponet ...`` and ``python FILE ...`` of a page, without comments."""
    lines = [line for block in code(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *inline(page)]:
        for part in re.split(r"&&|\|\||[|>;]", re.sub(r"(^|\s)#.*", "", line)):
            if command := re.match(r"(?:\S+=\S* )*(?:\S*/)?((?:mponet|python3?) .*)", part.strip()):
                yield command[1]


@dataclass(frozen=True)
class Session:
    """Python blocks of a page that continue one another.

    Attributes:
        page: where they are.
        framework: the framework whose adapter they import, or None.
        code: their lines, with blank lines above so that errors show the line in the page.
    """

    page: Path
    framework: str | None
    code: str

    def run(self):
        """Run it; gives its variables and what it printed."""
        variables, printed = {"__name__": "__main__"}, io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(self.code, str(self.page), "exec"), variables)
        return variables, printed.getvalue()


def sessions(page):
    """The Python sessions of a page: a block without imports continues the block before it."""
    text, found = text_of(page), []
    for match in FENCE.finditer(text):
        if match[1] != "python":
            continue
        imported = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(match[2]))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        }
        line = text.count("\n", 0, match.start(2))
        if imported or not found:
            framework = next((ADAPTERS[name] for name in imported & set(ADAPTERS)), None)
            found.append(Session(page, framework, "\n" * line + match[2]))
        else:
            last = found.pop()
            found.append(Session(page, last.framework, last.code + "\n" * (line - last.code.count("\n")) + match[2]))
    return found


SESSIONS = [session for page in PAGES for session in sessions(page)]

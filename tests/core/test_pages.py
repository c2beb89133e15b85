"""The pages of the documentation: what they link to and name is there, and their code runs."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from core.command import run
from documents import PAGES, SESSIONS, code, command_lines, inline, prose, text_of
from mponet.cli.group import mponet
from references import ROOT, identifiers, is_path, problem, unknown_path

LINK = re.compile(r"\]\(([^)\s]+)\)")
#: Files that describe the past: names in them may be gone.
HISTORY = (Path("CHANGELOG.md"),)
#: Identifiers in the text that the packages do not define.
FOREIGN = {"PIP_FIND_LINKS", "MPONET_BACKENDS", "TypeAdapter", "to_graphviz"} | {
    *("BlockTT", "FiniteMPO", "LinearLayerTT", "MatrixProductOperator", "TTMatrix"),
    *("make_fx", "permute_arrays"),
}
WIDTH = 100


def anchors(path):
    """What a heading is called in a link, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_pages():
    assert {Path("README.md"), Path("ARCHITECTURE.md"), Path("docs/performance.md")} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_link_within_the_repository_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = ROOT / page if not file else (ROOT / page).parent / file
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY], ids=str)
def test_every_name_and_path_resolves(page):
    wrong = {text: why for text in inline(page) if (why := problem(text))}
    assert not wrong


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY], ids=str)
def test_every_identifier_is_defined_somewhere(page):
    """Words between backticks that can only be identifiers: an underscore or a capital inside."""
    words = {re.sub(r"\(.*\)$", "", text) for text in inline(page)}
    words = {word for word in words if re.fullmatch(r"[A-Za-z]\w*(_\w+|[a-z][A-Z]\w*)", word)}
    assert words <= identifiers() | FOREIGN


def test_foreign_identifiers_are_foreign_and_in_use():
    assert not FOREIGN & identifiers()
    assert {word for page in PAGES for text in inline(page) for word in re.findall(r"\w+", text)} >= FOREIGN


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_lines_fit_the_width(page):
    """Tables and links may be longer; so may lines of code, which are not wrapped."""
    wide = [line for line in prose(page).splitlines() if len(line) > WIDTH and not re.match(r"\||.*\]\(\S+\)", line)]
    assert not wide


# ---------------------------------------------------------------- commands


def check_options(command, words):
    """That a command has the subcommands and the options of a command line."""
    while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z]+", words[0]):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"there is no command {name}"
        command = found
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"-h", "--help", "--version"}
    for word in words:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in options, f"{command.name} has no option {word}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_exists(page):
    for line in command_lines(page):
        program, *words = shlex.split(line)
        if program == "mponet":
            check_options(mponet, words)
        elif words[0] != "-m" and is_path(words[0]):
            assert unknown_path(words[0]) is None, line


@pytest.mark.parametrize("script", sorted((ROOT / "docs").glob("*.sh")), ids=lambda path: path.name)
def test_every_command_of_a_script_exists(script):
    lines = re.findall(r"\bmponet ([a-z]+ [^|>&;\n]*)", script.read_text(encoding="utf-8"))
    assert lines
    for line in lines:
        if '"${@' not in line:
            check_options(mponet, shlex.split(re.sub(r"\$\{\w+:\+.*?\}", "", line)))


def test_help_of_every_command_in_the_readme():
    commands = {words[1] for line in command_lines(Path("README.md")) if (words := line.split())[0] == "mponet"}
    assert len(commands) >= 11
    for name in commands:
        assert run(name, "--help").exit_code == 0, name


# ---------------------------------------------------------------- code


@pytest.mark.parametrize("session", [s for s in SESSIONS if s.framework is None], ids=lambda s: str(s.page))
def test_python_without_a_framework_runs(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session.run()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_json_is_json(page):
    for block in code(page, "json"):
        json.loads(block)

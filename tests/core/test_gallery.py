"""docs/gallery.md and its pictures are what docs/gallery.py writes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.command import run

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    subprocess.run([sys.executable, DOCS / "gallery.py", folder], check=True, env=environment)
    return folder


def test_the_gallery_is_up_to_date(made):
    names = sorted(path.name for path in (made / "gallery").iterdir())
    assert names == sorted(path.name for path in (DOCS / "gallery").iterdir())
    stale = [name for name in names if (made / "gallery" / name).read_bytes() != (DOCS / "gallery" / name).read_bytes()]
    assert not stale, "look at them after: python docs/gallery.py"
    assert (made / "gallery.md").read_text(encoding="utf-8") == (DOCS / "gallery.md").read_text(encoding="utf-8")


def test_the_commands_of_the_page_draw_its_pictures(tmp_path):
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    mponet (draw .*) -o (\S+)$", page, flags=re.MULTILINE)
    assert len(commands) == 12
    for command, name in commands:
        assert run(*command.split(), "-o", str(tmp_path / name)).exit_code == 0
        assert (tmp_path / name).read_bytes() == (DOCS / "gallery" / name).read_bytes()


def test_the_page_shows_every_picture():
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for path in (DOCS / "gallery").iterdir():
        assert f"(gallery/{path.name})" in page
        assert path.stat().st_size < 100_000

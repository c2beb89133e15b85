"""What notebooks show of a value: its picture, by a renderer that the package root provides."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mponet.errors import InputError


class NotebookRepr:
    """A value that notebooks show as a picture.

    This module knows no renderer.  `mponet` provides one when it is imported, and the renderer is
    loaded when a notebook first asks for a picture.
    """

    __slots__ = ()

    def _repr_svg_(self) -> str | None:
        """The picture as SVG; None if there is nothing to draw yet or no renderer is provided."""
        return _renderer().notebook_svg(self) if _renderer else None

    def _repr_html_(self) -> str | None:
        """The picture as HTML; None if there is nothing to draw yet or no renderer is provided."""
        return _renderer().notebook_html(self) if _renderer else None


def page(value: object) -> str:
    """The picture of a value as an HTML page in one file.

    Raises:
        InputError: there is no picture of such a value, or no renderer is provided.
    """
    return str(_provided().render(value, "html"))


def save_picture(value: object, path: Path) -> None:
    """Write the picture of a value; the ending of the name is the format.

    Raises:
        InputError: there is no picture of such a value or format, or no renderer is provided.
        CheckpointError: the file cannot be written.
    """
    _provided().save(value, path)


def _provided() -> Any:
    if _renderer is None:
        raise InputError("no renderer is provided; expected the one of mponet.draw; import mponet first")
    return _renderer()


def provide_renderer(load: Callable[[], Any]) -> None:
    """Set the function that loads the renderer.

    Args:
        load: returns an object with ``notebook_svg(value)`` and ``notebook_html(value)``.  It is
            called once per picture, so that a heavy renderer is imported only when it is needed.
    """
    global _renderer
    _renderer = load


_renderer: Callable[[], Any] | None = None

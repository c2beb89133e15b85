"""SVG pictures as PNG, by resvg, a wheel that needs only fonts of the system."""

from collections.abc import Callable
from functools import lru_cache

from mponet.draw.markup import element
from mponet.draw.svg import svg
from mponet.draw.theme import FONT
from mponet.errors import BackendError, InputError

#: Pixels of the PNG per pixel of the SVG, for sharp prints.
SCALE = 2.0


def png(picture: str, scale: float = SCALE) -> bytes:
    """A picture as PNG, light unless the picture was made dark.

    Args:
        picture: an SVG document.
        scale: pixels of the PNG per pixel of the SVG.

    Raises:
        BackendError: the converter is not installed.
        InputError: no font is found on this machine, so that all text would be missing.
    """
    try:
        from resvg_py import svg_to_bytes
    except ImportError as error:
        raise BackendError(
            "PNG pictures need resvg-py, which is not installed; expected it beside mponet; pip install "
            "'mponet[draw]', or take SVG"
        ) from error
    if not _finds_fonts(svg_to_bytes):
        raise InputError(f"this machine has none of the fonts {FONT}; expected one; install DejaVu Sans, or take SVG")
    return bytes(svg_to_bytes(svg_string=picture, zoom=scale))


@lru_cache(maxsize=1)
def _finds_fonts(convert: Callable[..., bytes]) -> bool:
    """Whether a letter is drawn; without one of our fonts the converter omits text silently."""
    blank, letter = (bytes(convert(svg_string=svg(9, 9, "", element("text", text, y=9)))) for text in " M")
    return blank != letter

"""What notebooks show of a value: its picture."""

from importlib import import_module
from typing import Any


class Drawn:
    """A value that notebooks show as a picture, drawn by `mponet.draw`.

    The drawings come late in the order of imports (`ARCHITECTURE.md`) and know the values, not the other way round: so
    they are looked up by name, when a notebook asks, as `mponet.backend` looks up the adapters.
    """

    __slots__ = ()

    def _repr_svg_(self) -> str | None:
        """The picture as SVG; None where there is nothing to draw yet."""
        return _drawings().notebook_svg(self)  # type: ignore[no-any-return]

    def _repr_html_(self) -> str | None:
        """The picture as HTML; None where there is nothing to draw yet."""
        return _drawings().notebook_html(self)  # type: ignore[no-any-return]


def _drawings() -> Any:
    return import_module("mponet.draw")

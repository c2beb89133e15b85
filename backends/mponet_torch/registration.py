"""Lets ``from_pretrained`` know compressed models, once `transformers` is imported.

Neither it nor the compression of mponet is imported before that.
"""

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

#: The module of `transformers` that keeps the list of methods.
REGISTRY = "transformers.quantizers.auto"


class _WhenImported(MetaPathFinder):
    """Registers the method once `transformers` loads its list of methods, and not before."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module's own spec, with a loader that registers the method afterwards."""
        if name != REGISTRY:
            return None
        sys.meta_path.remove(self)  # for the search of the others
        try:
            spec = find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            run = loader.exec_module

            def exec_module(module: Any) -> None:
                run(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _register_now()

            loader.exec_module = exec_module
        return spec


def _register_now() -> None:
    try:
        import_module("mponet_torch.compression.quantizer")
    except ImportError:
        # an old version of `transformers`, which refuses compressed models because of their sizes
        return


def register() -> None:
    """Let ``from_pretrained`` know the method ``mponet``, without importing `transformers`."""
    if REGISTRY in sys.modules:
        _register_now()
    elif not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())

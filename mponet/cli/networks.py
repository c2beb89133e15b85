"""Networks that a command line names: by a function of Python."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from mponet.errors import InputError


def from_function(name: str) -> tuple[Any, Any]:
    """What a function ``MODULE:FUNCTION`` returns: a network, and an example or batches.

    Raises:
        InputError: there is no such function, or it returns something else.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        made = getattr(import_module(module), function)()
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"the network is {name} ({error}); expected MODULE:FUNCTION that can be imported") from error
    finally:
        sys.path.pop(0)
    if not isinstance(made, tuple) or len(made) != 2:
        raise InputError(f"{name} returned a {type(made).__name__}; expected (network, inputs)")
    return made

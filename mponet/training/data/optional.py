"""Imports of the libraries that only some functions of `mponet.training.data` need."""

import importlib
from typing import Any

from mponet.errors import DataError


def experiments_module(module: str, purpose: str) -> Any:
    """Import `module`, which comes with the extra ``mponet[experiments]``.

    Raises:
        DataError: the module is missing or cannot be imported; names `purpose` and the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{module} is needed {purpose} but cannot be imported ({error}); "
            "install it with: pip install 'mponet[experiments]'"
        ) from error

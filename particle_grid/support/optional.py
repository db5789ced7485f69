"""Libraries that not everyone needs, and the way to get them."""

import importlib
from typing import Any


def load(module: str, extra: str, what: str) -> Any:
    """A module that comes with an extra of the package. Raises ValueError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise ValueError(
            f'{what} needs {missing}, which is not installed: pip install "particle-grid[{extra}]"'
        ) from None

"""Optional dependencies, which come with extras of the package."""

import importlib
from typing import Any

from particle_grid.support.errors import UserError


def load(module: str, extra: str, what: str) -> Any:
    """Import an optional module.

    Args:
        module: its name.
        extra: the extra of this package that installs it.
        what: what needs it, as the subject of a sentence.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise UserError(
            f'{what} needs {missing}, which is not installed: pip install "particle-grid[{extra}]"'
        ) from None

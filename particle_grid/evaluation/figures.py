"""Draw with Matplotlib, and write its figures to files."""

import io
from pathlib import Path
from typing import Any

from particle_grid.support import atomic, optional


def load_figure() -> Any:
    """Return Matplotlib's Figure.

    Raises:
        UserError: if Matplotlib is not installed, naming the extra that provides it.
    """
    figure = optional.load("matplotlib.figure", "plot", "Drawing figures").Figure
    # A dollar sign in a name does not start a formula.
    optional.load("matplotlib", "plot", "Drawing figures").rcParams["text.parse_math"] = False
    return figure


def png(figure: Any) -> bytes:
    """Return a figure as a PNG file."""
    data = io.BytesIO()
    figure.savefig(data, dpi=110, format="png")
    return data.getvalue()


def save(path: Path, figure: Any) -> bytes:
    """Write a figure as PNG, atomically, and return its bytes. Raise OSError if it cannot be written."""
    data = png(figure)
    atomic.write(path, data)
    return data

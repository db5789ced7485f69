"""Pictures with Matplotlib: its figures, and files of them."""

import io
from pathlib import Path
from typing import Any

from particle_grid.support import atomic, optional


def load_figure(extra: str, what: str) -> Any:
    """Return Matplotlib's Figure. Raise ValueError where it is not installed, naming the extra that brings it."""
    figure = optional.load("matplotlib.figure", extra, what).Figure
    optional.load("matplotlib", extra, what).rcParams["text.parse_math"] = False  # dollar signs in a name are a name's
    return figure


def save(path: Path, figure: Any) -> bytes:
    """Write a figure as PNG, in one step, and return what was written. Raise OSError where it cannot be written."""
    data = io.BytesIO()
    figure.savefig(data, dpi=110, format="png")
    atomic.write(path, data.getvalue())
    return data.getvalue()

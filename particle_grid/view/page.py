"""The page that shows worlds in a browser: its sources in `page/`, joined to one file that needs no network."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from particle_grid.view.frame import CELL_COLOURS

SOURCES = Path(__file__).with_name("page")
SCRIPTS = (
    *("data.js", "recording.js", "link.js", "draw.js", "view.js", "chart.js", "panel.js", "side.js", "round.js"),
    *("main.js", "pointer.js", "controls.js", "gallery.js", "start.js"),
)


def joined(known: Mapping[str, Any], more: Sequence[str] = ()) -> str:
    """Return the page.

    Args:
        known: what its scripts read, see `page/data.js`.
        more: names of further scripts, which run at the end.
    """
    scripts = "\n".join(_source(name) for name in (*SCRIPTS, *more))
    everything = {"palette": CELL_COLOURS.tolist(), **known}
    # Escaped, so that no text can end the script that contains it.
    data = json.dumps(everything, separators=(",", ":")).replace("<", "\\u003c")
    page = _source("page.html")
    for mark, part in (("/*STYLE*/", _source("page.css")), ("/*SCRIPT*/", scripts), ("/*DATA*/null", data)):
        page = page.replace(mark, part, 1)
    return page


def _source(name: str) -> str:
    return (SOURCES / name).read_text("utf-8")

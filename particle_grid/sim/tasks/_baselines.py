"""The scores of random actions and of the scripts that ship with the package, and the settings they belong to."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

STORED = Path(__file__).parents[1] / "baselines.json"


@cache
def entries() -> list[dict[str, Any]]:
    """Return all stored entries, dicts of `settings` and the scores `random` and `scripted`, each [seeds][teams].

    Every environment looks for its own, so the file is read once: `cache_clear` after it has changed.
    """
    found: list[dict[str, Any]] = json.loads(STORED.read_text("utf-8")) if STORED.exists() else []
    return found


def entry_for(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the entry whose settings include all of these, or None."""
    return next((entry for entry in entries() if settings.items() <= entry["settings"].items()), None)


def reference_scores(settings: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the stored scores of random actions and of the script with these settings, or None if there are none."""
    entry = entry_for(settings)
    return None if entry is None else (float(np.mean(entry["random"])), float(np.mean(entry["scripted"])))

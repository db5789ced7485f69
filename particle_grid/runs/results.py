"""The scores of a finished run, and the file that holds them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.support import atomic, records
from particle_grid.support.errors import UserError

PLAYERS = ("random", "scripted", "sampled", "greedy")  # keys; the last two are the policy's
OLD_KEYS = {"random actions": "random", "script": "scripted", "policy, sampled": "sampled", "policy, greedy": "greedy"}
VERSION = 2  # version of the file; version 1 had OLD_KEYS and no number


@dataclass(frozen=True)
class Results:
    """Final scores by player, one of PLAYERS.

    scores: f64[seeds, teams] in the task's unit. normalised: f64[seeds], 0 for random actions and 1 for the script;
    NaN where both score the same. Both are empty for a run without evaluations.
    """

    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    normalised: Mapping[str, np.ndarray] = field(default_factory=dict)

    def mean(self, player: str) -> float | None:
        """Return the mean normalised score of a player, or None if it was not evaluated.

        Raises:
            UserError: for a name that is not among PLAYERS.
        """
        if player not in PLAYERS:
            raise UserError(f"There is no player {player!r}. Choose one of: {', '.join(PLAYERS)}.")
        return float(np.mean(self.normalised[player])) if player in self.normalised else None

    def by_team(self, player: str) -> np.ndarray:
        """Return the normalised scores of a player, f64[seeds, teams], each team by itself."""
        return normalised(self.scores[player], self.scores["random"].mean(0), self.scores["scripted"].mean(0))

    def write(self, path: Path) -> None:
        """Write the file in one step: its existence is what makes a run finished.

        Raises:
            OSError: if it cannot be written.
        """
        content: dict[str, Any] = {"version": VERSION}
        for player, scores in self.scores.items():
            content[player] = {"scores": scores.tolist(), "normalised_scores": self.normalised[player].tolist()}
        atomic.write(path, (json.dumps(content, indent=1) + "\n").encode())


def normalised(scores: np.ndarray, random: np.ndarray, scripted: np.ndarray) -> np.ndarray:
    """Return scores on the scale from random actions (0) to the script (1), each team by itself.

    Args:
        scores: f64[..., teams] in the task's unit.
        random, scripted: f64[teams], mean scores.

    Returns:
        f64[..., teams]; NaN where random actions and the script score the same.
    """
    span = np.where(np.abs(scripted - random) > 1e-9, scripted - random, np.nan)
    return np.asarray((scores - random) / span)


def read_results(path: Path, remedy: str) -> Results:
    """Return the results in a file of any version.

    Raises:
        UserError: for a file that is damaged; the sentence ends with the remedy.
    """
    content = records.read_json(path, remedy)
    if not isinstance(content, dict) or content.get("version", 1) not in (1, VERSION):
        raise UserError(f"{path} is not a run's results, or of a later version.", remedy)
    content = {OLD_KEYS.get(key, key): value for key, value in content.items() if key != "version"}
    scores = {player: _numbers(path, content, player, "scores", 2, remedy) for player in content}
    normalised = {player: _numbers(path, content, player, "normalised_scores", 1, remedy) for player in content}
    return Results(scores, normalised)


def _numbers(path: Path, content: Mapping[str, Any], player: str, key: str, axes: int, remedy: str) -> np.ndarray:
    """Return an array of the file; only normalised scores may be NaN."""
    try:
        numbers = np.array(content[player][key], float)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        numbers = np.zeros(0)
    sound = np.isfinite(numbers) if key == "scores" else ~np.isinf(numbers)
    if not numbers.size or numbers.ndim != axes or not sound.all():
        raise UserError(f"{path} is not a run's results: its {key} of {player!r} are not finite numbers.", remedy)
    return numbers

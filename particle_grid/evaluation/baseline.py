"""Baselines: the scores of random actions and of the script in one setting, between which scores are normalised."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.match import SEEDS, evaluate, steps_for
from particle_grid.evaluation.players import random_player, scripted_player
from particle_grid.runs.results import normalised
from particle_grid.sim.tasks._baselines import STORED, entries, entry_for
from particle_grid.support import atomic


@dataclass(frozen=True)
class Baseline:
    """Scores of random actions and of the script in one setting, each a list [seeds][teams]."""

    random: list[list[float]]
    scripted: list[list[float]]

    def normalise(self, scores: np.ndarray) -> np.ndarray:
        """Return scores on the scale from random actions (0) to the script (1), averaged over teams.

        Args:
            scores: f64[..., teams] in the task's unit.

        Returns:
            f64[...]; NaN if random actions and the script score the same.
        """
        return normalised(scores, np.mean(self.random, 0), np.mean(self.scripted, 0)).mean(-1)


def measure(env: ParticleGrid, seeds: Sequence[int] = SEEDS, steps: int | None = None) -> Baseline:
    """Return the baseline of an environment, played now. This takes some seconds."""
    random = evaluate(env, random_player, seeds, steps)
    scripted = evaluate(env, scripted_player, seeds, steps)
    return Baseline(random.tolist(), scripted.tolist())


def stored(env: ParticleGrid, seeds: Sequence[int] = SEEDS, steps: int | None = None) -> Baseline | None:
    """Return the baseline that ships with the package for an environment, or None."""
    entry = entry_for(_key(env, seeds, steps))
    return None if entry is None else Baseline(entry["random"], entry["scripted"])


def store(env: ParticleGrid, baseline: Baseline) -> None:
    """Store a baseline with the package, in place of that of the same task and action form."""
    key = _key(env, SEEDS, None)
    entries.cache_clear()  # another process may have stored one since
    same = {name: key[name] for name in ("task", "action")}
    kept = [entry for entry in entries() if not same.items() <= entry["settings"].items()]
    kept.append({"settings": key, "random": baseline.random, "scripted": baseline.scripted})
    kept.sort(key=lambda entry: (entry["settings"]["task"], entry["settings"]["action"]))
    atomic.write(STORED, (json.dumps(kept, indent=1) + "\n").encode())
    entries.cache_clear()


def baseline_for(env: ParticleGrid, console: Console, seeds: Sequence[int], steps: int | None) -> Baseline:
    """Return the stored baseline of an environment, or measure it if its settings have none."""
    found = stored(env, seeds, steps)
    if found:
        return found
    with console.status("Measuring random actions and the script in this setting"):
        return measure(env, seeds, steps)


def _key(env: ParticleGrid, seeds: Sequence[int], steps: int | None) -> dict[str, Any]:
    return env.setting() | {"seeds": list(seeds), "steps": steps or steps_for(env)}

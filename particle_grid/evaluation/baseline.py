"""Baselines: the scores of random actions and of the script in one setting, between which scores are normalised."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.match import SEEDS, evaluate, steps_for
from particle_grid.evaluation.players import random_player, scripted_player
from particle_grid.support import atomic

STORED = Path(__file__).parents[1] / "sim" / "baselines.json"


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
        random = np.mean(self.random, 0)
        scripted = np.mean(self.scripted, 0)
        span = np.where(np.abs(scripted - random) > 1e-9, scripted - random, np.nan)
        return ((scores - random) / span).mean(-1)


def setting(env: ParticleGrid) -> dict[str, Any]:
    """Return everything that a baseline depends on, as plain values. Files use these keys."""
    action = "discrete" if env.discrete else "continuous"
    params = asdict(env.task)  # type: ignore[call-overload]
    return {"task": env.task_name, "action": action, **asdict(env.world), "params": params}


def measure(env: ParticleGrid, seeds: Sequence[int] = SEEDS, steps: int | None = None) -> Baseline:
    """Return the baseline of an environment, played now. This takes some seconds."""
    random = evaluate(env, random_player, seeds, steps)
    scripted = evaluate(env, scripted_player, seeds, steps)
    return Baseline(random.tolist(), scripted.tolist())


def stored(env: ParticleGrid, seeds: Sequence[int] = SEEDS, steps: int | None = None) -> Baseline | None:
    """Return the baseline that ships with the package for an environment, or None."""
    key = _key(env, seeds, steps)
    for entry in _entries():
        if entry["settings"] == key:
            return Baseline(entry["random"], entry["scripted"])
    return None


def store(env: ParticleGrid, baseline: Baseline) -> None:
    """Store a baseline with the package, in place of that of the same task and action form."""
    key = _key(env, SEEDS, None)
    same = {name: key[name] for name in ("task", "action")}
    entries = [entry for entry in _entries() if not same.items() <= entry["settings"].items()]
    entries.append({"settings": key, "random": baseline.random, "scripted": baseline.scripted})
    entries.sort(key=lambda entry: (entry["settings"]["task"], entry["settings"]["action"]))
    atomic.write(STORED, (json.dumps(entries, indent=1) + "\n").encode())


def baseline_for(env: ParticleGrid, console: Console, seeds: Sequence[int], steps: int | None) -> Baseline:
    """Return the stored baseline of an environment, or measure it if its settings have none."""
    found = stored(env, seeds, steps)
    if found:
        return found
    with console.status("Measuring random actions and the script in this setting"):
        return measure(env, seeds, steps)


def _key(env: ParticleGrid, seeds: Sequence[int], steps: int | None) -> dict[str, Any]:
    return setting(env) | {"seeds": list(seeds), "steps": steps or steps_for(env)}


def _entries() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(STORED.read_text("utf-8")) if STORED.exists() else []
    return entries

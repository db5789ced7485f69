"""How fast a run of training learns, read from TensorBoard's files and its results."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import yaml

from particle_grid.env import ParticleGrid
from particle_grid.evaluation.baseline import measure
from particle_grid.experiments.stats import interquartile_mean
from particle_grid.runs.curves import curve_of, read_scalars
from particle_grid.runs.folder import SPEED, RunFolder
from particle_grid.runs.results import normalised
from particle_grid.runs.versions import upgraded_config
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.world import World

WINDOW = 500_000  # agent-steps over which scores are averaged
LEVELS = (0.5, 1.0)  # normalised scores to reach
TENTHS = 10
LONG = 4096  # steps


class Curves:
    """The learning curves of a run.

    Attributes:
        steps: i64[iterations], agent-steps.
        seconds: f64[iterations], of training.
        updates: i64[iterations], optimiser steps.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.config = RunConfig.from_dict(upgraded_config(yaml.safe_load(folder.config.read_text("utf-8"))))
        self.results = folder.read_results()
        self.scalars = read_scalars(folder)
        speed = curve_of(self.scalars, SPEED)
        self.steps = speed.steps
        batch = np.diff(self.steps, prepend=0)
        trainer = self.config.trainer
        self.seconds = np.cumsum(batch / speed.values)
        self.updates = np.cumsum(np.ceil(batch / trainer.minibatch).astype(int) * trainer.epochs)

    def teams(self) -> list[dict[str, float]]:
        """Return how each team learned: the columns of a table, with the last score of training as `end`.

        Two teams that spawn apart may score best before they meet, so `end_of_best` is NaN for them.
        """
        rows = []
        teams = self.scores()
        for team, scores in enumerate(teams):
            row: dict[str, float] = {"team": team + 1, "steps": int(self.steps[-1]), "seconds": self.seconds[-1]}
            row |= {"updates": self.updates[-1], "end": self.window_means(scores)[-1]}
            row["end_of_best"] = self.end_of_best(scores) if len(teams) == 1 else np.nan
            row |= {player: self.final(player, team) for player in ("sampled", "greedy")}
            rows.append(row | self.times(scores, row["sampled"]))
        return rows

    def scores(self) -> list[np.ndarray]:
        """Return the normalised scores of each team."""
        count = self.results.scores["random"].shape[1]
        if count == 1:
            return [normalised(curve_of(self.scalars, "env/score").values, *self._references())]
        task = self.config.task, tuple(self.config.task_params.items())
        references = long_match(task, self.config.action, self.config.world)
        curves = [curve_of(self.scalars, f"env/score_{team + 1}").values for team in range(count)]
        return list(normalised(np.stack(curves, -1), *references).T)

    def final(self, player: str, team: int) -> float:
        """Return the normalised score of a team after training."""
        return float(self.results.by_team(player)[:, team].mean())

    def _references(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores of random actions and of the script in the evaluation, f64[teams] each."""
        return self.results.scores["random"].mean(0), self.results.scores["scripted"].mean(0)

    def end_of_best(self, scores: np.ndarray) -> float:
        """Return the mean score of the last tenth of training, divided by that of the best tenth."""
        tenths = [part.mean() for part in np.array_split(scores, min(TENTHS, len(scores)))]
        return float(tenths[-1] / max(tenths))

    def window_means(self, scores: np.ndarray) -> np.ndarray:
        """Return the mean score of the last WINDOW agent-steps in each iteration, and NaN before there are as many."""
        means = np.full(len(scores), np.nan)
        for k, end in enumerate(self.steps):
            if end >= min(WINDOW, self.steps[-1]):
                means[k] = scores[(self.steps > end - WINDOW) & (self.steps <= end)].mean()
        return means

    def times(self, scores: np.ndarray, final: float) -> dict[str, float]:
        """Return steps, seconds and updates until the score reaches each level; NaN if the final score does not.

        Scores of training and of the evaluation may differ. So that times agree with the final score, it decides
        whether a level counts; a level that only the evaluation reaches counts at the end of training. The score of a
        higher level counts for a lower one, too.
        """
        means = self.window_means(scores)
        row: dict[str, float] = {}
        for level in LEVELS:
            first = min(_reached(means, each) for each in LEVELS if level <= each <= max(level, final))
            for name in ("steps", "seconds", "updates"):
                row[f"{name}_to_{level}"] = float(getattr(self, name)[first]) if final >= level else np.nan
        return row


def _reached(means: np.ndarray, level: float) -> int:
    """Return when a score first reaches a level from below, or the last index.

    Teams that spawn apart may score well until they meet, so a score that starts above the level must fall below it
    first, if it ever does.
    """
    below = np.flatnonzero(means < level)
    first = below[0] if below.size else 0
    reached = np.flatnonzero(means[first:] >= level)
    return int(first + reached[0]) if reached.size else len(means) - 1


@cache
def long_match(
    task: tuple[str, tuple[tuple[str, Any], ...]], action: str, world: World
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of random actions and of the script in a long match, f64[teams] each.

    Two teams take longer to mix than an evaluation lasts, so scores during training are compared with these.

    Args:
        task: its name and parameters.
    """
    name, params = task
    env = ParticleGrid(name, action, world=world, **dict(params))
    found = measure(env, (1000,), LONG)
    return np.mean(found.random, 0), np.mean(found.scripted, 0)


def middle(values: Sequence[float] | np.ndarray) -> float:
    """Return the interquartile mean; infinite if one of the middle values is."""
    with np.errstate(invalid="ignore"):
        mean = float(interquartile_mean(np.asarray(values)[None]))
    return np.inf if np.isnan(mean) else mean

"""Measure the scores of random actions and of the scripts in each task's default world, and store them.

python -m particle_grid.baselines             # all tasks in both action forms
python -m particle_grid.baselines task=group
"""

import numpy as np
from omegaconf import DictConfig

from particle_grid.cli import command
from particle_grid.env import ACTIONS
from particle_grid.evaluation import baseline
from particle_grid.runs.build import build_env
from particle_grid.settings.compose import composed
from particle_grid.settings.invocation import Invocation
from particle_grid.sim import tasks


@command("baselines")
def main(config: DictConfig, call: Invocation) -> None:
    """Store and print the baseline of each setting that `train task=NAME action=FORM` has."""
    names = [config.task.name] if config.get("task") else tasks.names()
    for name in names:
        for action in ACTIONS:
            env = build_env(composed([f"task={name}", f"action={action}"]))
            measured = baseline.measure(env)
            baseline.store(env, measured)
            means = f"random {by_team(measured.random)}   script {by_team(measured.scripted)}"
            print(f"{name:14s} {action:11s} {means}   {env.unit}")


def by_team(scores: list[list[float]]) -> str:
    """Return the mean over seeds of each team's score, as text."""
    return " / ".join(f"{mean:z9.4f}" for mean in np.mean(scores, 0))


if __name__ == "__main__":
    main()

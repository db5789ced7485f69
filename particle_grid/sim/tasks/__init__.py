"""The tasks: one file each. A task is a frozen dataclass of parameters that lays a world out and rewards its agents.

The file `my_task.py` in this folder defines the class `MyTask` and is thereby registered as `my_task`. A task may as
well be anywhere else: docs/own.md.
"""

import pkgutil
from dataclasses import fields, is_dataclass
from typing import Protocol

import numpy as np

from particle_grid.sim.state import State
from particle_grid.sim.world import Layout
from particle_grid.support import registry

PARTS = ("unit", "teams", "sight", "init", "reward", "score", "scripted")


class Task(Protocol):
    """What a task provides. N = worlds * agents; the arrays of `state` are described at `State`.

    Its fields are its parameters: numbers or texts, each with a default. It may have besides: `kinds`, a name for the
    agents of each colour, for legends; and `settings`, what of `world` and `trainer` its command line starts from, as
    in {"world": {"max_episode_steps": 256}}."""

    unit: str  # of the score, for people
    teams: int  # 1, or 2 if agents of AGENT_1 play against those of AGENT_2: then each side has a score of its own
    sight: bool  # whether reward or score use `own_in_sight` and `others_in_sight`; if not, they stay at UNSEEN

    def init(self, layout: Layout) -> None:
        """Lays the world out. Runs once, before anything is placed. Raises ValueError for parameters that fail."""

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Writes rewards f32[N] in [-1, 1] for the step just made, once everybody has moved and looked around.

        What it writes for agents that spawned in this step is replaced by 0."""

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Success of each agent in this step, f32[N] in the `unit`; its mean over agents and steps is the score."""

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Plays by hand: from observations u8[N, row] to aim f32[N, 2], where the agent wants to be, in cells from
        where it is. rng u64[1] is the script's own generator."""


def _places() -> dict[str, str]:
    """Where the classes of the registered tasks are: in the files here, and where installed packages say."""
    files = [module.name for module in pkgutil.iter_modules(__path__)]
    here = {name: f"{__name__}.{name}:{''.join(part.capitalize() for part in name.split('_'))}" for name in files}
    return registry.registered("task") | here


def names() -> list[str]:
    """Names of the registered tasks."""
    return sorted(_places())


def load(name: str) -> type:
    """The class of a task: a registered one, or one at a place `my_package.my_module:MyTask`. Raises ValueError where
    there is none, or an unfinished one."""
    place = name if registry.is_place(name) else _places().get(str(name))
    if place is None:
        raise ValueError(
            f"There is no task {name!r}. The tasks are: {', '.join(names())}; my_module:MyTask names one of your own."
        )
    kind = registry.load("task", place, PARTS)
    if not is_dataclass(kind):
        raise ValueError(f"The task {place} is no dataclass, whose fields are its parameters: decorate it with one.")
    for field in fields(kind):
        if field.init and not isinstance(field.default, int | float | str | None):
            raise ValueError(
                f"The parameter {field.name} of the task {place} has no number or text as its default: give it one."
            )
    return kind


def check(name: str, task: Task) -> None:
    """Raises ValueError where a task with its parameters set says what cannot be of its agents."""
    if task.teams not in (1, 2):
        raise ValueError(f"Task {name} has teams={task.teams!r}: let it have 1, or 2 that play against each other.")
    kinds = getattr(task, "kinds", ())
    if not isinstance(kinds, tuple | list) or not all(isinstance(kind, str) for kind in kinds):
        raise ValueError(f"Task {name} has kinds={kinds!r}: give a tuple of names, one for each colour.")

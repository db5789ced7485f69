"""The tasks: one file each. A task is a frozen dataclass of parameters that lays a world out and rewards its agents.

The file `my_task.py` in this folder defines the class `MyTask` and is thereby registered as `my_task`.
"""

import importlib
import pkgutil
from typing import Protocol

import numpy as np

from particle_grid.sim.state import State
from particle_grid.sim.world import Layout

PARTS = ("unit", "sides", "sight", "init", "reward", "score", "scripted")


class Task(Protocol):
    """What a task provides. N = worlds * agents; the arrays of `state` are described at `State`.

    It may have `kinds` besides, a name for the agents of each colour, for legends."""

    unit: str  # of the score, for people
    sides: int  # 1, or 2 if agents of AGENT_1 play against those of AGENT_2: then each side has a score of its own
    sight: bool  # whether reward or score use `own_in_sight` and `others_in_sight`; if not, they stay at UNSEEN

    def init(self, layout: Layout) -> None:
        """Lays the world out. Runs once, before anything is placed. Raises ValueError for parameters that fail."""

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Writes rewards f32[N] in [-1, 1] for the step just made, once everybody has moved and looked around.

        What it writes for agents that spawned in this step is replaced by 0."""

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Success of each agent in this step, f32[N] in `unit`s; its mean over agents and steps is the score."""

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Plays by hand: from observations u8[N, row] to aim f32[N, 2], where the agent wants to be, in cells from
        where it is. rng u64[1] is the script's own generator."""


def names() -> list[str]:
    """Names of the registered tasks."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> type:
    """The class of a registered task. Raises ValueError for a name that is not registered, or a file without it or
    with an unfinished one."""
    if name not in names():
        raise ValueError(f"There is no task {name!r}. The tasks are: {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    kind = "".join(part.capitalize() for part in name.split("_"))
    if not hasattr(module, kind):
        raise ValueError(f"The task file {name}.py defines no class {kind}: name it so, or move the file elsewhere.")
    missing = [part for part in PARTS if not hasattr(getattr(module, kind), part)]
    if missing:
        raise ValueError(f"The task {kind} in {name}.py lacks {', '.join(missing)}: see `Task` for what they are.")
    return getattr(module, kind)

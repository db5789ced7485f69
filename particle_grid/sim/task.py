"""What a task must provide, and the checks of what it returns and writes."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, Layout
from particle_grid.support.errors import UserError, UserTypeError, unknown
from particle_grid.support.text import first_line

NOT_FINITE = "look for a division by 0, a logarithm or an overflow in what it is computed from"
SETTINGS = ("task", "trainer", "world")  # groups of settings that a task may start a training run from
METHODS = {  # of a task, with the parameters that they take after `self`
    "init": ("layout",),
    "reward": ("state", "layout", "rewards"),
    "score": ("state", "layout"),
    "scripted": ("observations", "layout", "rng", "aim"),
}
PARTS = ("unit", "teams", "sight", *METHODS)


class Task(Protocol):
    """A task: how worlds are laid out, what agents are rewarded for, how success is measured, and a scripted policy.

    A task is a frozen dataclass. Its fields are its parameters, numbers or texts, each with a default. Its parts are
    class attributes and methods, of which all but `kinds`, `target` and `settings` are required:

    - `unit`: what the score counts, in words.
    - `teams`: 1, or 2 if the agents of AGENT_1 play against those of AGENT_2. Each team then has its own score.
    - `sight`: whether `reward` or `score` use `state.own_in_sight` and `state.others_in_sight`, which stay at UNSEEN
      otherwise.
    - `kinds`: names of the agents of each colour, for legends.
    - `target`: name of a target cell without an agent, for legends, such as "pen".
    - `settings`: what a training run of the task starts from, where it differs from the defaults of every task, for
      example `{"world": {"max_episode_steps": 256}, "trainer": {"total_steps": 5_000_000}}`. The command line overrides
      it; `ParticleGrid` does not use it. Parameters have their defaults in the fields; an entry under "task" is for a
      default that depends on another setting, for example `{"task": {"gamma": "${trainer.gamma}"}}`.

    The methods work on all agents of all worlds at once: N = worlds * agents. The arrays of `state` are described at
    `State`, and what can be laid out at `Layout`. Positions are in grid cells: subtract `layout.world.vision` to get
    the row and column in the field. Methods that write into an argument return nothing. None may write
    to `state` or `observations`, which the simulator continues from.
    """

    unit: str
    teams: int
    sight: bool

    def init(self, layout: Layout) -> None:
        """Lay out the worlds. Runs once, before anything is placed.

        Raises:
            UserError: if the task's parameters do not fit the world.
        """

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Write the rewards f32[N], within [-1, 1], of the step that was just made.

        All agents have moved, and agents in sight are counted. Rewards of agents that spawned in this step are replaced
        by 0.
        """

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Return the success of each agent in the last step, f32[N], in the `unit`.

        The score of a policy is the mean over agents and steps.
        """

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Write where each agent wants to be, by a hand-written rule.

        Args:
            observations: u8[N, size]; `decode` turns them into numbers.
            layout: the layout of the worlds.
            rng: u64[1], a generator for this script alone.
            aim: f32[N, 2], which is written: (row, column) in cells from where the agent is.
        """


def legend_words(task: Task) -> tuple[Sequence[str], str]:
    """Return a task's names for the agents of each colour, which may be fewer than there are, and for a target cell."""
    return getattr(task, "kinds", ()), getattr(task, "target", "free target")


def team_names(task: Task) -> list[str]:
    """Return the names of a task's teams; nothing for a single one."""
    kinds, _ = legend_words(task)
    names = [kinds[k] if k < len(kinds) else f"team {k + 1}" for k in range(task.teams)]
    return names if task.teams > 1 else []


def purpose(kind: type) -> str:
    """Return what tasks of a class are about: the first line of their module, or of the class if it has none."""
    module = inspect.getmodule(kind)
    described = None if module is None or module.__name__ == "__main__" else inspect.getdoc(module)
    return first_line(described or kind.__doc__)


def check_task(name: str, task: Task) -> None:
    """Raise UserError if the attributes of a task are invalid."""
    if task.teams not in (1, 2):
        raise UserError(f"Task {name} has teams={task.teams!r}: use 1, or 2 teams that play against each other.")
    if not isinstance(task.sight, bool | np.bool_):
        raise UserTypeError(f"Task {name} has sight={task.sight!r}: use True if it uses the agents in sight, or False.")
    kinds, target = legend_words(task)
    if not isinstance(kinds, tuple | list) or not all(isinstance(kind, str) for kind in kinds):
        raise UserError(f"Task {name} has kinds={kinds!r}: give a tuple of names, one for each colour.")
    if not isinstance(target, str):
        raise UserError(f"Task {name} has target={target!r}: give the name of a target cell, such as 'pen'.")


def check_settings(place: str, kind: type) -> None:
    """Raise UserError unless the `settings` of a task's class, if there are any, are a dict of known groups."""
    settings = getattr(kind, "settings", {})
    if not isinstance(settings, Mapping) or not all(isinstance(group, Mapping) for group in settings.values()):
        raise UserTypeError(
            f"The task {place} has settings={settings!r}: give a dict of dicts, as in "
            f'{{"world": {{"max_episode_steps": 256}}}}.'
        )
    for group in settings:
        if group not in SETTINGS:
            raise UserError(unknown(f"group {group!r} of settings for the task {place}", str(group), SETTINGS))


def check_written(name: str, method: str, returned: object) -> None:
    """Raise UserError if a method of a task returned something instead of writing it."""
    if returned is not None:
        raise UserTypeError(
            f"`{method}` of task {name} returns a {type(returned).__name__}: write into its last argument and return "
            f"nothing."
        )


def check_teams(name: str, task: Task, colour: np.ndarray) -> None:
    """Raise UserError if one of two teams has no agents, given the colours of the agents of a world."""
    for k in range(task.teams if task.teams > 1 else 0):
        if not (colour == AGENT_1 + k).any():
            raise UserError(
                f"Task {name} has teams={task.teams}, but team {k + 1} has no agents: deal colours in `init`, as in "
                f"layout.mix_colours({task.teams}), and use at least {task.teams} agents."
            )


def guarded(name: str, method: str, call: Callable[..., Any], sight: bool, given: Any, *others: Any) -> Any:
    """Call a method of a task and return what it returns. Whatever it writes to its first argument is undone.

    Args:
        name: of the task.
        method: its name.
        call: the method itself.
        sight: whether agents in sight are counted.
        given: its first argument, the state or the observations.
        others: its other arguments.

    Raises:
        UserError: if the method changes the first argument, or depends on agents in sight that are not counted.
    """
    if isinstance(given, State) and not sight:
        _check_uncounted(name, method, call, given, *others)
    return _undone(name, method, call, given, *others)


def _undone(name: str, method: str, call: Callable[..., Any], given: State | np.ndarray, *others: Any) -> Any:
    """Call a method, undo what it writes to its first argument, and raise UserError if it wrote anything."""
    parts = {f"state.{part}": x for part, x in given._asdict().items()} if isinstance(given, State) else {}
    arrays: dict[str, np.ndarray] = parts or {"observations": given}
    before = {part: array.copy() for part, array in arrays.items()}
    try:
        returned = call(given, *others)
    finally:  # before the simulator, or a caller that catches an error, uses what was overwritten
        changed = [part for part in arrays if not np.array_equal(arrays[part], before[part], equal_nan=True)]
        for part in changed:
            arrays[part][:] = before[part]
    if changed:
        part = changed[0]
        raise UserError(f"`{method}` of task {name} changes {part}: work on a copy, as in {part}.copy().")
    return returned


def _check_uncounted(name: str, method: str, call: Callable[..., Any], state: State, *others: Any) -> None:
    """Raise UserError if `reward` or `score` of a task without `sight` depends on the agents in sight.

    What they write to `others`, the layout and an array of rewards, is overwritten by the next call.
    """

    def result(**counts: np.ndarray) -> np.ndarray:
        returned = _undone(name, method, call, state._replace(**counts), *others)
        return np.array(returned if method == "score" else others[-1])

    none = dict.fromkeys(("own_in_sight", "others_in_sight"), np.zeros_like(state.own_in_sight))
    usual = result(**none)
    if not np.array_equal(usual, result(**none)):  # random, or not a number
        return
    for part in none:
        if not np.array_equal(usual, result(**none | {part: np.ones_like(state.own_in_sight)})):
            raise UserError(
                f"`{method}` of task {name} uses state.{part}, which is not counted because the class has "
                f"sight = False: set sight = True."
            )


def check_rewards(name: str, rewards: np.ndarray) -> None:
    """Raise UserError for rewards f32[N] that are NaN or outside [-1, 1]."""
    wrong = np.flatnonzero(~(np.abs(rewards) <= 1))
    if len(wrong):
        reward = rewards[wrong[0]]
        remedy = "scale it into [-1, 1]" if np.isfinite(reward) else NOT_FINITE
        raise UserError(f"Task {name} gave agent {wrong[0]} the reward {reward}: {remedy}.")


def check_scores(name: str, scores: np.ndarray, agents: int) -> None:
    """Raise UserError unless scores are finite numbers, one for each agent."""
    if scores.shape != (agents,):
        raise UserError(f"Task {name} returned scores of shape {list(scores.shape)}: return one number for each agent.")
    if scores.dtype.kind not in "biuf":
        raise UserError(f"Task {name} returned scores of dtype {scores.dtype}: return one number for each agent.")
    finite = np.isfinite(scores)
    if not finite.all():
        wrong = int(finite.argmin())
        raise UserError(f"Task {name} gave agent {wrong} the score {scores[wrong]}: {NOT_FINITE}.")


def check_aim(name: str, aim: np.ndarray) -> None:
    """Raise UserError for aims f32[N, 2] of a scripted policy that are NaN or infinite."""
    wrong = np.flatnonzero(~np.isfinite(aim).all(1))
    if len(wrong):
        raise UserError(
            f"The script of task {name} aims at {aim[wrong[0]]} for agent {wrong[0]}: write finite numbers."
        )

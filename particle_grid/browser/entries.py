"""The functions that the module exports. Their arguments are addresses of records, see `memory`.

A step consists of the stages of `ParticleGrid.step`: the actions of a script, of a policy or at random; `move`; then
the task's reward and `settle`, and `look` before or after them.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numba
import numpy as np

from particle_grid.browser.compiler import portable
from particle_grid.browser.memory import reader
from particle_grid.browser.records import Continuous, Discrete, layout_arrays, plain_rules, session, task_numbers
from particle_grid.sim import task_places, tasks
from particle_grid.sim.actions import ACTIONS, charge, steer_towards
from particle_grid.sim.advance import look_worlds, move_worlds, start_worlds
from particle_grid.sim.observation import SIGNED_ZERO, reward_feature
from particle_grid.sim.rng import below, seed_generators, uniform
from particle_grid.sim.state import allocate, make_rules
from particle_grid.sim.window import finish_agents
from particle_grid.sim.world import Layout, World

EXAMPLE = World(agents=4, height=128, width=128)  # of the types; every task can be laid out in it
TWO, ONE = np.float32(2), np.float32(1)
Entries = dict[str, Callable[..., Any]]

_layout = Layout(EXAMPLE)
_state = reader(numba.typeof(allocate(_layout)))
_rules = reader(numba.typeof(plain_rules(make_rules(_layout, discrete=True))))
session_of = reader(numba.typeof(session(EXAMPLE, sight=True)))
ACTION_READERS = {
    "discrete": reader(numba.typeof(Discrete(np.zeros((1, 2), np.int32)))),
    "continuous": reader(numba.typeof(Continuous(np.zeros((1, 2), np.float32)))),
}
_reward_feature = portable(reward_feature)
_start, _move, _look, _finish, _charge, _steer = (
    each.serial for each in (start_worlds, move_worlds, look_worlds, finish_agents, charge, steer_towards)
)


def reset(state: int, rules: int, session: int) -> int:
    """Start all worlds from a seed."""
    s, b = _state(state), session_of(session)
    seed_generators(b.seed, b.pool, s.rng)
    _start(s, _rules(rules))
    s.finished[:] = 0
    s.last_reward[:] = SIGNED_ZERO
    b.rewards[:] = 0
    b.truncations[:] = False
    b.starts[:] = True
    return 0


def look(state: int, rules: int, session: int) -> int:
    """Write the observations."""
    b = session_of(session)
    _look(_state(state), _rules(rules), b.observations, b.sight)
    return 0


def shipped_tasks() -> list[str]:
    """Return the tasks of this package, without those that other packages register."""
    return sorted(name for name, place in task_places().items() if place.startswith("particle_grid."))


def entries(names: Iterable[str]) -> Entries:
    """Return the functions of the module for the tasks of these names."""
    found: Entries = {"reset": reset, "look": look}
    for action in ACTIONS:
        found |= {f"{stage}_{action}": function for stage, function in _form_entries(action).items()}
    for name in names:
        found |= {f"{method}_{name}": function for method, function in _task_entries(tasks.load(name)()).items()}
    return found


def _form_entries(action: str) -> Entries:
    """Return the functions that take or make actions of a form."""
    discrete = action == "discrete"
    actions_of = ACTION_READERS[action]

    def move(state: int, rules: int, session: int, actions: int) -> int:
        _move(_state(state), _rules(rules), actions_of(actions).actions, session_of(session).truncations)
        return 0

    def settle(state: int, rules: int, session: int, actions: int) -> int:
        s, b = _state(state), session_of(session)
        if b.action_cost > 0:
            _charge(b.rewards, actions_of(actions).actions, _rules(rules).centre, b.action_cost)
        for i in range(len(b.starts)):
            b.starts[i] = b.truncations[i]
        if b.sight:
            return _finish(b.rewards, b.truncations, s.episode_return, _reward_feature(b.observations))
        return _finish(b.rewards, b.truncations, s.episode_return, s.last_reward)

    def steer(rules: int, session: int, actions: int) -> int:
        r, b = _rules(rules), session_of(session)
        _steer(b.aim, b.observations, r.momentum, r.speed, r.gain, discrete, actions_of(actions).actions)
        return 0

    def draw(session: int, actions: int) -> int:
        generator, chosen = session_of(session).generator, actions_of(actions).actions
        for i in range(len(chosen)):
            for axis in range(2):
                if discrete:
                    chosen[i, axis] = below(generator, 0, 3)
                else:
                    chosen[i, axis] = TWO * np.float32(uniform(generator, 0)) - ONE
        return 0

    return {"move": move, "settle": settle, "steer": steer, "draw": draw}


def _task_entries(task: Any) -> Entries:
    """Return the methods of a task."""
    layout = Layout(EXAMPLE)
    task.init(layout)
    kind = type(task)
    reward_of, score_of, scripted_of = (portable(each) for each in (kind.reward, kind.score, kind.scripted))
    numbers_of, layout_of = reader(numba.typeof(task_numbers(task))), reader(numba.typeof(layout_arrays(layout)))

    def reward(state: int, session: int, layout: int, task: int) -> int:
        reward_of(numbers_of(task), _state(state), layout_of(layout), session_of(session).rewards)
        return 0

    def score(state: int, session: int, layout: int, task: int) -> int:
        scores, found = session_of(session).scores, score_of(numbers_of(task), _state(state), layout_of(layout))
        for i in range(len(scores)):
            scores[i] = found[i]
        return 0

    def script(session: int, layout: int, task: int) -> int:
        b = session_of(session)
        b.aim[:] = 0
        scripted_of(numbers_of(task), b.observations, layout_of(layout), b.script_generator, b.aim)
        return 0

    return {"reward": reward, "score": score, "script": script}

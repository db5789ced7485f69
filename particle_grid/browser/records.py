"""What the module's functions read from memory: worlds, tasks and policies as named tuples of arrays and numbers.

The state and the rules are those of the simulator. Tasks and layouts are objects in Python, so their numbers and arrays
are copied to named tuples with the same fields, which their methods read when they are compiled.
"""

from collections import namedtuple
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from particle_grid.sim.rng import POOL
from particle_grid.sim.state import Rules
from particle_grid.sim.task import Task
from particle_grid.sim.world import Layout, World

SEED_WORDS = 2  # of 32 bits: seeds in a browser are whole numbers below 2**53
ABSENT = ("action_repeat", "dead_zone")  # settings of worlds that the module does not have


class Session(NamedTuple):
    """What a world is played with, besides its state and rules."""

    observations: np.ndarray  # u8[N, size]
    rewards: np.ndarray  # f32[N]
    truncations: np.ndarray  # bool[N]
    starts: np.ndarray  # bool[N] whether the observation is the first of an episode
    scores: np.ndarray  # f32[N]
    aim: np.ndarray  # f32[N, 2] of the script
    seed: np.ndarray  # u64[SEED_WORDS] words of 32 bits, the lowest first
    pool: np.ndarray  # u64[POOL] used while generators are seeded
    script_generator: np.ndarray  # u64[1]
    generator: np.ndarray  # u64[1] of random actions and of samples
    action_cost: np.float32  # see `World`
    sight: bool  # see `Task`


def session(world: World, sight: bool) -> Session:
    """Return the arrays for a world, with zeros in them."""
    n = world.worlds * world.agents
    return Session(
        observations=np.zeros((n, world.observation_size), np.uint8),
        rewards=np.zeros(n, np.float32),
        truncations=np.zeros(n, np.bool_),
        starts=np.zeros(n, np.bool_),
        scores=np.zeros(n, np.float32),
        aim=np.zeros((n, 2), np.float32),
        seed=np.zeros(SEED_WORDS, np.uint64),
        pool=np.zeros(POOL, np.uint64),
        script_generator=np.zeros(1, np.uint64),
        generator=np.zeros(1, np.uint64),
        action_cost=np.float32(world.action_cost),
        sight=sight,
    )


class Discrete(NamedTuple):
    """Actions of the discrete form."""

    actions: np.ndarray  # i32[N, 2]


class Continuous(NamedTuple):
    """Actions of the continuous form."""

    actions: np.ndarray  # f32[N, 2]


def plain_rules(rules: Rules) -> Rules:
    """Return rules with which windows are copied by plain loops."""
    return rules._replace(window_rows=np.zeros(0, np.uint8))


def task_numbers(task: Task) -> Any:
    """Return the parameters of a task that are numbers."""
    return _numbers(task)


def layout_arrays(layout: Layout) -> Any:
    """Return the numbers and arrays of a layout."""
    arrays = {
        name: np.ascontiguousarray(getattr(layout, name))
        for name in ("colour", "spawn", "walls", "targets", "map")
        if getattr(layout, name) is not None
    }
    return _named("Layout", {"world": _numbers(layout.world), **arrays})


def _numbers(settings: Any) -> Any:
    """Return the numbers of a dataclass, each of the kind that its default has, except those in ABSENT."""
    kinds = {field.name: type(field.default) for field in fields(settings) if field.name not in ABSENT}
    chosen = {name: kind(getattr(settings, name)) for name, kind in kinds.items() if kind in (int, float, bool)}
    return _named(type(settings).__name__, chosen)


def _named(name: str, values: Mapping[str, Any]) -> Any:
    return namedtuple(name, values)(**values)

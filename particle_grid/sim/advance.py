"""One step of all worlds, stage by stage, on any number of threads.

Many worlds are divided among the threads. Few worlds move one after another, and each divides its agents among the
threads, except in the stages that are sequential.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from particle_grid.sim.life import regrow_world, respawn_world, start_world
from particle_grid.sim.motion import cross, desire, next_order, resolve, settle
from particle_grid.sim.observation import encode, reward_feature
from particle_grid.sim.state import Rules, State
from particle_grid.sim.window import finish_agents, look
from particle_grid.support.jit import ParallelKernel, entry, kernel, parallel_kernel, prange

MANY = 16_384  # agents per world below which one thread moves them: handing them to another would take as long
BLOCK = 256  # agents that pass through the stages together: the memory they touch fits into the nearest cache


@kernel
def _blocks(s):
    """Return how many blocks the agents of a world make."""
    return (len(s.order) // len(s.grid) + BLOCK - 1) // BLOCK


@kernel
def _block(s, w, block):
    """Return the agents [lo, hi) of a block of world w."""
    agents = len(s.order) // len(s.grid)
    return w * agents + block * BLOCK, w * agents + min((block + 1) * BLOCK, agents)


@parallel_kernel
def _move_world(s, r, w, actions, truncations):
    s.tick[w] += 1
    start, direction = next_order(s, w)
    for substep in range(r.substeps):
        for block in prange(_blocks(s)):
            lo, hi = _block(s, w, block)
            if substep == 0:
                desire(s, r, w, lo, hi, actions, truncations)
            cross(s, lo, hi)
        if substep == 0:
            respawn_world(s, r, w, truncations)
        resolve(s, r, w, start, direction)
        for block in prange(_blocks(s)):
            lo, hi = _block(s, w, block)
            settle(s, r, lo, hi)
    if r.edible:
        regrow_world(s, r, w)


_move_alone = _move_world.serial


@parallel_kernel
def move_worlds(s, r, actions, truncations):
    """Let the agents of all worlds respawn or move, and food regrow."""
    for w in prange(len(s.grid)):
        _move_alone(s, r, w, actions, truncations)


@parallel_kernel
def look_worlds(s, r, observations, counting):
    """Write all observations and, if `counting`, how many other agents are in sight."""
    blocks = _blocks(s)
    for k in prange(len(s.grid) * blocks):
        lo, hi = _block(s, k // blocks, k % blocks)
        encode(s, r, lo, hi)
        look(s, r, k // blocks, lo, hi, observations, counting)


@parallel_kernel
def start_worlds(s, r):
    """Start all worlds."""
    for w in prange(len(s.grid)):  # at different points of their episodes, so they restart in turn
        start_world(s, r, w, r.max_episode_steps * w // len(s.grid))


class Stages(NamedTuple):
    """The stages of a step, compiled for the arrays of an environment and a number of threads."""

    start: Callable[[], None]  # starts all worlds
    move: Callable[[np.ndarray], None]  # takes actions; agents respawn and move, and food regrows
    look: Callable[[], None]  # writes all observations, and counts the agents in sight
    finish: Callable[[], int]  # settles the rewards; returns how many are NaN or outside [-1, 1]


def compile_stages(
    s: State,
    r: Rules,
    actions: np.ndarray,
    truncations: np.ndarray,
    observations: np.ndarray,
    rewards: np.ndarray,
    sight: bool,
    threads: int,
) -> Stages:
    """Compile the stages of a step for the arrays of an environment.

    Args:
        s: the state to advance.
        r: its rules.
        actions: int32 or f32 [N, 2], an example; those that `move` is called with have the same dtype and layout.
        truncations: bool[N].
        observations: u8[N, size].
        rewards: f32[N].
        sight: whether to count agents in sight. If so, `finish` must be called after `look`, otherwise before it.
        threads: how many threads share the work.
    """
    start = _compiled(start_worlds, threads, s, r)
    look_all = _compiled(look_worlds, threads, s, r, observations, sight)
    feature = reward_feature(observations) if sight else s.last_reward
    reward_arrays = (rewards, truncations, s.episode_return, feature)
    finish = _compiled(finish_agents, threads, *reward_arrays)
    move = _compile_move(s, r, actions, truncations, threads)
    return Stages(
        start=lambda: start(s, r),
        move=lambda actions: move(s, r, actions, truncations),
        look=lambda: look_all(s, r, observations, sight),
        finish=lambda: finish(*reward_arrays),
    )


def _compiled(parallel: ParallelKernel, threads: int, *arguments: Any) -> Callable[..., Any]:
    return entry(parallel.serial if threads == 1 else parallel.parallel, *arguments)


def _compile_move(
    s: State, r: Rules, actions: np.ndarray, truncations: np.ndarray, threads: int
) -> Callable[[State, Rules, np.ndarray, np.ndarray], None]:
    """Compile the stage `move` so that threads share the worlds, the agents of each world, or nothing."""
    worlds = len(s.grid)
    if worlds >= threads:
        return _compiled(move_worlds, threads, s, r, actions, truncations)
    if len(s.order) < MANY * worlds:
        return _compiled(move_worlds, 1, s, r, actions, truncations)
    move_one = _compiled(_move_world, threads, s, r, 0, actions, truncations)

    def move_each(s: State, r: Rules, actions: np.ndarray, truncations: np.ndarray) -> None:
        for w in range(worlds):
            move_one(s, r, w, actions, truncations)

    return move_each

"""One step of all worlds, stage by stage, on any number of threads.

Many worlds are shared out among the threads. Few worlds move one after another, and the agents of each are shared out,
but for the stages that are sequential.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from particle_grid.sim.life import regrow_world, respawn_world, start_world
from particle_grid.sim.motion import cross, desire, next_order, resolve, settle
from particle_grid.sim.observe import features, finish_agents, look
from particle_grid.sim.state import Rules, State
from particle_grid.support.jit import ParallelKernel, entry, kernel, parallel_kernel, prange

MANY = 16_384  # agents of a world; fewer are moved by one thread: to hand them to another takes as long
BLOCK = 256  # agents that go through the stages together: what they touch fits into the nearest cache


@kernel
def _blocks(s):
    """How many blocks the agents of a world make."""
    return (len(s.order) // len(s.grid) + BLOCK - 1) // BLOCK


@kernel
def _block(s, w, block):
    """The agents [lo, hi) of a block of world w."""
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
def _move_worlds(s, r, actions, truncations):
    for w in prange(len(s.grid)):
        _move_alone(s, r, w, actions, truncations)


@parallel_kernel
def _look_worlds(s, r, observations, counting):
    blocks = _blocks(s)
    for k in prange(len(s.grid) * blocks):
        lo, hi = _block(s, k // blocks, k % blocks)
        features(s, r, lo, hi)
        look(s, r, k // blocks, lo, hi, observations, counting)


@parallel_kernel
def _start_worlds(s, r):
    for w in prange(len(s.grid)):  # their horizons are spread out: at no time are all of them young
        start_world(s, r, w, r.max_episode_steps * w // len(s.grid))


class Stages(NamedTuple):
    """The stages of a step, compiled for the arrays of an environment and a number of threads."""

    start: Callable[[], None]  # starts all worlds
    move: Callable[[np.ndarray], None]  # takes actions; all worlds respawn, move and regrow
    look: Callable[[], None]  # writes all observations, and counts whom the agents see
    finish: Callable[[], int]  # once the rewards are known; returns how many are no numbers in [-1, 1]


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
    """Compiles the stages for contiguous actions, int32 or f32[N, 2], truncations bool[N], observations u8[N, row] and
    rewards f32[N]. With `sight` agents are counted, and `finish` comes after `look`; else it comes before."""

    def compiled(parallel: ParallelKernel, *arguments: Any) -> Callable[..., Any]:
        return entry(parallel.serial if threads == 1 else parallel.parallel, *arguments)

    start, look = compiled(_start_worlds, s, r), compiled(_look_worlds, s, r, observations, sight)
    reward = rewards, truncations, s.episode_return, observations[:, -1] if sight else s.last_reward
    finish = compiled(finish_agents, *reward)
    few = len(s.order) < MANY * len(s.grid)
    if len(s.grid) >= threads:
        move_worlds = compiled(_move_worlds, s, r, actions, truncations)
    elif few:
        move_worlds = entry(_move_worlds.serial, s, r, actions, truncations)
    else:
        move_one = compiled(_move_world, s, r, 0, actions, truncations)

        def move_worlds(s: State, r: Rules, actions: np.ndarray, truncations: np.ndarray) -> None:
            for w in range(len(s.grid)):
                move_one(s, r, w, actions, truncations)

    return Stages(
        start=lambda: start(s, r),
        move=lambda actions: move_worlds(s, r, actions, truncations),
        look=lambda: look(s, r, observations, sight),
        finish=lambda: finish(*reward),
    )

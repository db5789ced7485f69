"""One step of all worlds, stage by stage, on any number of threads.

Many worlds are shared out among the threads. Few worlds move one after another, and the agents of each are shared out,
but for the stages that are sequential.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from particle_grid.jit import entry, kernel, parallel_kernel, prange, threads
from particle_grid.sim.life import regrow_world, respawn_world, start_world
from particle_grid.sim.motion import cross, next_order, resolve, settle, wish
from particle_grid.sim.observe import features, look
from particle_grid.sim.state import Rules, State

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


def _move_world(s, r, w, actions, truncations):
    s.tick[w] += 1
    start, direction = next_order(s, w)
    for stretch in range(r.stretches):
        for block in prange(_blocks(s)):
            lo, hi = _block(s, w, block)
            if stretch == 0:
                wish(s, r, w, lo, hi, actions, truncations)
            cross(s, lo, hi)
        if stretch == 0:
            respawn_world(s, r, w, truncations)
        resolve(s, r, w, start, direction)
        for block in prange(_blocks(s)):
            lo, hi = _block(s, w, block)
            settle(s, r, lo, hi)
    if r.edible:
        regrow_world(s, r, w)


_move_alone, _move_shared = kernel(_move_world), parallel_kernel(_move_world).parallel


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
    for w in prange(len(s.grid)):
        start_world(s, r, w)


def starter(s: State, r: Rules) -> Callable[[], None]:
    """A function that starts all worlds."""
    return lambda: (_start_worlds.serial if threads(len(s.order)) == 1 else _start_worlds.parallel)(s, r)


def mover(s: State, r: Rules, actions: np.ndarray, truncations: np.ndarray) -> Callable[[np.ndarray], None]:
    """A function that takes actions, contiguous and of the dtype int32 or f32[N, 2] that `actions` has, and lets all
    worlds respawn, move and regrow. It writes truncations bool[N]."""
    worlds, agents = len(s.grid), len(s.order)

    @cache
    def compiled(kernel: Any) -> Callable[..., Any]:
        return entry(kernel, s, r, *([0] if kernel is _move_shared else []), actions, truncations)

    def move(actions: np.ndarray) -> None:
        count = threads(agents)
        if count == 1 or worlds >= count:
            kernel = _move_worlds.serial if count == 1 else _move_worlds.parallel
            compiled(kernel)(s, r, actions, truncations)
        else:
            for w in range(worlds):
                compiled(_move_shared)(s, r, w, actions, truncations)

    return move


def looker(s: State, r: Rules, observations: np.ndarray, counting: bool) -> Callable[[], None]:
    """A function that writes the observations u8[N, row] of all agents and, if `counting`, counts whom they see."""
    arguments = s, r, observations, counting
    compiled = cache(lambda kernel: entry(kernel, *arguments))
    return lambda: compiled(_look_worlds.serial if threads(len(s.order)) == 1 else _look_worlds.parallel)(*arguments)

"""The environments on which invariants are tested: every registered task with both action forms, small and fast."""

import numba
import numpy as np
import pytest

from bench.chromium import BROWSER
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.sim import tasks

CASES = [(task, action) for task in tasks.names() for action in ACTIONS]
SMALL = {"worlds": 2, "agents": 60, "height": 40, "width": 48, "lifespan": 12.0, "walls": 0.02}
PARAMS = {"puffer": {"text": "P"}}  # the default word is wider than these small worlds
NETWORK = r"https?:|(?:src|href)=\"(?!data:,)|\bfetch\(|\bimport\b|XMLHttpRequest|@import|url\("  # not in a page
needs_browser = pytest.mark.skipif(not BROWSER, reason="needs Chromium on the path")


def needs_jit(reason):
    """Mark a test that is impossible, or takes minutes, when Numba's compiler is disabled."""
    return pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason=reason)


def small(task, action, **changes):
    """Return a small environment that has not been reset yet."""
    return ParticleGrid(task=task, action=action, **(SMALL | PARAMS.get(task, {}) | changes))


def random_actions(env, generator):
    if env.discrete:
        return generator.integers(0, 3, (env.num_agents, 2), dtype=np.int32)
    return generator.uniform(-1, 1, (env.num_agents, 2)).astype(np.float32)


def play(env, steps, seed=0):
    """Reset the environment, play random actions, and yield what `step` returns."""
    env.reset(seed)
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        yield env.step(random_actions(env, generator))


def field(env):
    """Return the playing field of every world, u8[worlds, height, width]."""
    v = env.vision
    return env.state.grid[:, v : v + env.world.height, v : v + env.world.width]

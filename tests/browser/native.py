"""What the module is compared with: the native environment, with actions drawn as the module draws them."""

import zlib
from functools import cache

import numpy as np

from particle_grid.browser.build import MODULE
from particle_grid.sim.rng import below, uniform
from particle_grid.support.jit import kernel
from tests.cases import CASES, small

DYNAMICS = ("kinematic", "inertial")
EVERY = [(task, action, dynamics) for task, action in CASES for dynamics in DYNAMICS]
SEED = 5


@kernel
def draw_discrete(generator, actions):
    for i in range(len(actions)):
        for axis in range(2):
            actions[i, axis] = below(generator, 0, 3)


@kernel
def draw_continuous(generator, actions):
    for i in range(len(actions)):
        for axis in range(2):
            actions[i, axis] = np.float32(2) * np.float32(uniform(generator, 0)) - np.float32(1)


@cache
def code():
    return MODULE.read_bytes()


def make(task, action, dynamics):
    """Return an environment in which everything happens: respawns, restarts, regrowth, walls and costs."""
    cost = 0.1 if dynamics == "inertial" else 0.0
    return small(task, action, dynamics=dynamics, max_episode_steps=70, action_cost=cost)


class Play:
    """An environment that is played by the script in even steps and at random in odd ones."""

    def __init__(self, env, seed=SEED):
        self.env = env
        self.script = np.array([seed], np.uint64)
        self.generator = np.array([seed + 1], np.uint64)
        env.reset(seed)

    def step(self, k):
        """Make step k and return its actions."""
        if k % 2 == 0:
            actions = self.env.scripted_actions(self.script)
        else:
            actions = np.empty_like(self.env.actions)
            (draw_discrete if self.env.discrete else draw_continuous)(self.generator, actions)
        self.env.step(actions)
        return actions


def checksum(env, value):
    """Return a checksum of the results of a step, and of those before it."""
    for array in (env.observations, env.rewards, env.truncations):
        value = zlib.crc32(array.tobytes(), value)
    return value

"""Climb a landscape that nobody can see: only what it pays under one's feet tells where one is."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.sim.rng import hidden
from particle_grid.sim.scripted import wander
from particle_grid.sim.state import State
from particle_grid.sim.world import Layout
from particle_grid.support.jit import kernel, parallel_kernel, prange


@dataclass(frozen=True)
class Optimize:
    """reward: the height under the agent, in [0, 1]. Each world has hills of its own, other ones each time it starts.

    Nothing in the window tells where they are. The last reward does, once it is compared with the one before: so
    memory must climb. The hills are of different heights, and only the highest comes to 1."""

    hills: int = 3
    radius: float = 0.4  # of a hill, as a share of the field's shorter side

    unit: ClassVar[str] = "height, from 0 to 1"
    teams: ClassVar[int] = 1
    sight: ClassVar[bool] = False
    settings: ClassVar[dict[str, Any]] = {
        "world": {"worlds": 64, "agents": 64, "height": 64, "width": 64, "lifespan": 300, "max_episode_steps": 512},
        "trainer": {"total_steps": 6_000_000, "gamma": 0.97, "gae_lambda": 0.95},  # the way up is long
    }

    def init(self, layout: Layout) -> None:
        if not 1 <= self.hills <= 16:
            raise ValueError(f"hills={self.hills} is out of range: there can be 1 to 16.")
        if not 0.01 <= self.radius <= 1:
            raise ValueError(f"radius={self.radius} is out of range: a share of the field's shorter side, to 1.")

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        world = layout.world
        radius = np.float32(self.radius * min(world.height, world.width))
        middle = np.float32(world.vision), np.float32(world.height), np.float32(world.width)
        _height(rewards, state.position, state.origin, *middle, self.hills, radius)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        heights = np.empty(len(state.colour), np.float32)
        self.reward(state, layout, heights)
        return heights

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        _scripted(observations, rng, aim)


@parallel_kernel
def _height(out, position, origin, margin, rows, columns, hills, radius):
    """1 minus the product of what each hill leaves of 1. A hill is as smooth as its foot, and needs no exponential:
    (1 - (distance / radius)^2)^2, times its height."""
    one = np.float32(1)
    agents = len(out) // len(origin)
    for i in prange(len(out)):
        row, column, left = position[0, i] - margin, position[1, i] - margin, one
        seed = origin[i // agents]
        for k in range(hills):
            d_row = (row - rows * hidden(seed, 2 * k)) / radius
            d_column = (column - columns * hidden(seed, 2 * k + 1)) / radius
            slope = max(one - d_row * d_row - d_column * d_column, np.float32(0))
            left *= one - slope * slope * np.float32(k + 1) / np.float32(hills)
        out[i] = one - left


@kernel
def _scripted(observations, rng, aim):
    """Stays where the last step paid well, and walks on elsewhere: it cannot compare, having no memory."""
    for i in range(len(observations)):
        features = observations[i, -7:]
        if float(features[6]) - 128 > 0.6 * 127:
            aim[i, 0], aim[i, 1] = 0.0, 0.0
        else:
            wander(features, rng, aim[i])

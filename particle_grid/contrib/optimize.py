"""Climb a hidden landscape, sensed only through the local reward."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.tasks import (
    Layout,
    State,
    UserError,
    hidden,
    kernel,
    last_reward,
    parallel_kernel,
    prange,
    wander,
)


@dataclass(frozen=True)
class Optimize:
    """Reward: the height under the agent, in [0, 1]. Each world has its own hills, and new ones when it restarts.

    Nothing in the window reveals them. The last reward does once it is compared with the one before, so climbing takes
    memory. The hills differ in height, and only the highest reaches 1.
    """

    hills: int = 3  # number of hills, 1 to 16
    radius: float = 0.4  # radius of a hill, as a share of the field's shorter side

    unit: ClassVar[str] = "height, from 0 to 1"
    teams: ClassVar[int] = 1
    sight: ClassVar[bool] = False
    settings: ClassVar[dict[str, Any]] = {
        "world": {"worlds": 64, "agents": 64, "height": 64, "width": 64, "lifespan": 300, "max_episode_steps": 512},
        "trainer": {"total_steps": 4_000_000, "gamma": 0.97, "gae_lambda": 0.95},  # the way up is long
    }

    def init(self, layout: Layout) -> None:
        """Check the parameters; the field stays empty."""
        if not 1 <= self.hills <= 16:
            raise UserError(f"hills={self.hills} is out of range: from 1 to 16.")
        if not 0.01 <= self.radius <= 1:
            raise UserError(f"radius={self.radius} is out of range: a share of the field's shorter side, 0.01 to 1.")

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Write the height under each agent."""
        _heights(state, layout, self.hills, self.radius, rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Return the height under each agent."""
        heights = np.empty(len(state.colour), np.float32)
        _heights(state, layout, self.hills, self.radius, heights)
        return heights

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Stay where it is high, and explore elsewhere."""
        _scripted(observations, rng, aim)


def _heights(state: State, layout: Layout, hills: int, share: float, out: np.ndarray) -> None:
    """Write the height under each agent, for hills whose radius is this share of the field's shorter side."""
    world = layout.world
    rows, columns = np.float32(world.height), np.float32(world.width)
    margin = np.float32(world.vision)
    radius = np.float32(share * min(world.height, world.width))
    _height(out, state.position, state.origin, margin, rows, columns, hills, radius)


@parallel_kernel
def _height(out, position, origin, margin, rows, columns, hills, radius):
    """Write 1 minus the product of what each hill leaves of 1.

    A hill is (1 - (distance / radius)^2)^2 times its height: smooth at its foot, and without an exponential.
    """
    one = np.float32(1)
    agents = len(out) // len(origin)
    for i in prange(len(out)):
        row, column = position[0, i] - margin, position[1, i] - margin
        left, seed = one, origin[i // agents]
        for k in range(hills):
            d_row = (row - rows * hidden(seed, 2 * k)) / radius
            d_column = (column - columns * hidden(seed, 2 * k + 1)) / radius
            slope = max(one - d_row * d_row - d_column * d_column, np.float32(0))
            left *= one - slope * slope * np.float32(k + 1) / np.float32(hills)
        out[i] = one - left


@kernel
def _scripted(observations, rng, aim):
    """Stay where the last step paid well; without memory, it cannot compare."""
    for i in range(len(observations)):
        if last_reward(observations[i]) > 0.6:
            aim[i, 0], aim[i, 1] = 0.0, 0.0
        else:
            wander(observations[i], rng, aim[i])

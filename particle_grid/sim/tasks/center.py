"""Go to the middle: a simple task for debugging, which any working algorithm should learn."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.sim.observation import field_position
from particle_grid.sim.state import State
from particle_grid.sim.world import Layout
from particle_grid.support.jit import parallel_kernel, prange


@dataclass(frozen=True)
class Center:
    """Reward: minus the distance to the middle, as a share of the distance from the middle to a corner."""

    unit: ClassVar[str] = "cells from the middle, negative"
    teams: ClassVar[int] = 1
    sight: ClassVar[bool] = False
    settings: ClassVar[dict[str, Any]] = {
        "trainer": {
            "total_steps": 4_000_000,
            "gamma": 0.98,  # a step towards the middle gains little at once, but something over the fifty that follow
            "gae_lambda": 0.9,
        },
    }

    def init(self, layout: Layout) -> None:
        """Store the middle, in grid cells, and its distance from a corner in the map."""
        height, width = layout.world.height / 2, layout.world.width / 2
        vision = layout.world.vision
        layout.map = np.array([vision + height, vision + width, np.hypot(height, width)], np.float32)

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Write minus the distance, scaled to [-1, 0]."""
        _distance(rewards, state.position, layout.map, np.float32(-1) / layout.map[2])

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Return minus the distance in cells."""
        distance = np.empty(len(state.colour), np.float32)
        _distance(distance, state.position, layout.map, np.float32(-1))
        return distance

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Go straight to the middle."""
        _aim(observations, layout.world.height, layout.world.width, aim)


@parallel_kernel
def _aim(observations, height, width, aim):
    for i in prange(len(aim)):
        row, column = field_position(observations[i], height, width)
        aim[i, 0], aim[i, 1] = height / 2 - row, width / 2 - column


@parallel_kernel
def _distance(out, position, middle, scale):
    row, column = middle[0], middle[1]
    for i in prange(len(out)):
        d_row, d_column = position[0, i] - row, position[1, i] - column
        out[i] = scale * np.sqrt(d_row * d_row + d_column * d_column)

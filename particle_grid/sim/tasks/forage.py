"""Find food and eat it by walking onto it; it regrows elsewhere."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.sim.scripted import fetch
from particle_grid.sim.state import State
from particle_grid.sim.world import Layout
from particle_grid.support.errors import UserError
from particle_grid.support.jit import kernel, parallel_kernel, prange


@dataclass(frozen=True)
class Forage:
    """Reward: `food_reward` for each piece of food eaten, less with its distance from the middle if `tolerance` > 0.

    The smaller the tolerance, the more precisely an agent has to move to be paid for the food it eats.
    """

    food: float = 0.05  # share of the cells that hold food
    food_reward: float = 1.0  # reward for a piece of food
    tolerance: float = 0.0  # distance in cells from the food at which it pays nothing; 0: it always pays fully

    unit: ClassVar[str] = "food eaten"
    teams: ClassVar[int] = 1
    sight: ClassVar[bool] = False
    settings: ClassVar[dict[str, Any]] = {"trainer": {"total_steps": 10_000_000}}

    def init(self, layout: Layout) -> None:
        """Let food grow on a share of the cells."""
        if not 0 <= self.food < 1:
            raise UserError(f"food={self.food} is out of range: it is a share of the cells, from 0 to below 1.")
        if not 0 <= self.tolerance < math.inf:
            raise UserError(f"tolerance={self.tolerance} is out of range: it is a distance in cells, at least 0.")
        layout.food = self.food

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Write the reward for what was eaten."""
        _reward(state.eaten, state.position, np.float32(self.tolerance), np.float32(self.food_reward), rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Return how much was eaten, weighted as the reward is."""
        meals = np.empty(len(state.eaten), np.float32)
        _meals(state.eaten, state.position, np.float32(self.tolerance), meals)
        return meals

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Fetch the nearest food that others do not reach first."""
        fetch(observations, layout.world.vision, rng, aim)


@kernel
def _weighted(eaten, row, column, tolerance):
    """Return what was eaten in a step that ended at a position, weighted by the distance from the cell's middle."""
    half, one = np.float32(0.5), np.float32(1)
    row, column = row - np.floor(row) - half, column - np.floor(column) - half
    share = one - np.sqrt(row * row + column * column) / tolerance if tolerance > 0 else one
    return np.float32(eaten) * max(share, np.float32(0))


@parallel_kernel
def _meals(eaten, position, tolerance, meals):
    for i in prange(len(meals)):
        meals[i] = _weighted(eaten[i], position[0, i], position[1, i], tolerance)


@parallel_kernel
def _reward(eaten, position, tolerance, food_reward, rewards):
    for i in prange(rewards.shape[0]):
        reward = food_reward * _weighted(eaten[i], position[0, i], position[1, i], tolerance)
        rewards[i] = min(max(reward, np.float32(-1)), np.float32(1))

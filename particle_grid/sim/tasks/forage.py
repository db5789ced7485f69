"""Food on a share of the cells: walking onto it eats it, and it regrows elsewhere."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from particle_grid.jit import parallel_kernel, prange
from particle_grid.sim.scripted import fetch
from particle_grid.sim.state import State
from particle_grid.sim.world import Layout


@dataclass(frozen=True)
class Forage:
    """reward: food_reward for each food eaten."""

    food: float = 0.05  # share of the cells that hold food
    food_reward: float = 1.0

    unit: ClassVar[str] = "food eaten"
    sides: ClassVar[int] = 1
    sight: ClassVar[bool] = False

    def init(self, layout: Layout) -> None:
        if not 0 <= self.food < 1:
            raise ValueError(f"food={self.food} is out of range: a share of the cells, from 0 to below 1.")
        layout.food = self.food

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        _reward(state.eaten, np.float32(self.food_reward), rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        return state.eaten.astype(np.float32)

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        fetch(observations, layout.world.vision, rng, aim)


@parallel_kernel
def _reward(eaten, food_reward, rewards):
    for i in prange(rewards.shape[0]):
        rewards[i] = min(max(food_reward * np.float32(eaten[i]), np.float32(-1)), np.float32(1))

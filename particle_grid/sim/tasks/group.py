"""Up to four colours mixed: join your own, avoid the others."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from particle_grid.sim.scripted import steer
from particle_grid.sim.state import State
from particle_grid.sim.world import Layout
from particle_grid.support.jit import parallel_kernel, prange


@dataclass(frozen=True)
class Group:
    """reward: (own in sight - others in sight), scaled."""

    colours: int = 4
    scale: float = 0.1  # reward for each agent in sight

    unit: ClassVar[str] = "own minus others in sight"
    teams: ClassVar[int] = 1
    sight: ClassVar[bool] = True

    def init(self, layout: Layout) -> None:
        layout.mix_colours(self.colours)

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        _reward(state.own_in_sight, state.others_in_sight, np.float32(self.scale), rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        return (state.own_in_sight - state.others_in_sight).astype(np.float32)

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        steer(observations, layout.world.vision, rng, aim, own=1.0, others=-1.0, wall=-0.2, wander=True)


@parallel_kernel
def _reward(own, others, scale, rewards):
    for i in prange(rewards.shape[0]):
        rewards[i] = min(max(scale * np.float32(own[i] - others[i]), np.float32(-1)), np.float32(1))

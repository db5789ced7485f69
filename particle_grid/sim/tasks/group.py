"""Join your own colour: up to four colours are mixed, and agents avoid the others."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.sim.scripted import steer
from particle_grid.sim.state import State
from particle_grid.sim.world import Layout
from particle_grid.support.jit import parallel_kernel, prange


@dataclass(frozen=True)
class Group:
    """Reward: agents of one's own colour in sight minus those of other colours, scaled and clipped to [-1, 1]."""

    colours: int = 4  # number of colours, 1 to 4, with equally many agents each
    scale: float = 0.1  # reward for each agent in sight, negative for other colours

    unit: ClassVar[str] = "own minus others in sight"
    teams: ClassVar[int] = 1
    sight: ClassVar[bool] = True
    settings: ClassVar[dict[str, Any]] = {
        # The first third is spent on finding out that moving towards one's own colour pays.
        "trainer": {"total_steps": 10_000_000},
    }

    def init(self, layout: Layout) -> None:
        """Mix the colours."""
        layout.mix_colours(self.colours)

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Write the scaled difference."""
        _reward(state.own_in_sight, state.others_in_sight, np.float32(self.scale), rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Return the difference, unscaled."""
        return (state.own_in_sight - state.others_in_sight).astype(np.float32)

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Move towards one's own colour and away from others, and explore when alone."""
        steer(observations, layout.world.vision, rng, aim, own=1.0, others=-1.0, wall=-0.2, wander=True)


@parallel_kernel
def _reward(own, others, scale, rewards):
    for i in prange(rewards.shape[0]):
        rewards[i] = min(max(scale * np.float32(own[i] - others[i]), np.float32(-1)), np.float32(1))

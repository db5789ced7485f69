"""Get away from everyone: agents spawn packed together in a blob."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.sim.scripted import steer
from particle_grid.sim.state import State
from particle_grid.sim.world import Layout
from particle_grid.support.jit import parallel_kernel, prange


@dataclass(frozen=True)
class Scatter:
    """Reward: minus the other agents in sight, scaled and clipped to -1."""

    scale: float = 0.1  # reward lost for each other agent in sight
    packing: float = 0.5  # share of the blob's cells that hold an agent at the start

    unit: ClassVar[str] = "others in sight, negative"
    teams: ClassVar[int] = 1
    sight: ClassVar[bool] = True
    settings: ClassVar[dict[str, Any]] = {"trainer": {"total_steps": 4_000_000}}

    def init(self, layout: Layout) -> None:
        """Let all agents spawn in a blob in the middle."""
        layout.blob(self.packing)

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Write minus the scaled count."""
        _reward(state.own_in_sight, np.float32(self.scale), rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Return minus the count."""
        return -state.own_in_sight.astype(np.float32)

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Move away from all agents, and a little from walls."""
        steer(observations, layout.world.vision, rng, aim, own=-1.0, others=-1.0, wall=-0.5, wander=False)


@parallel_kernel
def _reward(in_sight, scale, rewards):
    for i in prange(rewards.shape[0]):
        rewards[i] = max(-scale * in_sight[i], np.float32(-1))

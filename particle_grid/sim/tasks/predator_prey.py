"""Half hunt, half flee; the two spawn apart."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from particle_grid.sim.scripted import steer
from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, AGENT_2, Layout
from particle_grid.support.jit import parallel_kernel, prange


@dataclass(frozen=True)
class PredatorPrey:
    """reward: a predator's is the prey in sight, a prey's minus the predators in sight, scaled."""

    predators: float = 0.5  # share of the agents
    scale: float = 0.1  # reward for each agent of the other side in sight

    unit: ClassVar[str] = "of the other side in sight (prey: negative)"
    teams: ClassVar[int] = 2
    kinds: ClassVar[tuple[str, ...]] = ("predator", "prey")
    sight: ClassVar[bool] = True

    def init(self, layout: Layout) -> None:
        if not 0 < self.predators < 1:
            raise ValueError(f"predators={self.predators} is out of range: a share of the agents, between 0 and 1.")
        world = layout.world
        hunters = round(self.predators * world.agents)
        if not 0 < hunters < world.agents:
            raise ValueError(f"predators={self.predators} of agents={world.agents} leaves one team empty.")
        layout.colour[:hunters], layout.colour[hunters:] = AGENT_1, AGENT_2
        # Left and right, a window apart where there is room: nobody sees the other side at the start.
        half = max(1, (world.width - 2 * world.vision) // 2)
        layout.spawn[0] = 0, 0, world.height, half
        layout.spawn[1] = 0, world.width - half, world.height, half

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        _reward(state.colour, state.others_in_sight, np.float32(self.scale), rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        return np.where(state.colour == AGENT_1, state.others_in_sight, -state.others_in_sight).astype(np.float32)

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        middle = ((2 * layout.world.vision + 1) ** 2) // 2
        prey = observations[:, middle] == AGENT_2
        flight = np.empty_like(aim)
        steer(observations, layout.world.vision, rng, aim, own=0.0, others=1.0, wall=0.0, wander=True)
        # Prey that only flee are driven together, and then each hunter sees many: they avoid one another as much.
        steer(observations, layout.world.vision, rng, flight, own=-1.0, others=-1.0, wall=-0.1, wander=False)
        aim[prey] = flight[prey]


@parallel_kernel
def _reward(colour, others, scale, rewards):
    for i in prange(rewards.shape[0]):
        sign = np.float32(1) if colour[i] == AGENT_1 else np.float32(-1)
        rewards[i] = sign * min(scale * np.float32(others[i]), np.float32(1))

"""Half of the agents hunt and half flee; the two teams spawn apart."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.sim.scripted import override, steer
from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, AGENT_2, Layout
from particle_grid.support.errors import UserError
from particle_grid.support.jit import parallel_kernel, prange


@dataclass(frozen=True)
class PredatorPrey:
    """Reward: for predators the prey in sight, for prey minus the predators in sight, scaled and clipped to 1."""

    predators: float = 0.5  # share of the agents that hunt
    scale: float = 0.1  # reward for each agent of the other team in sight

    unit: ClassVar[str] = "agents of the other team in sight (prey: negative)"
    teams: ClassVar[int] = 2
    kinds: ClassVar[tuple[str, ...]] = ("predator", "prey")
    sight: ClassVar[bool] = True
    settings: ClassVar[dict[str, Any]] = {
        # As many agents in all as by default, and as dense, in four arenas that can be crossed within one life.
        "world": {"worlds": 4, "agents": 1024, "height": 256, "width": 256, "lifespan": 300},
        "trainer": {
            "total_steps": 12_000_000,
            "second_team_weight": 30.0,  # prey learn well only if they count most; predators learn all the same
            "scripted_opponents": 1.0,  # prey that only face hunters as good as the learned ones find no escape
            "entropy_coef": 0.003,  # both teams are rarely rewarded: a larger bonus would drown the rewards
            "gae_lambda": 1.0,  # with less, hunters that see no prey yet follow errors of the value, away from the prey
        },
    }

    def init(self, layout: Layout) -> None:
        """Let predators spawn on the left and prey on the right."""
        if not 0 < self.predators < 1:
            raise UserError(f"predators={self.predators} is out of range: it is a share, between 0 and 1.")
        world = layout.world
        hunters = round(self.predators * world.agents)
        if not 0 < hunters < world.agents:
            raise UserError(f"predators={self.predators} of agents={world.agents} leaves one team empty.")
        layout.colour[:hunters], layout.colour[hunters:] = AGENT_1, AGENT_2
        # A window apart where there is room, so that no agent sees the other team at the start.
        half = max(1, (world.width - 2 * world.vision) // 2)
        layout.spawn[0] = 0, 0, world.height, half
        layout.spawn[1] = 0, world.width - half, world.height, half

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Write the scaled count of the other team in sight, negative for prey."""
        _reward(state.colour, state.others_in_sight, np.float32(self.scale), rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Return the count, unscaled."""
        sign = 1 - 2 * (state.colour == AGENT_2)
        return (sign * state.others_in_sight).astype(np.float32)

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Chase prey, or flee from predators."""
        flight = np.empty_like(aim)
        steer(observations, layout.world.vision, rng, aim, own=0.0, others=1.0, wall=0.0, wander=True)
        # Prey that only flee are driven together, where each hunter sees many: they avoid one another just as much.
        steer(observations, layout.world.vision, rng, flight, own=-1.0, others=-1.0, wall=-0.1, wander=False)
        override(aim, flight, observations, AGENT_2)


@parallel_kernel
def _reward(colour, others, scale, rewards):
    for i in prange(rewards.shape[0]):
        sign = np.float32(1) if colour[i] == AGENT_1 else np.float32(-1)
        rewards[i] = sign * min(scale * np.float32(others[i]), np.float32(1))

"""Dogs herd sheep into a pen; sheep keep away from dogs."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.jit import kernel, parallel_kernel, prange
from particle_grid.sim.scripted import steer, wander
from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, AGENT_2, FOOD, Layout


@dataclass(frozen=True)
class Herd:
    """reward: a dog's is the share of its world's sheep that are in the pen; a sheep's is how far the nearest dog is,
    as a share of how far it can see, and 1 with none in sight.

    The pen is a square in the middle, whose floor looks like food. Nobody spawns in it, and no wall keeps anyone."""

    dogs: float = 0.25  # share of the agents
    pen: float = 0.3  # side of the pen, as a share of the field's shorter side

    unit: ClassVar[str] = "share of the sheep in the pen (sheep: distance from dogs)"
    sides: ClassVar[int] = 2
    kinds: ClassVar[tuple[str, ...]] = ("dog", "sheep")
    sight: ClassVar[bool] = False
    settings: ClassVar[dict[str, Any]] = {
        "world": {"worlds": 128, "agents": 32, "height": 48, "width": 48, "lifespan": 300, "horizon": 512},
        "trainer": {"total_steps": 10_000_000, "scripted_opponents": 0.5},
    }

    def init(self, layout: Layout) -> None:
        for name in ("dogs", "pen"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is out of range: a share, between 0 and 1.")
        world = layout.world
        dogs = round(self.dogs * world.agents)
        if not 0 < dogs < world.agents:
            raise ValueError(f"dogs={self.dogs} of agents={world.agents} leaves one side empty.")
        layout.colour[:dogs], layout.colour[dogs:] = AGENT_1, AGENT_2
        side = max(1, round(self.pen * min(world.height, world.width)))
        top, left = (world.height - side) // 2, (world.width - side) // 2
        layout.targets = np.zeros((world.height, world.width), bool)
        layout.targets[top : top + side, left : left + side] = True

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        _reward(rewards, state.grid, state.position, state.colour, state.under, layout.world.vision)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        scores = np.empty(len(state.colour), np.float32)
        self.reward(state, layout, scores)
        return scores

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        world = layout.world
        sheep = observations[:, (2 * world.vision + 1) ** 2 // 2] == AGENT_2
        flight = np.empty_like(aim)
        steer(observations, world.vision, rng, flight, own=0.0, others=-1.0, wall=-0.1, wander=False)
        _drive(observations, world.vision, float(world.height), float(world.width), self.pen / 2, rng, aim)
        aim[sheep] = flight[sheep]


@kernel
def _dog_distance(cells, row, column, vision):
    """Of the nearest dog in the window around a cell, as a share of what is just out of sight; 1 if there is none."""
    nearest = (vision + 1) ** 2
    for r in range(-vision, vision + 1):
        for c in range(-vision, vision + 1):
            if cells[row + r, column + c] == AGENT_1:
                nearest = min(nearest, r * r + c * c)
    return np.float32(np.sqrt(nearest) / (vision + 1))


@parallel_kernel
def _reward(rewards, grid, position, colour, under, vision):
    agents = len(rewards) // len(grid)
    for w in prange(len(grid)):
        inside = sheep = 0
        for i in range(w * agents, (w + 1) * agents):
            if colour[i] == AGENT_2:
                sheep += 1
                inside += under[i] == FOOD
                rewards[i] = _dog_distance(grid[w], int(position[0, i]), int(position[1, i]), vision)
        for i in range(w * agents, (w + 1) * agents):
            if colour[i] == AGENT_1:
                rewards[i] = np.float32(inside / sheep)


@kernel
def _drive(observations, vision, height, width, pen, rng, aim):
    """Of the sheep in sight outside the pen, goes round the nearest: to three cells from it, where it is between the
    dog and the pen. With none in sight the dog looks for some."""
    side, half = 2 * vision + 1, pen * min(height, width)
    for i in range(len(observations)):
        window, features = observations[i], observations[i, side * side :]
        row, column = (features[0] + 0.5) / 256 * height - height / 2, (features[1] + 0.5) / 256 * width - width / 2
        nearest, at = np.inf, -1
        for k in range(side * side):
            r, c = k // side - vision, k % side - vision
            outside = max(abs(row + r), abs(column + c)) > half
            if window[k] == AGENT_2 and outside and r * r + c * c < nearest:
                nearest, at = r * r + c * c, k
        if at < 0:
            wander(features, rng, aim[i])
            continue
        r, c = at // side - vision, at % side - vision
        away = 3 / np.sqrt((row + r) ** 2 + (column + c) ** 2)
        aim[i, 0], aim[i, 1] = r + away * (row + r), c + away * (column + c)

"""Dogs herd sheep into a pen; sheep keep away from dogs."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.sim.scripted import steer, wander
from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, AGENT_2, FOOD, Layout, World
from particle_grid.support.jit import kernel, parallel_kernel, prange


@dataclass(frozen=True)
class Herd:
    """reward: a dog's is, to a share `drive` of it, how many cells nearer to the pen those sheep came in this step to
    which it is the nearest dog, and else the share of its world's sheep that are in the pen; a sheep's is how far the
    nearest dog is, as a share of how far it can see, 1 with none in sight, times `fear`.

    The pen is a square in the middle, whose floor looks like food. Nobody spawns in it, and no wall keeps anyone."""

    dogs: float = 0.25  # share of the agents
    pen: float = 0.3  # side of the pen, as a share of the field's shorter side
    drive: float = 0.9  # the share in the pen is the work of all dogs, and tells one of them little about its own
    fear: float = 0.2  # to flee is soon learnt, and paid in full would drown what dogs learn in the same network

    unit: ClassVar[str] = "share of the sheep in the pen (sheep: distance from dogs)"
    teams: ClassVar[int] = 2
    kinds: ClassVar[tuple[str, ...]] = ("dog", "sheep")
    sight: ClassVar[bool] = False
    settings: ClassVar[dict[str, Any]] = {
        "world": {"worlds": 128, "agents": 32, "height": 48, "width": 48, "lifespan": 300, "max_episode_steps": 512},
        "trainer": {
            "total_steps": 20_000_000,
            "scripted_opponents": 1.0,
            "gamma": 0.95,
            "gae_lambda": 0.9,
            "entropy_coef": 0.12,  # whoever comes near sheep at first drives them away, and would learn to keep off
            "minibatch": 4096,  # a quarter of which are dogs
        },
    }

    def init(self, layout: Layout) -> None:
        for name in ("dogs", "pen"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is out of range: a share, between 0 and 1.")
        for name in ("drive", "fear"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is out of range: a share of a reward, from 0 to 1.")
        world = layout.world
        dogs = round(self.dogs * world.agents)
        if not 0 < dogs < world.agents:
            raise ValueError(f"dogs={self.dogs} of agents={world.agents} leaves one team empty.")
        layout.colour[:dogs], layout.colour[dogs:] = AGENT_1, AGENT_2
        top, left, side = self._pen(world)
        layout.targets = np.zeros((world.height, world.width), bool)
        layout.targets[top : top + side, left : left + side] = True

    def _pen(self, world: World) -> tuple[int, int, int]:
        """Its top, its left and its side, in cells of the field."""
        side = max(1, round(self.pen * min(world.height, world.width)))
        return (world.height - side) // 2, (world.width - side) // 2, side

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        self._pay(state, layout, self.drive, self.fear, rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        scores = np.empty(len(state.colour), np.float32)
        self._pay(state, layout, 0.0, 1.0, scores)
        return scores

    def _pay(self, state: State, layout: Layout, drive: float, fear: float, rewards: np.ndarray) -> None:
        vision, (top, left, side) = layout.world.vision, self._pen(layout.world)
        middle = np.array([vision + top + side / 2, vision + left + side / 2], np.float32)
        arrays = state.position, state.displacement, state.colour, state.under
        _reward(
            rewards,
            *arrays,
            layout.world.agents,
            middle,
            np.float32(side / 2),
            vision,
            np.float32(drive),
            np.float32(fear),
        )

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        world = layout.world
        sheep = observations[:, (2 * world.vision + 1) ** 2 // 2] == AGENT_2
        flight = np.empty_like(aim)
        steer(observations, world.vision, rng, flight, own=0.0, others=-1.0, wall=-0.1, wander=False)
        _drive(observations, world.vision, float(world.height), float(world.width), self.pen / 2, rng, aim)
        aim[sheep] = flight[sheep]


@kernel
def _way(row, column, middle, half):
    """Cells from a place to the pen, along the axis on which it is further; 0 inside."""
    return max(max(abs(row - middle[0]), abs(column - middle[1])) - half, np.float32(0))


@kernel
def _nearest_dog(i, first, last, position, colour):
    """The nearest dog to sheep i among agents [first, last), and the square of its distance in cells."""
    row, column, nearest, dog = int(position[0, i]), int(position[1, i]), np.int64(1 << 62), first
    for k in range(first, last):
        if colour[k] == AGENT_1:
            r, c = int(position[0, k]) - row, int(position[1, k]) - column
            if r * r + c * c < nearest:
                nearest, dog = r * r + c * c, k
    return dog, nearest


@parallel_kernel
def _reward(rewards, position, displacement, colour, under, agents, middle, half, vision, drive, fear):
    one = np.float32(1)
    for w in prange(len(rewards) // agents):
        first, last, inside, sheep = w * agents, (w + 1) * agents, 0, 0
        rewards[first:last] = 0
        for i in range(first, last):
            if colour[i] == AGENT_2:
                sheep += 1
                inside += under[i] == FOOD
                dog, distance = _nearest_dog(i, first, last, position, colour)
                rewards[i] = fear * min(np.float32(np.sqrt(distance) / (vision + 1)), one)  # 1: out of sight
                row, column = position[0, i], position[1, i]
                before = _way(row - displacement[0, i], column - displacement[1, i], middle, half)
                rewards[dog] += before - _way(row, column, middle, half)
        share = np.float32(inside / sheep)
        for i in range(first, last):
            if colour[i] == AGENT_1:
                rewards[i] = min(max((one - drive) * share + drive * rewards[i], -one), one)


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

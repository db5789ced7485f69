"""Herd sheep into a pen: dogs drive them, and sheep keep away from dogs."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.tasks import (
    AGENT_1,
    AGENT_2,
    FOOD,
    Layout,
    State,
    UserError,
    World,
    field_position,
    kernel,
    override,
    parallel_kernel,
    prange,
    steer,
    wander,
)


@dataclass(frozen=True)
class Herd:
    """Reward: for dogs, progress of the sheep they drive and the share of sheep in the pen; for sheep, distance.

    A share `drive` of a dog's reward is how many cells nearer to the pen those sheep came to which it is the nearest
    dog. The rest is the share of its world's sheep that are in the pen. A sheep gets `fear` times its distance from the
    nearest dog, as a share of how far it can see, 1 if no dog is in sight.

    The pen is a square in the middle whose floor looks like food. No agent spawns in it, and it has no walls.
    """

    dogs: float = 0.25  # share of the agents that are dogs
    pen: float = 0.3  # side of the pen, as a share of the field's shorter side
    drive: float = 0.9  # share of a dog's reward that is its own progress; the rest tells a single dog little
    fear: float = 0.2  # size of the sheep's rewards; in full, they would drown what dogs learn in the same network

    unit: ClassVar[str] = "share of the sheep in the pen (sheep: distance from dogs)"
    teams: ClassVar[int] = 2
    kinds: ClassVar[tuple[str, ...]] = ("dog", "sheep")
    target: ClassVar[str] = "pen"
    sight: ClassVar[bool] = False
    settings: ClassVar[dict[str, Any]] = {
        "world": {"worlds": 128, "agents": 32, "height": 48, "width": 48, "lifespan": 300, "max_episode_steps": 512},
        "trainer": {
            "total_steps": 40_000_000,
            "scripted_opponents": 1.0,
            "gamma": 0.95,
            "gae_lambda": 0.9,
            "anneal_power": 1.0,  # the entropy bonus must not fall before a dog has found that sheep can be driven
            "entropy_coef": 0.12,  # at first, dogs that approach sheep drive them away, and would learn to keep off
        },
    }

    def init(self, layout: Layout) -> None:
        """Deal out dogs and sheep, and lay out the pen."""
        for name in ("dogs", "pen"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is out of range: it is a share, between 0 and 1.")
        for name in ("drive", "fear"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(
                    f"{name}={getattr(self, name)} is out of range: it is a share of a reward, from 0 to 1."
                )
        world = layout.world
        dogs = round(self.dogs * world.agents)
        if not 0 < dogs < world.agents:
            raise UserError(f"dogs={self.dogs} of agents={world.agents} leaves one team empty.")
        layout.colour[:dogs], layout.colour[dogs:] = AGENT_1, AGENT_2
        top, left, side = _pen(self.pen, world)
        layout.targets = np.zeros((world.height, world.width), bool)
        layout.targets[top : top + side, left : left + side] = True

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Write the rewards of dogs and sheep."""
        _pay(state, layout, self.pen, self.drive, self.fear, rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Return the share of sheep in the pen for dogs, and the distance from dogs for sheep."""
        scores = np.empty(len(state.colour), np.float32)
        _pay(state, layout, self.pen, 0.0, 1.0, scores)
        return scores

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Drive sheep from behind, or flee from dogs."""
        world = layout.world
        flight = np.empty_like(aim)
        steer(observations, world.vision, rng, flight, own=0.0, others=-1.0, wall=-0.1, wander=False)
        _drive(observations, world.vision, float(world.height), float(world.width), self.pen / 2, rng, aim)
        override(aim, flight, observations, AGENT_2)


def _pen(share: float, world: World) -> tuple[int, int, int]:
    """Return the top, the left and the side of the pen, in field cells."""
    side = max(1, round(share * min(world.height, world.width)))
    return (world.height - side) // 2, (world.width - side) // 2, side


def _pay(state: State, layout: Layout, pen: float, drive: float, fear: float, rewards: np.ndarray) -> None:
    """Write the rewards for these shares."""
    world = layout.world
    top, left, side = _pen(pen, world)
    middle = np.array([world.vision + top + side / 2, world.vision + left + side / 2], np.float32)
    half = np.float32(side / 2)
    _reward(
        rewards, state.position, state.displacement, state.colour, state.under, world.agents, middle, half,
        world.vision, np.float32(drive), np.float32(fear),
    )  # fmt: skip


@kernel
def _way(row, column, middle, half):
    """Return the cells from a place to the pen, along the axis on which it is further away; 0 inside."""
    return max(max(abs(row - middle[0]), abs(column - middle[1])) - half, np.float32(0))


@kernel
def _nearest_dog(i, first, last, position, colour):
    """Return the nearest dog to sheep i among agents [first, last), and its squared distance in cells."""
    row, column = int(position[0, i]), int(position[1, i])
    nearest, dog = np.int64(1 << 62), first
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
        first, last = w * agents, (w + 1) * agents
        inside, sheep = 0, 0
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
    """Go round the nearest sheep in sight outside the pen, to three cells beyond it, where it is between dog and pen.

    Explore if there is none in sight.
    """
    side, half = 2 * vision + 1, pen * min(height, width)
    for i in range(len(observations)):
        observation = observations[i]
        place = field_position(observation, height, width)
        row, column = place[0] - height / 2, place[1] - width / 2
        nearest, at = np.inf, -1
        for k in range(side * side):
            r, c = k // side - vision, k % side - vision
            outside = max(abs(row + r), abs(column + c)) > half
            if observation[k] == AGENT_2 and outside and r * r + c * c < nearest:
                nearest, at = r * r + c * c, k
        if at < 0:
            wander(observation, rng, aim[i])
            continue
        r, c = at // side - vision, at % side - vision
        away = 3 / np.sqrt((row + r) ** 2 + (column + c) ** 2)
        aim[i, 0], aim[i, 1] = r + away * (row + r), c + away * (column + c)

"""Agents start in a blob at the top and spell a word or a picture together."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from particle_grid.sim import picture
from particle_grid.sim.rng import below, uniform
from particle_grid.sim.scripted import towards, wander
from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, FOOD, Layout
from particle_grid.support.jit import kernel, parallel_kernel, prange

ROUND = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))  # the eight moves, straight ones even


@dataclass(frozen=True)
class Puffer:
    """reward: `fill` while on a target cell of one's own colour, more the lower it is, and for coming nearer to one.

    Free target cells look like food. If all of them paid the same, whoever comes first would stay at the edge, and be
    in the way of all others. The shaping is the change of a potential, minus the distance to the nearest
    target cell of one's colour, discounted as the trainer discounts: it does not change which policy is best. It is
    flat from where standing still would earn half a reward a step on, 250 cells away by default
    (A. Ng, D. Harada, S. Russell, "Policy invariance under reward transformations", ICML 1999)."""

    text: str = "PUFFER"
    image: str | None = None  # path of an image that replaces the text
    colours: int = 2
    fill: float = 0.5  # reward a step on a target cell in the picture's top row
    depth: float = 0.01  # reward a step more for each row below that
    shaping: float = 0.02  # potential lost for each cell of distance
    gamma: float = 0.98  # discount of the shaping: the trainer's
    packing: float = 0.5  # share of the blob's cells that hold an agent at the start

    unit: ClassVar[str] = "share of the picture filled"
    teams: ClassVar[int] = 1
    sight: ClassVar[bool] = False

    def init(self, layout: Layout) -> None:
        world = layout.world
        for name, most in (("fill", 0.5), ("depth", 0.5), ("shaping", 0.4), ("gamma", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name}={getattr(self, name)} is out of range: from 0 to {most}.")
        layout.mix_colours(self.colours)  # raises for a number that there is not
        drawn = picture.of_image(self.image, self.colours) if self.image else picture.of_text(self.text, self.colours)
        try:
            drawn = picture.fit(drawn, world.agents, world.height // 2, world.width, shrink=self.image is not None)
        except ValueError as error:
            name = f"image={self.image}" if self.image else f"text={self.text!r}"
            raise ValueError(f"{name} does not fit into a {world.height} x {world.width} world. {error}") from None
        top, left = world.height - world.height // 4 - len(drawn) // 2 - 1, (world.width - drawn.shape[1]) // 2
        cells = np.zeros((world.height, world.width), np.uint8)
        cells[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
        layout.targets = cells > 0
        # How far each cell is from the targets of a colour; on those, minus how many rows below the top row.
        layout.map = np.zeros((self.colours, world.height, world.width), np.int32)
        for colour in range(self.colours):
            picture.distance_to(cells == colour + 1, layout.map[colour])
        layout.map -= np.where(layout.map == 0, np.arange(world.height)[:, None] - top, 0)
        shares = np.bincount(drawn.ravel(), minlength=self.colours + 1)[1:].cumsum()
        # Agents of a colour are as many as its cells in proportion, and mixed: a fixed stride through the picture.
        ranks = (np.arange(world.agents) * 0.6180339887498949) % 1.0 * shares[-1]
        layout.colour[:] = AGENT_1 + np.searchsorted(shares, ranks, side="right")
        layout.blob(self.packing, row=0.0)

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        reach = 0.5 / max((1 - self.gamma) * self.shaping, 1e-9)  # cells: rewards stay within [-1, 1] unclipped
        numbers = (np.float32(x) for x in (self.fill, self.depth, self.shaping, self.gamma, reach))
        _reward(state.colour, state.position, state.displacement, layout.map, layout.world.vision, *numbers, rewards)

    def score(self, state: State, layout: Layout) -> np.ndarray:
        row, column = (state.position - np.float32(layout.world.vision)).astype(np.int64)
        filled = layout.map[state.colour - AGENT_1, row, column] <= 0
        assert layout.targets is not None
        return filled * np.float32(layout.world.agents / np.count_nonzero(layout.targets))

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        _scripted(observations, layout.world.vision, layout.map, np.float32(self.fill), rng, aim)


@kernel
def _distance(distance, vision, colour, row, column):
    """What the map has for a colour at a position (in grid coordinates), or at the nearest one in the field: where an
    agent came from is its position minus its displacement, rounded, which may be a hair outside."""
    r = min(max(int(row) - vision, 0), distance.shape[1] - 1)
    c = min(max(int(column) - vision, 0), distance.shape[2] - 1)
    return distance[np.uint64(colour - AGENT_1), np.uint64(r), np.uint64(c)]


@parallel_kernel
def _reward(colour, position, displacement, distance, vision, fill, depth, shaping, gamma, reach, rewards):
    one, nothing = np.float32(1), np.float32(0)
    for i in prange(len(rewards)):
        row, column = position[0, i], position[1, i]
        d_row, d_column = displacement[0, i], displacement[1, i]
        at = np.float32(_distance(distance, vision, colour[i], row, column))
        before = np.float32(_distance(distance, vision, colour[i], row - d_row, column - d_column))
        nearer = min(max(before, nothing), reach) - gamma * min(max(at, nothing), reach)
        reward = shaping * nearer + (fill - depth * at if at <= nothing else nothing)
        rewards[i] = min(max(reward, -one), one)


@kernel
def _free_target(window, plan, row, column, vision):
    """Where the nearest free target cell of the plan's colour is in the window (its index); -1
    if there is none. The agent knows its place to 1/256 of the field, so the plan is believed to within a cell."""
    side, nearest, at = 2 * vision + 1, vision + 1, -1
    for k in range(side * side):
        d_row, d_column = k // side - vision, k % side - vision
        r, c, gap = row + d_row, column + d_column, max(abs(d_row), abs(d_column))
        if (
            window[k] == FOOD
            and gap < nearest
            and 0 <= r < plan.shape[0]
            and 0 <= c < plan.shape[1]
            and plan[r, c] <= 1
        ):
            nearest, at = gap, k
    return at


@kernel
def _deeper(window, plan, row, column, vision, rng):
    """A random one of the moves (row, column) from a target cell to a free one beside or below it; (0, 0) if there is
    none. The others come from above."""
    side, first = 2 * vision + 1, below(rng, 0, 8)
    for k in range(8):
        d_row, d_column = ROUND[(first + k) % 8]
        if d_row < 0:
            continue
        r, c = row + d_row, column + d_column
        free = window[(vision + d_row) * side + vision + d_column] == FOOD
        if free and 0 <= r < plan.shape[0] and 0 <= c < plan.shape[1] and plan[r, c] <= 0:
            return d_row, d_column
    return 0, 0


@kernel
def _downhill(plan, row, column, vision, rng):
    """The move (row, column) that comes nearest to the plan's cells, straight ones and a random turn first; (0, 0) if
    the agent is as near as it can tell."""
    best, d_row, d_column, first = max(plan[row, column], 0), 0, 0, below(rng, 0, 8)
    for k in range(8):
        turn = (first + k) % 4 * 2 + (k >= 4)
        d_r, d_c = ROUND[turn]
        r, c = row + d_r * vision, column + d_c * vision
        if 0 <= r < plan.shape[0] and 0 <= c < plan.shape[1] and max(plan[r, c], 0) < best:
            best, d_row, d_column = max(plan[r, c], 0), d_r, d_c
    return d_row, d_column


@kernel
def _scripted(observations, vision, distance, fill, rng, aim):
    """On a target cell (the last reward tells) it makes room for those behind by going on to free ones;
    elsewhere it goes to the nearest free target cell in sight, or follows the plan, or looks around."""
    side, (height, width) = 2 * vision + 1, distance.shape[1:]
    middle = side * side // 2
    for i in range(observations.shape[0]):
        window, features = observations[i], observations[i, side * side :]
        colour = min(max(int(window[middle]) - AGENT_1, 0), len(distance) - 1)  # whatever is written in a buffer
        plan = distance[colour]
        row = (int(features[0]) * height + height // 2) // 256
        column = (int(features[1]) * width + width // 2) // 256
        stopped = features[4] == 128 and features[5] == 128
        aim[i, 0], aim[i, 1] = 0.0, 0.0
        if (float(features[6]) - 128) / 127 > 0.8 * fill:
            d_row, d_column = _deeper(window, plan, row, column, vision, rng)
            towards(features, d_row, d_column, aim[i])
            continue
        at = _free_target(window, plan, row, column, vision)
        d_row, d_column = _downhill(plan, row, column, vision, rng)
        if at >= 0:
            towards(features, at // side - vision, at % side - vision, aim[i])
        elif (d_row != 0 or d_column != 0) and uniform(rng, 0) < (0.2 if stopped else 0.97):
            aim[i, 0], aim[i, 1] = d_row, d_column
        else:
            wander(features, rng, aim[i])

"""Spell a word or fill a picture together, starting from a blob at the top."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from particle_grid.sim.observation import field_position, last_direction, last_reward, own_colour
from particle_grid.sim.rng import below, uniform
from particle_grid.sim.scripted import towards, wander
from particle_grid.sim.state import State
from particle_grid.sim.tasks import _picture as picture
from particle_grid.sim.world import AGENT_1, FOOD, Layout
from particle_grid.support.errors import UserError
from particle_grid.support.jit import kernel, parallel_kernel, prange

ROUND = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))  # the eight moves, straight ones even
LIMITS = {"fill": 0.5, "depth": 0.5, "shaping": 0.4, "gamma": 1.0}  # largest values of parameters
GOLDEN_SHARE = 0.6180339887498949


@dataclass(frozen=True)
class Puffer:
    """Reward: `fill` while on a target cell of one's own colour, more for lower cells, and for approaching one.

    Free target cells look like food. If all of them paid the same, the first agents to arrive would stay at the edge
    and block the others. The shaping is the discounted change of a potential, minus the distance to the nearest target
    cell of one's colour, with the trainer's discount, so it does not change which policy is best. The potential is flat
    where standing still would otherwise earn more than half a reward per step. By default that is beyond 1250 cells,
    farther than any cell of the world that training starts from (A. Ng, D. Harada, S. Russell, "Policy invariance under
    reward transformations", ICML 1999).
    """

    text: str = "PUFFER"  # text to spell
    image: str | None = None  # path of an image to draw instead of the text
    colours: int = 2  # number of colours of agents, which share the picture
    fill: float = 0.5  # reward per step on a target cell in the picture's top row
    depth: float = 0.01  # additional reward per step for each row below that
    shaping: float = 0.02  # potential lost for each cell of distance
    gamma: float = 0.98  # discount of the shaping, which should equal trainer.gamma
    packing: float = 0.5  # share of the blob's cells that hold an agent at the start

    unit: ClassVar[str] = "share of the picture filled"
    target: ClassVar[str] = "cell to fill"
    teams: ClassVar[int] = 1
    sight: ClassVar[bool] = False
    settings: ClassVar[dict[str, Any]] = {
        "task": {"gamma": "${oc.select:trainer.gamma,0.98}"},  # with another discount, another policy might be best
        "world": {
            "worlds": 4,  # worlds restart in turn, so all stages of the work are seen at any time
            "agents": 1024,
            "height": 128,  # the word is fifty cells from the blob: a life must be long enough to get there
            "width": 128,
            "lifespan": 500,
            "max_episode_steps": 512,
        },
        "trainer": {
            "total_steps": 24_000_000,
            "minibatch": 8192,  # agents obstruct each other: half as many updates, half as noisy, make fewer jams
            "gamma": 0.98,  # the word is fifty steps away: at 0.9, what is earned there counts for nothing at the start
            "gae_lambda": 0.95,
        },
    }

    def init(self, layout: Layout) -> None:
        """Lay out the picture in the lower half, and the blob at the top."""
        world = layout.world
        for name, most in LIMITS.items():
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name}={getattr(self, name)} is out of range: from 0 to {most}.")
        layout.mix_colours(self.colours)  # raises for an invalid number
        drawn = self._draw(layout)
        top = world.height - world.height // 4 - len(drawn) // 2 - 1
        left = (world.width - drawn.shape[1]) // 2
        cells = np.zeros((world.height, world.width), np.uint8)
        cells[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
        layout.targets = cells > 0
        # The distance of each cell from the targets of a colour; on those, minus the number of rows below the top row.
        layout.map = np.zeros((self.colours, world.height, world.width), np.int32)
        for colour in range(self.colours):
            picture.distance_to(cells == colour + 1, layout.map[colour])
        layout.map -= np.where(layout.map == 0, np.arange(world.height)[:, None] - top, 0)
        shares = np.bincount(drawn.ravel(), minlength=self.colours + 1)[1:].cumsum()
        # Each colour has agents in proportion to its cells, mixed by a fixed stride through the picture.
        ranks = (np.arange(world.agents) * GOLDEN_SHARE) % 1.0 * shares[-1]
        layout.colour[:] = AGENT_1 + np.searchsorted(shares, ranks, side="right")
        layout.blob(self.packing, row=0.0)

    def _draw(self, layout: Layout) -> np.ndarray:
        """Return the picture u8[rows, columns], scaled to the world: 0 for no target, else 1 + the colour."""
        world = layout.world
        drawn = picture.of_image(self.image, self.colours) if self.image else picture.of_text(self.text, self.colours)
        try:
            return picture.fit(drawn, world.agents, world.height // 2, world.width, shrink=self.image is not None)
        except UserError as error:
            name = f"image={self.image}" if self.image else f"text={self.text!r}"
            raise UserError(f"{name} does not fit into a {world.height} x {world.width} world. {error}") from None

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        """Write the reward for filling target cells plus the shaping."""
        reach = 0.5 / max((1 - self.gamma) * self.shaping, 1e-9)  # cells: rewards stay within [-1, 1] unclipped
        _reward(
            state.colour, state.position, state.displacement, layout.map, layout.world.vision, np.float32(self.fill),
            np.float32(self.depth), np.float32(self.shaping), np.float32(self.gamma), np.float32(reach), rewards,
        )  # fmt: skip

    def score(self, state: State, layout: Layout) -> np.ndarray:
        """Return whether each agent is on a target cell, scaled so that the mean is the share of cells filled."""
        assert layout.targets is not None
        scale = np.float32(layout.world.agents / np.count_nonzero(layout.targets))
        scores = np.empty(len(state.colour), np.float32)
        _filled(state.colour, state.position, layout.map, layout.world.vision, scale, scores)
        return scores

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        """Go to the nearest free target cell, and once there make room for others."""
        _scripted(observations, layout.world.vision, layout.map, np.float32(self.fill), rng, aim)


@kernel
def _distance(distance, vision, colour, row, column):
    """Return the map's value for a colour at a position in grid coordinates, or at the nearest one in the field.

    Where an agent came from is its position minus its displacement, which rounding may put just outside the field.
    """
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


@parallel_kernel
def _filled(colour, position, distance, vision, scale, scores):
    for i in prange(len(scores)):
        on_target = _distance(distance, vision, colour[i], position[0, i], position[1, i]) <= 0
        scores[i] = scale if on_target else np.float32(0)


@kernel
def _free_target(window, plan, row, column, vision):
    """Return the window index of the nearest free target cell of the plan's colour, or -1 if none is in sight.

    An agent knows its position to 1/256 of the field, so a cell counts as a target if the plan has one within a cell.
    """
    side, nearest = 2 * vision + 1, vision + 1
    at = -1
    for k in range(side * side):
        d_row, d_column = k // side - vision, k % side - vision
        r, c = row + d_row, column + d_column
        gap = max(abs(d_row), abs(d_column))
        inside = 0 <= r < plan.shape[0] and 0 <= c < plan.shape[1]
        if window[k] == FOOD and gap < nearest and inside and plan[r, c] <= 1:
            nearest, at = gap, k
    return at


@kernel
def _deeper(window, plan, row, column, vision, rng):
    """Return a random move (row, column) from a target cell to a free one next to or below it; (0, 0) without one.

    Other agents come from above.
    """
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
    """Return the move (row, column) that gets nearest to the plan's cells; (0, 0) if none gets nearer.

    Straight moves are tried first, starting with a random one.
    """
    best, first = max(plan[row, column], 0), below(rng, 0, 8)
    d_row, d_column = 0, 0
    for k in range(8):
        turn = (first + k) % 4 * 2 + (k >= 4)
        d_r, d_c = ROUND[turn]
        r, c = row + d_r * vision, column + d_c * vision
        if 0 <= r < plan.shape[0] and 0 <= c < plan.shape[1] and max(plan[r, c], 0) < best:
            best = max(plan[r, c], 0)
            d_row, d_column = d_r, d_c
    return d_row, d_column


@kernel
def _scripted(observations, vision, distance, fill, rng, aim):
    """On a target cell, as the last reward tells, make room for those behind by moving on to free target cells.

    Elsewhere, go to the nearest free target cell in sight, or follow the plan, or explore.
    """
    side = 2 * vision + 1
    height, width = distance.shape[1:]
    for i in range(observations.shape[0]):
        observation = observations[i]
        colour = min(max(int(own_colour(observation)) - AGENT_1, 0), len(distance) - 1)  # for any byte in the buffer
        plan = distance[colour]
        place = field_position(observation, height, width)
        row, column = int(place[0]), int(place[1])
        moved = last_direction(observation)
        stopped = moved[0] == 0 and moved[1] == 0
        aim[i, 0], aim[i, 1] = 0.0, 0.0
        if last_reward(observation) > 0.8 * fill:
            d_row, d_column = _deeper(observation, plan, row, column, vision, rng)
            towards(observation, d_row, d_column, aim[i])
            continue
        at = _free_target(observation, plan, row, column, vision)
        d_row, d_column = _downhill(plan, row, column, vision, rng)
        if at >= 0:
            towards(observation, at // side - vision, at % side - vision, aim[i])
        elif (d_row != 0 or d_column != 0) and uniform(rng, 0) < (0.2 if stopped else 0.97):
            aim[i, 0], aim[i, 1] = d_row, d_column
        else:
            wander(observation, rng, aim[i])

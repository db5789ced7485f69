"""Building blocks of the scripted policies. They see what a learned policy sees: observations, and nothing else."""

import numpy as np

from particle_grid.sim.observation import cell_offset, last_direction, own_colour
from particle_grid.sim.rng import below, uniform
from particle_grid.sim.world import AGENT_1, FOOD, WALL
from particle_grid.support.jit import kernel, parallel_kernel, prange

TURN = 0.02  # probability per step of changing direction while exploring


@kernel
def wander(observation, rng, aim):
    """Explore: keep the direction of the last displacement, and choose a random one now and then or after a stop.

    The last displacement is the only memory that a script has. Writes aim f32[2].
    """
    row, column = last_direction(observation)
    if (row == 0 and column == 0) or uniform(rng, 0) < TURN:
        direction = below(rng, 0, 8)
        direction += direction >= 4  # of the nine moves, skip the one that stays
        row, column = direction // 3 - 1, direction % 3 - 1
    scale = 1.0 / max(abs(row), abs(column))
    aim[0], aim[1] = row * scale, column * scale


@kernel
def towards(observation, row, column, aim):
    """Aim at the middle of the cell that is (row, column) cells away. Writes aim f32[2]."""
    in_row, in_column = cell_offset(observation)
    aim[0] = row + 0.5 - in_row
    aim[1] = column + 0.5 - in_column


@kernel
def _steer(observations, vision, rng, aim, own, others, wall, explore):
    side = 2 * vision + 1
    for i in range(observations.shape[0]):
        observation, colour = observations[i], own_colour(observations[i])
        row = column = 0.0
        for k in range(side * side):
            cell = observation[k]
            if (cell < AGENT_1 and cell != WALL) or k == side * side // 2:
                continue
            r, c = k // side - vision, k % side - vision
            weight = (wall if cell == WALL else own if cell == colour else others) / (r * r + c * c)
            row += weight * r
            column += weight * c
        length = max(abs(row), abs(column))
        if length > 1e-3:
            aim[i, 0], aim[i, 1] = row / length, column / length
        elif explore:
            wander(observation, rng, aim[i])
        else:
            aim[i, 0], aim[i, 1] = 0.0, 0.0


def steer(
    observations: np.ndarray,
    vision: int,
    rng: np.ndarray,
    aim: np.ndarray,
    own: float,
    others: float,
    wall: float,
    wander: bool,
) -> None:
    """Let everything in sight attract (weight > 0) or repel (weight < 0) the agent, in inverse proportion to distance.

    Args:
        observations: u8[N, size].
        vision: cells seen in each direction.
        rng: u64[1], the script's generator.
        aim: f32[N, 2], which is written.
        own: weight of agents of one's own colour.
        others: weight of agents of other colours.
        wall: weight of walls.
        wander: whether to explore when there is nothing to react to, instead of staying.
    """
    _steer(observations, vision, rng, aim, float(own), float(others), float(wall), wander)


@parallel_kernel
def override(aim, other, observations, colour):
    """Replace the aims f32[N, 2] of agents of one colour by `other` f32[N, 2]."""
    for i in prange(len(aim)):
        if own_colour(observations[i]) == colour:
            aim[i, 0], aim[i, 1] = other[i, 0], other[i, 1]


@kernel
def _add_up(window, least, most, sums):
    """Write the two-dimensional prefix sums i32[side + 1, side + 1] of the cells with codes from least to most."""
    side = len(sums) - 1
    sums[0, :] = 0
    for row in range(side):
        sums[row + 1, 0] = 0
        along = 0
        for column in range(side):
            along += least <= window[row * side + column] <= most
            sums[row + 1, column + 1] = sums[row, column + 1] + along


@kernel
def _around(sums, row, column, reach):
    """Return how many of the summed cells are at most `reach` cells from (row, column) along each axis."""
    top, left = max(row - reach, 0), max(column - reach, 0)
    bottom, right = min(row + reach + 1, len(sums) - 1), min(column + reach + 1, len(sums) - 1)
    return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]


@kernel
def _fetch(observations, vision, rng, aim, agents, food):
    side = 2 * vision + 1
    for i in range(observations.shape[0]):
        observation = observations[i]
        _add_up(observation, AGENT_1, 255, agents)
        _add_up(observation, FOOD, FOOD, food)
        best, at = 0.0, -1
        for k in range(side * side):
            if observation[k] != FOOD:
                continue
            row, column = k // side, k % side
            distance = max(abs(row - vision), abs(column - vision))
            rivals, more = _around(agents, row, column, distance - 1), _around(food, row, column, 2)
            value = (1.0 + 0.1 * more) / (distance * (1 + rivals))
            if value > best:
                best, at = value, k
        if at >= 0:
            towards(observation, at // side - vision, at % side - vision, aim[i])
        else:
            wander(observation, rng, aim[i])


def fetch(observations: np.ndarray, vision: int, rng: np.ndarray, aim: np.ndarray) -> None:
    """Go to the food in sight that the agent can reach before others do, and explore if there is none.

    Food is worth less the more agents are nearer to it, and a little more if there is other food around it.

    Args:
        observations: u8[N, size].
        vision: cells seen in each direction.
        rng: u64[1], the script's generator.
        aim: f32[N, 2], which is written.
    """
    corners = 2 * vision + 2
    sums = np.empty((2, corners, corners), np.int32)
    _fetch(observations, vision, rng, aim, sums[0], sums[1])

"""What the scripted policies are made of. They see what a learnt policy sees: observations u8[N, row], nothing else."""

import numpy as np

from particle_grid.sim.rng import below, uniform
from particle_grid.sim.state import Rules
from particle_grid.sim.world import AGENT_1, FOOD, WALL
from particle_grid.support.jit import kernel

TURN = 0.02  # chance a step to change the direction while exploring


@kernel
def wander(features, rng, aim):
    """Explores: goes on in the direction of the last displacement, which is all the memory a script has; turns
    now and then, and wherever it was stopped or has just spawned."""
    row, column = int(features[4]) - 128, int(features[5]) - 128
    if (row == 0 and column == 0) or uniform(rng, 0) < TURN:
        direction = below(rng, 0, 8)
        direction += direction >= 4  # of the nine moves, not the one in the middle
        row, column = direction // 3 - 1, direction % 3 - 1
    scale = 1.0 / max(abs(row), abs(column))
    aim[0], aim[1] = row * scale, column * scale


@kernel
def towards(features, row, column, aim):
    """Aims at the middle of the cell (row, column) away, from where in its own cell the agent stands."""
    aim[0] = row + 0.5 - (features[2] + 0.5) / 256.0
    aim[1] = column + 0.5 - (features[3] + 0.5) / 256.0


@kernel
def _steer(observations, vision, rng, aim, own, others, wall, explore):
    side = 2 * vision + 1
    for i in range(observations.shape[0]):
        window, colour = observations[i], observations[i, side * side // 2]
        row = column = 0.0
        for k in range(side * side):
            cell = window[k]
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
            wander(window[side * side :], rng, aim[i])
        else:
            aim[i, 0], aim[i, 1] = 0.0, 0.0


def steer(
    observations: np.ndarray,
    vision: int,
    rng: np.ndarray,
    aim: np.ndarray,
    *,
    own: float,
    others: float,
    wall: float,
    wander: bool,
) -> None:
    """Everything in sight pulls (weight > 0) or pushes (< 0), inversely to its distance; with nothing to react to, the
    agent wanders or stays. Weights: agents of one's own colour, of other colours, walls. Writes aim f32[N, 2]."""
    _steer(observations, vision, rng, aim, float(own), float(others), float(wall), wander)


@kernel
def _add_up(window, least, most, sums):
    """Writes how many cells of the window have codes from least to most above and left of each corner, i32[side + 1,
    side + 1]: what is in a rectangle is then a matter of its four corners."""
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
    """How many of the cells added up are at most `reach` away, along each axis, from a cell of the window."""
    top, left = max(row - reach, 0), max(column - reach, 0)
    bottom, right = min(row + reach + 1, len(sums) - 1), min(column + reach + 1, len(sums) - 1)
    return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]


@kernel
def _fetch(observations, vision, rng, aim, agents, food):
    side = 2 * vision + 1
    for i in range(observations.shape[0]):
        window = observations[i]
        _add_up(window, AGENT_1, 255, agents)
        _add_up(window, FOOD, FOOD, food)
        best, at = 0.0, -1
        for k in range(side * side):
            if window[k] != FOOD:
                continue
            row, column = k // side, k % side
            distance = max(abs(row - vision), abs(column - vision))
            rivals, more = _around(agents, row, column, distance - 1), _around(food, row, column, 2)
            value = (1.0 + 0.1 * more) / (distance * (1 + rivals))
            if value > best:
                best, at = value, k
        if at >= 0:
            towards(window[side * side :], at // side - vision, at % side - vision, aim[i])
        else:
            wander(window[side * side :], rng, aim[i])


def fetch(observations: np.ndarray, vision: int, rng: np.ndarray, aim: np.ndarray) -> None:
    """Goes to the food in sight that it can reach before others do: of the nearest, the one with most food around it.

    A piece of food counts for less the more agents are nearer to it. With none in sight the agent wanders."""
    corners = 2 * vision + 2
    _fetch(observations, vision, rng, aim, *np.empty((2, corners, corners), np.int32))


def actions_for(aim: np.ndarray, observations: np.ndarray, rules: Rules, discrete: bool) -> np.ndarray:
    """The action that leads towards aim f32[N, 2]: int32[N, 2] in {0, 1, 2}, or f32[N, 2] in [-1, 1].

    Under inertia it makes up for the velocity that the agent has, as far as the last displacement tells."""
    velocity = np.clip(aim, -rules.speed, rules.speed) if rules.momentum or not discrete else aim
    if rules.momentum:
        last = (observations[:, -3:-1].astype(np.float32) - 128) / 127 * rules.speed
        velocity = (velocity - rules.momentum * last) / rules.gain
    if discrete:
        return (1 + np.sign(velocity) * (np.abs(velocity) >= 0.5)).astype(np.int32)
    return np.clip(velocity if rules.momentum else velocity / rules.gain, -1, 1).astype(np.float32)

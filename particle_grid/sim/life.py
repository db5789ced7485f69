"""Filling a world: how it starts, how agents respawn, and how food regrows.

Each function works on one world w of a `State` s under `Rules` r and draws from that world's generator in a fixed
order, so the result does not depend on how many threads share the worlds.
"""

import numpy as np

from particle_grid.sim.rng import below, lifetime
from particle_grid.sim.world import AGENT_1, EMPTY, FOOD, WALL
from particle_grid.support.jit import kernel

TRIES = 32  # random cells tried before an area is searched cell by cell
HALF, ZERO = np.float32(0.5), np.float32(0)


@kernel
def empty_cell(grid, rng, w, top, left, height, width):
    """Return a random empty cell (row, column) of an area of world w, in grid coordinates; (-1, -1) if none is empty.

    Random cells are tried first. If all of those are taken, the next empty cell after a random one is chosen, row by
    row.
    """
    for _ in range(TRIES):
        row, column = top + below(rng, w, height), left + below(rng, w, width)
        if grid[w, row, column] == EMPTY:
            return row, column
    first = below(rng, w, height * width)
    for k in range(height * width):
        cell = (first + k) % (height * width)
        row, column = top + cell // width, left + cell % width
        if grid[w, row, column] == EMPTY:
            return row, column
    return np.int64(-1), np.int64(-1)


@kernel
def place(s, r, w, code, count):
    """Write `code` into `count` random empty cells of the field; return how many of them could not be placed."""
    for k in range(count):
        row, column = empty_cell(s.grid, s.rng, w, r.vision, r.vision, r.height, r.width)
        if row < 0:
            return count - k
        s.grid[w, row, column] = code
    return 0


@kernel
def spawn(s, r, w, i):
    """Place agent i at the centre of a random empty cell of its colour's area, or of the field if that area is full."""
    area = r.spawn[s.colour[i] - AGENT_1]
    row, column = empty_cell(s.grid, s.rng, w, r.vision + area[0], r.vision + area[1], area[2], area[3])
    if row < 0:
        row, column = empty_cell(s.grid, s.rng, w, r.vision, r.vision, r.height, r.width)
    s.grid[w, row, column] = s.colour[i]
    s.position[0, i], s.position[1, i] = np.float32(row) + HALF, np.float32(column) + HALF
    s.displacement[0, i], s.displacement[1, i] = ZERO, ZERO
    s.under[i], s.eaten[i] = EMPTY, 0
    s.episode_return[i] = ZERO
    s.born[i] = s.tick[w]
    s.expiry[i] = s.tick[w] + lifetime(s.rng, w, r.decay)


@kernel
def start_world(s, r, w, tick):
    """Start world w with its clock at `tick`.

    Its ground plan comes first, then random walls, then the agents in order of their index, each with a place in the
    order of moving, and then the food.
    """
    cells, ground = s.grid.reshape(len(s.grid), -1)[w], r.ground.reshape(-1)
    for k in range(len(ground)):
        cells[k] = ground[k]
    s.tick[w], s.origin[w] = tick, s.rng[w]
    place(s, r, w, WALL, r.walls)
    agents = len(s.order) // len(s.grid)
    for k in range(agents):
        i, other = w * agents + k, w * agents + below(s.rng, w, k + 1)
        s.order[i] = s.order[other]  # a random permutation, built from the inside out
        s.order[other] = k
        spawn(s, r, w, i)
    s.food_debt[w] = place(s, r, w, FOOD, r.food)


@kernel
def end_life(s, r, w, i, world_restarts):
    """Add the episode of agent i to the world's sums, and respawn the agent unless its whole world restarts."""
    s.finished[w, 0] += 1.0
    s.finished[w, 1] += s.episode_return[i]
    s.finished[w, 2] += s.tick[w] - s.born[i]
    if not world_restarts:
        s.grid[w, int(s.position[0, i]), int(s.position[1, i])] = s.under[i]
        spawn(s, r, w, i)


@kernel
def respawn_world(s, r, w, truncations):
    """Respawn the agents of world w that are marked in `truncations`, or restart the world if its time is up."""
    world_restarts = 0 < r.max_episode_steps <= s.tick[w]
    agents = len(s.order) // len(s.grid)
    for i in range(w * agents, (w + 1) * agents):
        if truncations[i]:
            end_life(s, r, w, i, world_restarts)
    if world_restarts:
        start_world(s, r, w, 0)


@kernel
def regrow_world(s, r, w):
    """Regrow eaten food in random empty cells of world w; food that finds none is kept for the next step."""
    s.food_debt[w] = place(s, r, w, FOOD, s.food_debt[w])

"""What happens in a world, in the order in which it happens: start, respawn, move, regrow.

Each function works on one world w of a `State` s under `Rules` r, and draws from that world's generator in a fixed
order, so the result does not depend on how many threads share the worlds out. `start` and `advance`, at the end, run
them over all worlds.
"""

import math

import numpy as np

from particle_grid.jit import kernel, parallel_kernel, prange
from particle_grid.sim.rng import below, lifetime
from particle_grid.sim.state import AGENT_1, EMPTY, FOOD, WALL

TRIES = 32  # random cells looked at before an area is searched cell by cell
ONE, HALF, ZERO = np.float32(1), np.float32(0.5), np.float32(0)


@kernel
def empty_cell(grid, rng, w, top, left, height, width):
    """A random empty cell (row, column) of an area of world w, in grid coordinates; (-1, -1) if it has none.

    Tries at random first; in a crowded area it takes the next empty cell, row by row, from a random one on."""
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
    """Puts `count` cells of `code` into random empty cells of the field; returns how many found none."""
    for k in range(count):
        row, column = empty_cell(s.grid, s.rng, w, r.vision, r.vision, r.height, r.width)
        if row < 0:
            return count - k
        s.grid[w, row, column] = code
    return 0


@kernel
def spawn(s, r, w, i):
    """Puts agent i at the centre of a random empty cell of its colour's area, or of the field where that is full."""
    area = r.spawn[s.colour[i] - AGENT_1]
    row, column = empty_cell(s.grid, s.rng, w, r.vision + area[0], r.vision + area[1], area[2], area[3])
    if row < 0:
        row, column = empty_cell(s.grid, s.rng, w, r.vision, r.vision, r.height, r.width)
    s.grid[w, row, column] = s.colour[i]
    s.position[i, 0], s.position[i, 1] = np.float32(row) + HALF, np.float32(column) + HALF
    s.displacement[i, 0], s.displacement[i, 1] = ZERO, ZERO
    s.under[i], s.eaten[i], s.episode_return[i] = EMPTY, 0, ZERO
    s.born[i] = s.tick[w]
    s.expiry[i] = s.tick[w] + lifetime(s.rng, w, r.lifespan)


@kernel
def start_world(s, r, w):
    """World w anew: its ground plan, random walls, the agents in order of index, each with its place in the order
    of moving, then the food."""
    s.grid[w] = r.ground
    s.tick[w] = 0
    place(s, r, w, WALL, r.walls)
    agents = s.position.shape[0] // s.grid.shape[0]
    for i in range(w * agents, (w + 1) * agents):
        spawn(s, r, w, i)
        k = w * agents + below(s.rng, w, i - w * agents + 1)  # a random permutation, built from the inside out
        s.order[i] = s.order[k]
        s.order[k] = i - w * agents
    s.food_debt[w] = place(s, r, w, FOOD, r.food)


@kernel
def respawn_world(s, r, w, truncations):
    """One tick passes. Agents whose time has come spawn anew, or all of them with their world at its horizon.

    Writes truncations[i] for each agent, and adds the episodes that end to the world's sums."""
    s.tick[w] += 1
    anew = r.horizon > 0 and s.tick[w] >= r.horizon
    agents = s.position.shape[0] // s.grid.shape[0]
    expiry, now = s.expiry, s.tick[w]
    for i in range(w * agents, (w + 1) * agents):
        truncations[i] = anew or expiry[i] <= now
        if truncations[i]:
            s.finished[w, 0] += 1.0
            s.finished[w, 1] += s.episode_return[i]
            s.finished[w, 2] += s.tick[w] - s.born[i]
            if not anew:
                s.grid[w, int(s.position[i, 0]), int(s.position[i, 1])] = s.under[i]
                spawn(s, r, w, i)
    if anew:
        start_world(s, r, w)


@kernel
def walk(grid, position, colour, under, edible, w, i, d_row, d_column):
    """Moves agent i by (d_row, d_column) cells, in equal stretches of at most one cell, until one is refused by a
    wall or an agent; returns the food eaten on the way. Within its own cell an agent always moves.

    A destination is computed in float32 and its cell taken from the value that is stored: rounded later, the agent
    could come to stand in a cell that nobody looked at."""
    stretches, reach = 1, max(abs(d_row), abs(d_column))
    if reach > ONE:
        stretches = math.ceil(reach)
        d_row, d_column = np.float32(d_row / stretches), np.float32(d_column / stretches)
    eaten = 0
    for _ in range(stretches):
        row, column = int(position[i, 0]), int(position[i, 1])
        to_row, to_column = position[i, 0] + d_row, position[i, 1] + d_column
        new_row, new_column = int(to_row), int(to_column)
        if new_row != row or new_column != column:
            cell = grid[w, new_row, new_column]
            # A stretch that rounding carries two cells far is refused as well: nothing is jumped over.
            if cell >= WALL or abs(new_row - row) > 1 or abs(new_column - column) > 1:
                break
            eats = cell == FOOD and edible
            eaten += eats
            grid[w, row, column] = under[i]
            under[i] = EMPTY if eats else cell
            grid[w, new_row, new_column] = colour[i]
        position[i, 0], position[i, 1] = to_row, to_column
    return eaten


@kernel
def next_order(s, w, first, agents):
    """Stirs the order in which the agents of world w move, by some random swaps, and returns (start, direction): where
    in it this tick begins, and whether it goes forwards (1) or backwards (-1).

    The order starts as a uniformly random permutation and stays one, so that in any contest each agent is equally
    likely to come first; start and direction are new each tick, so that no order holds for long."""
    for _ in range(1 + agents // 8):
        i, j = first + below(s.rng, w, agents), first + below(s.rng, w, agents)
        s.order[i], s.order[j] = s.order[j], s.order[i]
    return below(s.rng, w, agents), 2 * below(s.rng, w, 2) - 1


@kernel
def move_world(s, r, w, actions, truncations):
    """Moves the agents of world w one after another, but for those that spawned in this step. Whoever comes first gets
    a contested cell. Actions are clipped to r.centre +- 1; an agent stays if its action is NaN or infinite."""
    # The arrays by themselves: to take them out of the State for each agent costs several times as much as the move.
    grid, position, displacement, order = s.grid, s.position, s.displacement, s.order
    colour, under, eaten, centre, speed, edible = s.colour, s.under, s.eaten, r.centre, r.speed, r.edible
    agents = position.shape[0] // grid.shape[0]
    first = w * agents
    at, direction = next_order(s, w, first, agents)
    for _ in range(agents):
        i = first + order[first + at]
        at += direction
        at = 0 if at == agents else agents - 1 if at < 0 else at
        if truncations[i]:
            continue
        row, column = position[i, 0], position[i, 1]
        a_row, a_column = np.float32(actions[i, 0]) - centre, np.float32(actions[i, 1]) - centre
        eaten[i] = 0
        if math.isfinite(a_row) and math.isfinite(a_column):
            d_row, d_column = min(max(a_row, -ONE), ONE) * speed, min(max(a_column, -ONE), ONE) * speed
            eaten[i] = walk(grid, position, colour, under, edible, w, i, d_row, d_column)
        displacement[i, 0], displacement[i, 1] = position[i, 0] - row, position[i, 1] - column


@kernel
def regrow_world(s, r, w):
    """Food that was eaten regrows in random empty cells; what finds none waits for the next step."""
    agents = s.position.shape[0] // s.grid.shape[0]
    eaten, debt = s.eaten, s.food_debt[w]
    for i in range(w * agents, (w + 1) * agents):
        debt += eaten[i]
    s.food_debt[w] = place(s, r, w, FOOD, debt)


@parallel_kernel
def start(s, r):
    """Starts all worlds."""
    for w in prange(s.grid.shape[0]):
        start_world(s, r, w)


@parallel_kernel
def advance(s, r, actions, truncations):
    """One step of all worlds: respawn, move, regrow. actions int32 or f32[N, 2]; writes truncations bool[N]."""
    for w in prange(s.grid.shape[0]):
        respawn_world(s, r, w, truncations)
        move_world(s, r, w, actions, truncations)
        if r.edible:
            regrow_world(s, r, w)

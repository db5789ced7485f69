"""How agents move, in stages that are each as plain a loop as can be, so that the compiler makes vectors of them.

`desire` turns actions into stretches of at most a cell, `cross` looks up which cells a stretch leaves and enters,
`resolve` lets the agents of a world pass one after another, and `settle` makes the stretch for those that could.
Only `resolve` is sequential: it touches nothing but the grid, and two numbers of each agent.

The stages work on the agents [lo, hi) of a world, through slices that begin at 0: with an index that might be negative
there would be no vectors. Conditions are `&` and `|`, and both sides of a choice are computed, for the same reason.
"""

import numpy as np

from particle_grid.sim import simd
from particle_grid.sim.rng import below
from particle_grid.sim.world import EMPTY, FOOD, WALL
from particle_grid.support.jit import kernel, parallel_kernel, prange

AHEAD = 16  # agents between the one that moves and the one whose cell is being fetched from memory
ZERO, ONE, INFINITY, NEAR = np.float32(0), np.float32(1), np.float32(np.inf), np.int32(1)
LOW, SIGN, HIGH, BIT = np.uint64(0x7FFFFFFF), np.uint64(31), np.uint64(32), np.uint64(1)  # the parts of a crossing


@kernel
def _wish(s, r, lo, hi, action, truncated):
    """What the agents want to move in each stretch: nothing if they are truncated."""
    rows, columns, eaten = s.desired_move[0, lo:hi], s.desired_move[1, lo:hi], s.eaten[lo:hi]
    moved_rows, moved_columns = s.displacement[0, lo:hi], s.displacement[1, lo:hi]
    for i in range(hi - lo):
        row, column = np.float32(action[2 * i]) - r.centre, np.float32(action[2 * i + 1]) - r.centre
        finite = (abs(row) < INFINITY) & (abs(column) < INFINITY)
        row, column = min(max(row, -ONE), ONE), min(max(column, -ONE), ONE)
        row, column = row if finite else ZERO, column if finite else ZERO
        row, column = r.momentum * moved_rows[i] + r.gain * row, r.momentum * moved_columns[i] + r.gain * column
        row, column = (
            min(max(row, -r.speed), r.speed) * r.substep_share,
            min(max(column, -r.speed), r.speed) * r.substep_share,
        )
        rows[i], columns[i] = ZERO if truncated[i] else row, ZERO if truncated[i] else column
        moved_rows[i], moved_columns[i], eaten[i] = ZERO, ZERO, 0


@kernel
def desire(s, r, w, lo, hi, actions, truncations):
    """Marks the agents [lo, hi) whose time has come, and writes what the others want to move in each stretch.

    The velocity is r.momentum of the last displacement and r.gain for a full action, at most r.speed along each axis.
    Actions are clipped to r.centre +- 1; one that is NaN or infinite counts as none."""
    now, all_anew = s.tick[w], 0 < r.max_episode_steps <= s.tick[w]
    expiry, truncated = s.expiry[lo:hi], truncations[lo:hi]
    for i in range(hi - lo):
        truncated[i] = (expiry[i] <= now) | all_anew
    _wish(s, r, lo, hi, actions.reshape(-1)[2 * lo : 2 * hi], truncated)


@kernel
def cross(s, lo, hi):
    """Writes the cells that agents [lo, hi) would leave and enter in a stretch.

    A destination is computed in float32 and its cell taken from the value that `settle` stores: rounded later, the
    agent could come to stand in a cell that nobody looked at. Whom rounding would carry two cells far stays."""
    rows, columns, wished_rows, wished_columns = (
        s.position[0, lo:hi],
        s.position[1, lo:hi],
        s.desired_move[0, lo:hi],
        s.desired_move[1, lo:hi],
    )
    under, crossing, stride = s.under[lo:hi], s.crossing[lo:hi], np.int32(s.grid.shape[2])
    for i in range(hi - lo):
        row, column = np.int32(rows[i]), np.int32(columns[i])
        to_row, to_column = np.int32(rows[i] + wished_rows[i]), np.int32(columns[i] + wished_columns[i])
        near = (abs(to_row - row) <= NEAR) & (abs(to_column - column) <= NEAR)
        wished_rows[i], wished_columns[i] = wished_rows[i] if near else ZERO, wished_columns[i] if near else ZERO
        leaves = np.uint32(row * stride + column)
        enters = np.uint32(to_row * stride + to_column) if near else leaves
        crossing[i] = np.uint64(leaves) | (np.uint64(under[i]) << SIGN) | (np.uint64(enters) << HIGH)


@kernel
def next_order(s, w):
    """Stirs the order in which the agents of world w move, by some random swaps, and returns (start, direction): where
    in it this tick begins, and whether it goes forwards (1) or backwards (-1).

    The order starts as a uniformly random permutation and stays one, so that in any contest each agent is equally
    likely to come first; start and direction are new each tick, so that no order holds for long."""
    agents = len(s.order) // len(s.grid)
    for _ in range(1 + agents // 32):
        i, j = w * agents + below(s.rng, w, agents), w * agents + below(s.rng, w, agents)
        s.order[i], s.order[j] = s.order[j], s.order[i]
    return below(s.rng, w, agents), 2 * below(s.rng, w, 2) - 1


@kernel
def _pass(cells, order, crossing, met, start, direction, count, ahead):
    """Lets `count` agents pass, from the place `start` of the order on, and fetches the cell of one `ahead`."""
    for k in range(count):
        if ahead > 0:
            later = order[np.uint64(start + direction * min(k + ahead, count - 1))]
            simd.prefetch(cells, np.int64(crossing[np.uint64(later)] >> HIGH))
        i = np.uint64(order[np.uint64(start + direction * k)])
        leaves, under, enters = crossing[i] & LOW, (crossing[i] >> SIGN) & BIT, crossing[i] >> HIGH
        agent, cell = cells[leaves], cells[enters]
        free = (cell < WALL) | (leaves == enters)
        met[i] = np.uint8(WALL) if leaves == enters else cell
        # Both cells are written in any case, to what they were if the way is barred: a branch would be mispredicted.
        cells[leaves] = np.uint8(under) if free else agent
        cells[enters] = agent if free else cell


@kernel
def resolve(s, r, w, start, direction):
    """Lets the agents of world w pass to the cells they want to enter, one after another in the order of moving:
    whoever comes first gets a contested cell, and one that was left is free. Writes what each met in its cell,
    WALL if it stays in its own, and adds the food among it to what has to regrow."""
    agents = len(s.order) // len(s.grid)
    cells, first = s.grid.reshape(len(s.grid), -1)[w], w * agents
    order, crossing = s.order[first : first + agents], s.crossing[first : first + agents]
    met, ahead = s.entered_cell[first : first + agents], AHEAD if r.rows.ndim > 1 else 0
    to_end = agents - start if direction > 0 else start + 1
    for part in range(2):  # to the end of the order, and from its other end on
        begin = start if part == 0 else 0 if direction > 0 else agents - 1
        count = to_end if part == 0 else agents - to_end
        _pass(cells, order, crossing, met, begin, direction, count, ahead)
    if r.edible:
        meals = 0
        for k in range(agents):
            meals += met[k] == FOOD  # whoever met food has entered its cell
        s.food_debt[w] += meals


@kernel
def _displace(s, lo, hi):
    """Makes the stretch for those that met no obstacle, or stay within their own cell."""
    met = s.entered_cell[lo:hi]
    rows, columns, wished_rows = s.position[0, lo:hi], s.position[1, lo:hi], s.desired_move[0, lo:hi]
    wished_columns, moved_rows, moved_columns = (
        s.desired_move[1, lo:hi],
        s.displacement[0, lo:hi],
        s.displacement[1, lo:hi],
    )
    for i in range(hi - lo):
        row, column = rows[i], columns[i]
        to_row, to_column = row + wished_rows[i], column + wished_columns[i]
        inside = (np.int32(row) == np.int32(to_row)) & (np.int32(column) == np.int32(to_column))
        moves = inside | (met[i] < WALL)
        to_row, to_column = to_row if moves else row, to_column if moves else column
        moved_rows[i] += to_row - row
        moved_columns[i] += to_column - column
        rows[i], columns[i] = to_row, to_column


@kernel
def settle(s, r, lo, hi):
    """Makes the stretch for those agents in [lo, hi) that could pass, and adds up what they moved and ate. Within
    its own cell an agent always moves."""
    met, eaten, under = s.entered_cell[lo:hi], s.eaten[lo:hi], s.under[lo:hi]
    _displace(s, lo, hi)
    for i in range(hi - lo):
        eaten[i] += np.uint8((met[i] == FOOD) & r.edible)
        covers = np.uint8(EMPTY) if r.edible else met[i]
        under[i] = covers if met[i] < WALL else under[i]


@parallel_kernel
def charge(rewards, actions, centre, cost):
    """Makes a share `cost` of each reward f32[N] minus the effort: the mean square of the action's components, each at
    most 1, whether the agent could move or not."""
    half = np.float32(0.5)
    for i in prange(len(rewards)):
        row, column = np.float32(actions[i, 0]) - centre, np.float32(actions[i, 1]) - centre
        finite = (abs(row) < INFINITY) & (abs(column) < INFINITY)
        row, column = min(max(row, -ONE), ONE), min(max(column, -ONE), ONE)
        effort = half * (row * row + column * column) if finite else ZERO
        rewards[i] = (ONE - cost) * rewards[i] - cost * effort

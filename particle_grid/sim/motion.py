"""How agents move: four stages, each a loop plain enough for the compiler to vectorise.

A step is walked in `r.substeps` substeps of at most one cell. `desire` turns actions into the move an agent wants to
make in each substep, `cross` looks up which cells that move leaves and enters, `resolve` lets the agents of a world
pass one after another, and `settle` moves those that could pass. Only `resolve` is sequential: it touches the grid and
two numbers per agent.

The stages work on the agents [lo, hi) of a world through slices that start at 0, because indices that may be negative
prevent vectorisation. For the same reason conditions use `&` and `|`, and both sides of a choice are computed.
"""

import numpy as np

from particle_grid.sim import simd
from particle_grid.sim.rng import below
from particle_grid.sim.world import EMPTY, FOOD, WALL
from particle_grid.support.jit import kernel

AHEAD = 16  # how many agents ahead of the current one cells are prefetched
ZERO, ONE = np.float32(0), np.float32(1)
INFINITY, NEAR = np.float32(np.inf), np.int32(1)
# The parts of `State.crossing`: the cell to leave, what is under the agent, and the cell to enter.
LOW, HIGH = np.uint64(0x7FFFFFFF), np.uint64(32)
SIGN, BIT = np.uint64(31), np.uint64(1)


@kernel
def _desired_moves(s, r, lo, hi, action, truncated):
    """Write the move of each substep, which is zero for truncated agents, and clear last step's displacements."""
    rows, columns = s.desired_move[0, lo:hi], s.desired_move[1, lo:hi]
    moved_rows, moved_columns = s.displacement[0, lo:hi], s.displacement[1, lo:hi]
    eaten = s.eaten[lo:hi]
    for i in range(hi - lo):
        row, column = np.float32(action[2 * i]) - r.centre, np.float32(action[2 * i + 1]) - r.centre
        finite = (abs(row) < INFINITY) & (abs(column) < INFINITY)
        row, column = min(max(row, -ONE), ONE), min(max(column, -ONE), ONE)
        row, column = row if finite else ZERO, column if finite else ZERO
        row, column = r.momentum * moved_rows[i] + r.gain * row, r.momentum * moved_columns[i] + r.gain * column
        row = min(max(row, -r.speed), r.speed) * r.substep_share
        column = min(max(column, -r.speed), r.speed) * r.substep_share
        rows[i], columns[i] = ZERO if truncated[i] else row, ZERO if truncated[i] else column
        moved_rows[i], moved_columns[i] = ZERO, ZERO
        eaten[i] = 0


@kernel
def desire(s, r, w, lo, hi, actions, truncations):
    """Mark the agents [lo, hi) whose life ends in this step, and write how far the others want to move per substep.

    The velocity is r.momentum times the last displacement plus r.gain times the action, limited to r.speed along each
    axis. Actions are clipped to r.centre +- 1; an action with a NaN or infinite component counts as no action.
    """
    now, world_restarts = s.tick[w], 0 < r.max_episode_steps <= s.tick[w]
    expiry, truncated = s.expiry[lo:hi], truncations[lo:hi]
    for i in range(hi - lo):
        truncated[i] = (expiry[i] <= now) | world_restarts
    _desired_moves(s, r, lo, hi, actions.reshape(-1)[2 * lo : 2 * hi], truncated)


@kernel
def cross(s, lo, hi):
    """Write which cells the agents [lo, hi) leave and enter in a substep.

    The destination is rounded to float32 before its cell is taken, exactly as `settle` stores it. Otherwise an agent
    could end up in a cell that was never checked. If rounding would move an agent by two cells, it stays where it is.
    """
    rows, columns = s.position[0, lo:hi], s.position[1, lo:hi]
    desired_rows, desired_columns = s.desired_move[0, lo:hi], s.desired_move[1, lo:hi]
    under, crossing = s.under[lo:hi], s.crossing[lo:hi]
    stride = np.int32(s.grid.shape[2])
    for i in range(hi - lo):
        row, column = np.int32(rows[i]), np.int32(columns[i])
        to_row, to_column = np.int32(rows[i] + desired_rows[i]), np.int32(columns[i] + desired_columns[i])
        near = (abs(to_row - row) <= NEAR) & (abs(to_column - column) <= NEAR)
        # Both are read before either is written: otherwise the vector code has to check for overlaps.
        desired_rows[i], desired_columns[i] = (
            desired_rows[i] if near else ZERO,
            desired_columns[i] if near else ZERO,
        )
        leaves = np.uint32(row * stride + column)
        enters = np.uint32(to_row * stride + to_column) if near else leaves
        crossing[i] = np.uint64(leaves) | (np.uint64(under[i]) << SIGN) | (np.uint64(enters) << HIGH)


@kernel
def next_order(s, w):
    """Shuffle the moving order of world w a little, and choose where in it this step begins.

    The order starts as a uniformly random permutation and random swaps keep it one, so each agent is equally likely to
    come first in any contest. A new start and direction in every step keep any order from lasting.

    Returns:
        (start, direction): the first place, and 1 to proceed forwards or -1 backwards.
    """
    agents = len(s.order) // len(s.grid)
    for _ in range(1 + agents // 32):
        i, j = w * agents + below(s.rng, w, agents), w * agents + below(s.rng, w, agents)
        s.order[i], s.order[j] = s.order[j], s.order[i]
    return below(s.rng, w, agents), 2 * below(s.rng, w, 2) - 1


@kernel
def _pass(cells, order, crossing, entered_cell, start, direction, count, ahead):
    """Let `count` agents pass in turn, from place `start` of the order, prefetching the cell of the one `ahead`."""
    for k in range(count):
        if ahead > 0:
            later = order[np.uint64(start + direction * min(k + ahead, count - 1))]
            simd.prefetch(cells, np.int64(crossing[np.uint64(later)] >> HIGH))
        i = np.uint64(order[np.uint64(start + direction * k)])
        leaves, enters = crossing[i] & LOW, crossing[i] >> HIGH
        under = (crossing[i] >> SIGN) & BIT
        agent, cell = cells[leaves], cells[enters]
        free = (cell < WALL) | (leaves == enters)
        entered_cell[i] = np.uint8(WALL) if leaves == enters else cell
        # Both cells are always written, with their old contents if the move is refused: a branch would be mispredicted.
        cells[leaves] = np.uint8(under) if free else agent
        cells[enters] = agent if free else cell


@kernel
def resolve(s, r, w, start, direction):
    """Let the agents of world w pass to the cells they want to enter, one after another in the moving order.

    A contested cell goes to whichever agent comes first, and a cell that was just left is free. Writes what was in the
    cell each agent wanted to enter (WALL for those that stay in their own cell), and adds eaten food to the food debt.
    """
    agents = len(s.order) // len(s.grid)
    cells, first = s.grid.reshape(len(s.grid), -1)[w], w * agents
    order, crossing = s.order[first : first + agents], s.crossing[first : first + agents]
    entered_cell, ahead = s.entered_cell[first : first + agents], AHEAD if r.window_rows.ndim > 1 else 0
    to_end = agents - start if direction > 0 else start + 1
    for part in range(2):  # up to the end of the order, then the rest from its other end
        begin = start if part == 0 else 0 if direction > 0 else agents - 1
        count = to_end if part == 0 else agents - to_end
        _pass(cells, order, crossing, entered_cell, begin, direction, count, ahead)
    if r.edible:
        meals = 0
        for k in range(agents):
            meals += entered_cell[k] == FOOD  # food never blocks, so these agents entered the cell
        s.food_debt[w] += meals


@kernel
def _displace(s, lo, hi):
    """Move the agents [lo, hi) that met no obstacle or stay within their own cell."""
    entered_cell = s.entered_cell[lo:hi]
    rows, columns = s.position[0, lo:hi], s.position[1, lo:hi]
    desired_rows, desired_columns = s.desired_move[0, lo:hi], s.desired_move[1, lo:hi]
    moved_rows, moved_columns = s.displacement[0, lo:hi], s.displacement[1, lo:hi]
    for i in range(hi - lo):
        row, column = rows[i], columns[i]
        to_row, to_column = row + desired_rows[i], column + desired_columns[i]
        inside = (np.int32(row) == np.int32(to_row)) & (np.int32(column) == np.int32(to_column))
        moves = inside | (entered_cell[i] < WALL)
        to_row, to_column = to_row if moves else row, to_column if moves else column
        moved_rows[i] += to_row - row
        moved_columns[i] += to_column - column
        rows[i], columns[i] = to_row, to_column


@kernel
def settle(s, r, lo, hi):
    """Move the agents [lo, hi) that could pass or stay within their own cell, and add up what they ate."""
    entered_cell = s.entered_cell[lo:hi]
    eaten, under = s.eaten[lo:hi], s.under[lo:hi]
    _displace(s, lo, hi)
    for i in range(hi - lo):
        eaten[i] += np.uint8((entered_cell[i] == FOOD) & r.edible)
        covers = np.uint8(EMPTY) if r.edible else entered_cell[i]
        under[i] = covers if entered_cell[i] < WALL else under[i]

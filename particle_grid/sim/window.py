"""Writing observations: copy the window of cells around each agent, and count the agents in it on the way."""

import numpy as np

from particle_grid.sim import simd
from particle_grid.sim.observation import FEATURES, signed_byte
from particle_grid.sim.world import AGENT_1
from particle_grid.support.jit import kernel, parallel_kernel, prange

AHEAD = 2  # how many agents ahead of the current one windows are prefetched
BITS, LOW = np.uint64(8), np.int64(2**32 - 1)
ZERO, ONE = np.float32(0), np.float32(1)
NONE = np.int32(0)


@kernel
def _look_plain(s, r, w, lo, hi, observations, counting):
    """Copy windows and features row by row."""
    side = 2 * r.vision + 1
    for i in range(lo, hi):
        top, left = int(s.position[0, i]) - r.vision, int(s.position[1, i]) - r.vision
        own, every, colour = NONE, NONE, s.colour[i]
        for row in range(side):
            cells, seen = s.grid[w, top + row, left : left + side], observations[i, row * side : (row + 1) * side]
            for k in range(len(seen)):
                cell = cells[k]
                seen[k] = cell
                own += np.int32(cell == colour)
                every += np.int32(cell >= AGENT_1)
        if counting:
            s.own_in_sight[i], s.others_in_sight[i] = own - 1, every - own  # without the agent itself
        for k in range(FEATURES):
            observations[i, side * side + k] = np.uint8((s.features[i] >> np.uint64(8 * k)) & np.uint64(255))


@kernel
def _look_vector(s, r, w, lo, hi, observations, counting):
    """Write the same bytes and counts as `_look_plain`, one row of the window at a time."""
    side, stride = r.window_rows.ndim, s.grid.shape[2]
    size, corner = observations.shape[1], r.vision * (stride + 1)
    rows, columns = s.position[0, lo:hi], s.position[1, lo:hi]
    colour, packed = s.colour[lo:hi], s.features[lo:hi]
    own, others = s.own_in_sight[lo:hi], s.others_in_sight[lo:hi]
    cells, flat = s.grid.reshape(len(s.grid), -1)[w], observations[lo:hi].reshape(-1)
    for i in range(hi - lo):
        if counting:
            k = min(i + AHEAD, hi - lo - 1)
            start = int(rows[k]) * stride + int(columns[k]) - corner
            for row in range(side):
                simd.prefetch(cells, start + row * stride)
        start = int(rows[i]) * stride + int(columns[i]) - corner
        counts = simd.copy_window(flat, i * size, cells, start, stride, r.window_rows, colour[i])
        if counting:  # otherwise the compiler drops the counting altogether
            own[i], others[i] = (counts >> 32) - 1, (counts & LOW) - (counts >> 32)
        last_cell = cells[np.uint64(start + 2 * corner)]
        simd.store_word(flat, i * size + side * side - 1, (packed[i] << BITS) | np.uint64(last_cell))


@kernel
def look(s, r, w, lo, hi, observations, counting):
    """Write the observations of agents [lo, hi) of world w and, if `counting`, how many other agents they see."""
    if r.window_rows.ndim > 1:
        _look_vector(s, r, w, lo, hi, observations, counting)
    else:
        _look_plain(s, r, w, lo, hi, observations, counting)


@parallel_kernel
def finish_agents(rewards, truncations, episode_return, feature):
    """Settle the rewards of a step: zero those of agents that just spawned, add them to the returns, and encode them.

    Returns:
        How many rewards are NaN or outside [-1, 1].
    """
    wrong = 0
    for i in prange(len(rewards)):
        reward = ZERO if truncations[i] else rewards[i]
        right = (reward >= -ONE) & (reward <= ONE)
        wrong += not right
        rewards[i] = reward
        episode_return[i] += reward if right else ZERO
        feature[i] = signed_byte(reward)
    return wrong

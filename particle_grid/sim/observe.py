"""What agents see: the window of cells around them, then seven features, in uint8; and how many others are in it."""

import numpy as np

from particle_grid.sim import simd
from particle_grid.sim.world import AGENT_1, FEATURES
from particle_grid.support.jit import kernel, parallel_kernel, prange

NO_REWARD = 128  # the feature of the reward 0
NEXT = 2  # agents between the one that looks and the one whose window is being fetched from memory
BYTE, TWO_BYTES, BITS, LOW = np.uint32(8), np.uint32(16), np.uint64(8), np.int64(2**32 - 1)
ZERO, ONE, F127, F255, F256, MIDDLE = (np.float32(x) for x in (0, 1, 127, 255, 256, 128.5))


@kernel
def _signed(share):
    """A number of [-1, 1] as a byte, in 1/127 and offset by 128."""
    return np.uint32(np.int32(MIDDLE + F127 * min(max(share, -ONE), ONE)))


@kernel
def features(s, r, lo, hi):
    """Packs the features of agents [lo, hi) into s.features, the first in the lowest byte: the position as shares of
    the field and of the cell in 1/256, the displacement as a share of the speed, and the last reward."""
    rows, columns, packed = s.position[0, lo:hi], s.position[1, lo:hi], s.features[lo:hi]
    moved_rows, moved_columns, reward = s.displacement[0, lo:hi], s.displacement[1, lo:hi], s.last_reward[lo:hi]
    margin = np.float32(r.vision)
    for i in range(hi - lo):
        row, column = rows[i], columns[i]
        in_field = np.uint32(np.int32(min((row - margin) * r.row_share, F255)))
        in_field |= np.uint32(np.int32(min((column - margin) * r.column_share, F255))) << BYTE
        in_cell = np.uint32(np.int32((row - np.float32(np.int32(row))) * F256))
        in_cell |= np.uint32(np.int32((column - np.float32(np.int32(column))) * F256)) << BYTE
        last = _signed(moved_rows[i] * r.speed_share) | (_signed(moved_columns[i] * r.speed_share) << BYTE)
        last |= np.uint32(reward[i]) << TWO_BYTES
        packed[i] = np.uint64(in_field | (in_cell << TWO_BYTES)) | (np.uint64(last) << np.uint64(32))


@kernel
def _look_plain(s, r, w, lo, hi, observations, counting):
    """Copies windows and features cell by cell."""
    side = 2 * r.vision + 1
    for i in range(lo, hi):
        top, left = int(s.position[0, i]) - r.vision, int(s.position[1, i]) - r.vision
        own, every = 0, 0
        for k in range(side * side):
            cell = s.grid[w, top + k // side, left + k % side]
            observations[i, k] = cell
            own += cell == s.colour[i]
            every += cell >= AGENT_1
        if counting:
            s.own_in_sight[i], s.others_in_sight[i] = own - 1, every - own  # the agent itself is no neighbour
        for k in range(FEATURES):
            observations[i, side * side + k] = np.uint8((s.features[i] >> np.uint64(8 * k)) & np.uint64(255))


@kernel
def _look_vector(s, r, w, lo, hi, observations, counting):
    """The same bytes and counts, a row of the window at a time."""
    side, stride, size = r.rows.ndim, s.grid.shape[2], observations.shape[1]
    rows, columns, colour, packed = s.position[0, lo:hi], s.position[1, lo:hi], s.colour[lo:hi], s.features[lo:hi]
    own, others = s.own_in_sight[lo:hi], s.others_in_sight[lo:hi]
    cells, flat = s.grid.reshape(len(s.grid), -1)[w], observations[lo:hi].reshape(-1)
    corner = r.vision * (stride + 1)
    for i in range(hi - lo):
        if counting:
            k = min(i + NEXT, hi - lo - 1)
            start = int(rows[k]) * stride + int(columns[k]) - corner
            for row in range(side):
                simd.prefetch(cells, start + row * stride)
        start = int(rows[i]) * stride + int(columns[i]) - corner
        counts = simd.copy_window(flat, i * size, cells, start, stride, r.rows, colour[i])
        if counting:  # else the compiler leaves out what led here
            own[i], others[i] = (counts >> 32) - 1, (counts & LOW) - (counts >> 32)
        last_cell = cells[np.uint64(start + 2 * corner)]
        simd.store_word(flat, i * size + side * side - 1, (packed[i] << BITS) | np.uint64(last_cell))


@kernel
def look(s, r, w, lo, hi, observations, counting):
    """Writes the observations of agents [lo, hi) of world w and, if `counting`, how many others they see."""
    if r.rows.ndim > 1:
        _look_vector(s, r, w, lo, hi, observations, counting)
    else:
        _look_plain(s, r, w, lo, hi, observations, counting)


@parallel_kernel
def finish_agents(rewards, truncations, episode_return, feature):
    """Once the rewards are known: zeroes those of agents that spawned in this step, adds them to the episodes, and
    writes them as features u8[N]. Returns how many are no numbers in [-1, 1]."""
    wrong = 0
    for i in prange(len(rewards)):
        reward = ZERO if truncations[i] else rewards[i]
        right = (reward >= -ONE) & (reward <= ONE)
        wrong += not right
        rewards[i] = reward
        episode_return[i] += reward if right else ZERO
        feature[i] = _signed(reward)
    return wrong

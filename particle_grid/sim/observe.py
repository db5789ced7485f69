"""What agents see: the window of cells around them, then seven features, in uint8."""

import numpy as np

from particle_grid.jit import kernel, parallel_kernel, prange
from particle_grid.sim import simd
from particle_grid.sim.state import AGENT_1, Rules, State

F0, F1, F127, F256, MIDDLE = (np.float32(x) for x in (0, 1, 127, 256, 128.5))


# Each loop over agents calls a function for one of them: a sum inside a `prange` would be taken for one over agents.


@kernel
def _look_plain(grid, w, top, left, side, colour, observations, i):
    """Copies the window of agent i in plain loops; returns (cells of its colour, cells of agents) in it."""
    own, every = 0, 0
    for k in range(side * side):
        cell = grid[w, top + k // side, left + k % side]
        observations[i, k] = cell
        own += cell == colour
        every += cell >= AGENT_1
    return own, every


@kernel
def _look_simd(grid, w, top, left, side, colour, observations, i):
    """The same bytes and counts, a row of the window at a time."""
    start, stride = (w * grid.shape[1] + top) * grid.shape[2] + left, grid.shape[2]
    at, own, every, valid = i * observations.shape[1], 0, 0, (1 << side) - 1
    for _ in range(side):
        counts = simd.copy_row_counting(observations, at, grid, start, colour, valid)
        own += counts[0]
        every += counts[1]
        at += side
        start += stride
    return own, every


@parallel_kernel
def _windows(s, vision, vectors, observations):
    grid, position, colour, side = s.grid, s.position, s.colour, 2 * vision + 1
    own_in_sight, others_in_sight, agents = s.own_in_sight, s.others_in_sight, len(position) // len(grid)
    for i in prange(len(position)):
        top, left = int(position[i, 0]) - vision, int(position[i, 1]) - vision
        if vectors:
            own, every = _look_simd(grid, i // agents, top, left, side, colour[i], observations, i)
        else:
            own, every = _look_plain(grid, i // agents, top, left, side, colour[i], observations, i)
        own_in_sight[i], others_in_sight[i] = own - 1, every - own  # the agent itself is no neighbour


@kernel
def _features(s, r, observations, reward, i):
    """Writes the features of agent i behind its window.

    Positions are shares of the field and of the cell in 1/256; the displacement is in 1/127 of the speed and the
    reward in 1/127, both offset by 128."""
    row, column = s.position[i, 0], s.position[i, 1]
    margin, at = np.float32(r.vision), (2 * r.vision + 1) ** 2
    observations[i, at] = int((row - margin) / np.float32(r.height) * F256)
    observations[i, at + 1] = int((column - margin) / np.float32(r.width) * F256)
    observations[i, at + 2] = int((row - np.float32(int(row))) * F256)
    observations[i, at + 3] = int((column - np.float32(int(column))) * F256)
    for k in range(2):
        observations[i, at + 4 + k] = int(MIDDLE + F127 * min(max(s.displacement[i, k] / r.speed, -F1), F1))
    observations[i, at + 6] = int(MIDDLE + F127 * reward)


@kernel
def _finish_one(s, r, observations, rewards, truncations, i):
    """Returns whether the reward of agent i is out of range or no number."""
    if truncations[i]:
        rewards[i] = F0
    right = -F1 <= rewards[i] <= F1
    reward = rewards[i] if right else F0
    s.episode_return[i] += reward
    _features(s, r, observations, reward, i)
    return not right


@parallel_kernel
def finish(s, r, observations, rewards, truncations):
    """Once the rewards are known: zeroes those of agents that spawned in this step, adds them to the episodes, and
    writes the features. Returns how many rewards are no numbers in [-1, 1]."""
    wrong = 0
    for i in prange(s.position.shape[0]):
        wrong += _finish_one(s, r, observations, rewards, truncations, i)
    return wrong


def windows(s: State, r: Rules, observations: np.ndarray) -> None:
    """Writes the window of each agent into observations u8[N, row], and counts the agents in it into `s`."""
    _windows(s, r.vision, simd.fits(r.vision), observations)

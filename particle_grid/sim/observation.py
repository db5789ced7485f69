"""The layout of an observation. No other file knows where in it a feature is, or how a number becomes a byte.

An observation is uint8[(2 * vision + 1)**2 + 7]: a window of cells, then seven features.

======================  ============================================================================================
bytes                   meaning
======================  ============================================================================================
the window              cell codes around the agent, row by row; the agent itself is in the middle
features 0 and 1        position: row and column in the field, in 1/256 of its height and width
features 2 and 3        offset: row and column within the agent's cell, in 1/256 of a cell
features 4 and 5        displacement: rows and columns moved in the last step, in 1/127 of the speed, offset by 128
feature 6               reward of the last step, in 1/127, offset by 128
======================  ============================================================================================

`encode` writes the features of many agents in a kernel. `decode` turns whole observations into numbers with units.
Kernels that play from observations call `own_colour` and the functions after it with one observation at a time.
"""

from typing import NamedTuple, Protocol

import numpy as np

from particle_grid.support.jit import kernel

FEATURES = 7  # bytes after the window; `learn.policy.FEATURES` must be the same
POSITION, OFFSET = 0, 2  # each is followed by the feature of the column
DISPLACEMENT, REWARD = 4, 6
SIGNED_ZERO, SIGNED_UNIT = 128, 127  # the bytes of 0, and of 1 less that of 0

_BYTE, _TWO_BYTES = np.uint32(8), np.uint32(16)
_ONE = np.float32(1)
_UNIT, _ROUNDED_ZERO = np.float32(SIGNED_UNIT), np.float32(SIGNED_ZERO + 0.5)
_LARGEST, _LEVELS = np.float32(255), np.float32(256)


class Extents(Protocol):
    """The settings that `decode` needs: a `World` has them, and so do the `Rules` of a simulation."""

    @property
    def vision(self) -> int:
        """Return the cells seen in each direction."""

    @property
    def height(self) -> int:
        """Return the rows of the field."""

    @property
    def width(self) -> int:
        """Return the columns of the field."""

    @property
    def speed(self) -> float | np.float32:
        """Return the largest move per step, in cells."""


class Observation(NamedTuple):
    """Decoded observations, with the leading axes (...) of the bytes they came from."""

    window: np.ndarray  # u8[..., 2 * vision + 1, 2 * vision + 1] cell codes, a view of the bytes
    colour: np.ndarray  # u8[...] the agent's own cell code
    position: np.ndarray  # f64[..., 2] row and column in the field, in cells, to 1/512 of the field
    offset: np.ndarray  # f32[..., 2] row and column within the agent's cell, in [0, 1]
    displacement: np.ndarray  # f32[..., 2] cells moved in the last step
    reward: np.ndarray  # f32[...] reward of the last step, in [-1, 1]


def size(vision: int) -> int:
    """Return the number of bytes of an observation."""
    return (2 * vision + 1) ** 2 + FEATURES


def decode(observations: np.ndarray, world: Extents) -> Observation:
    """Decode observations into numbers with units.

    Args:
        observations: u8[..., size(vision)].
        world: the `World` they were made in.
    """
    side = 2 * world.vision + 1
    window = observations[..., :-FEATURES].reshape(*observations.shape[:-1], side, side)
    features = observations[..., -FEATURES:]
    return Observation(
        window=window,
        colour=window[..., world.vision, world.vision],
        position=_shares(features, POSITION) * np.array([world.height, world.width], np.float64),
        offset=_shares(features, OFFSET),
        displacement=displacement(observations, world.speed),
        reward=_signed(features[..., REWARD]),
    )


def displacement(observations: np.ndarray, speed: float | np.float32) -> np.ndarray:
    """Return the cells that agents moved in the last step, f32[..., 2], from u8[..., size(vision)]."""
    return _signed(observations[..., -FEATURES:][..., DISPLACEMENT : DISPLACEMENT + 2]) * speed


def reward_feature(observations: np.ndarray) -> np.ndarray:
    """Return the feature of the last reward, u8[...], as a view of observations u8[..., size(vision)]."""
    return observations[..., -FEATURES:][..., REWARD]


def encode_signed(shares: np.ndarray) -> np.ndarray:
    """Encode numbers in [-1, 1] as bytes, like rewards."""
    return np.clip(np.rint(SIGNED_ZERO + SIGNED_UNIT * shares), 0, 255).astype(np.uint8)


def _shares(features: np.ndarray, first: int) -> np.ndarray:
    """Decode a pair of features into shares of a whole: the middle of the interval that each byte stands for."""
    return (features[..., first : first + 2].astype(np.float32) + np.float32(0.5)) / _LEVELS


def _signed(features: np.ndarray) -> np.ndarray:
    return (features.astype(np.float32) - SIGNED_ZERO) / SIGNED_UNIT


@kernel
def signed_byte(share):
    """Encode a number in [-1, 1] as a byte; numbers beyond are clipped."""
    return np.uint32(np.int32(_ROUNDED_ZERO + _UNIT * min(max(share, -_ONE), _ONE)))


@kernel
def encode(s, r, lo, hi):
    """Pack the features of agents [lo, hi) into s.features, feature k into bits 8 * k to 8 * k + 7."""
    rows, columns = s.position[0, lo:hi], s.position[1, lo:hi]
    moved_rows, moved_columns = s.displacement[0, lo:hi], s.displacement[1, lo:hi]
    packed, reward = s.features[lo:hi], s.last_reward[lo:hi]
    margin = np.float32(r.vision)
    for i in range(hi - lo):
        row, column = rows[i], columns[i]
        in_field = np.uint32(np.int32(min((row - margin) * r.row_share, _LARGEST)))
        in_field |= np.uint32(np.int32(min((column - margin) * r.column_share, _LARGEST))) << _BYTE
        in_cell = np.uint32(np.int32((row - np.float32(np.int32(row))) * _LEVELS))
        in_cell |= np.uint32(np.int32((column - np.float32(np.int32(column))) * _LEVELS)) << _BYTE
        last = signed_byte(moved_rows[i] * r.speed_share) | (signed_byte(moved_columns[i] * r.speed_share) << _BYTE)
        last |= np.uint32(reward[i]) << _TWO_BYTES
        packed[i] = np.uint64(in_field | (in_cell << _TWO_BYTES)) | (np.uint64(last) << np.uint64(32))


@kernel
def own_colour(observation):
    """Return the agent's own cell code, in the middle of the window."""
    return observation[(len(observation) - FEATURES) // 2]


@kernel
def _feature(observation, k):
    return observation[len(observation) - FEATURES + k]


@kernel
def field_position(observation, height, width):
    """Return the agent's row and column in the field, in cells."""
    row, column = _feature(observation, POSITION), _feature(observation, POSITION + 1)
    return (row + 0.5) / 256.0 * height, (column + 0.5) / 256.0 * width


@kernel
def cell_offset(observation):
    """Return the agent's row and column within its cell, in [0, 1]."""
    row, column = _feature(observation, OFFSET), _feature(observation, OFFSET + 1)
    return (row + 0.5) / 256.0, (column + 0.5) / 256.0


@kernel
def last_direction(observation):
    """Return the rows and columns moved in the last step, as integers in 1/127 of the speed; (0, 0) without a move."""
    row, column = _feature(observation, DISPLACEMENT), _feature(observation, DISPLACEMENT + 1)
    return int(row) - SIGNED_ZERO, int(column) - SIGNED_ZERO


@kernel
def last_reward(observation):
    """Return the reward of the last step, in [-1, 1]."""
    return (float(_feature(observation, REWARD)) - SIGNED_ZERO) / SIGNED_UNIT

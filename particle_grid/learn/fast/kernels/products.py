"""Matrix products inside compiled functions, in float32 or bf16: no library, no Python, no GIL.

Arrays marked `real` hold float32, or bf16 as bits in uint16, because NumPy has no bf16. Arrays marked `words` hold
float32, or pairs of bf16 numbers as uint32, see `kernels.tiles`. The numbers of rows and columns of a
product must be multiples of MULTIPLE_ROWS and MULTIPLE_COLUMNS, and of 2 along a shared dimension: nothing is checked.
"""

import numpy as np
from numba import types
from numba.extending import overload

from particle_grid.learn.fast.kernels.tiles import COLUMNS, ROWS, tile
from particle_grid.support.jit import math_kernel

MULTIPLE_ROWS = 8
MULTIPLE_COLUMNS = 32
SQUARE = 16  # rows that `transpose` moves at a time
BLOCK = 128  # rows that `add_transposed_product` takes at a time, which stay in the nearest caches
S16 = np.uint32(16)
ROUND = np.uint32(0x7FFF)
ODD = np.uint32(1)
ZERO = np.float32(0)


def unpack(row, x):
    """Copy a row real[n] to x f32[n]."""


def pack(x, row):
    """Copy x f32[n] to a row real[n], rounded to nearest, ties to even."""


def pack_words(x, words):
    """Copy a matrix f32[K, n] to words[K / 2 or K, n], rounded as by `pack`."""


def as_words(x, scratch):
    """Return rows real[K, n] as words. Those of bf16 are written to scratch u32[at least K / 2, n]."""


@overload(unpack)
def _unpack(row, x):
    def from_bf16(row, x):
        bits = x.view(np.uint32)
        for k in range(len(bits)):
            bits[k] = np.uint32(row[k]) << S16  # bf16 is the upper half of a float32

    def from_f32(row, x):
        for k in range(len(x)):
            x[k] = row[k]

    return from_bf16 if row.dtype == types.uint16 else from_f32


@overload(pack)
def _pack(x, row):
    def to_bf16(x, row):
        bits = x.view(np.uint32)
        for k in range(len(bits)):
            row[k] = np.uint16((bits[k] + ROUND + ((bits[k] >> S16) & ODD)) >> S16)

    def to_f32(x, row):
        for k in range(len(x)):
            row[k] = x[k]

    return to_bf16 if row.dtype == types.uint16 else to_f32


@overload(pack_words)
def _pack_words(x, words):
    def to_bf16(x, words):
        for k in range(len(words)):
            low = x[2 * k].view(np.uint32)
            high = x[2 * k + 1].view(np.uint32)
            row = words[k]
            for j in range(len(row)):
                first = (low[j] + ROUND + ((low[j] >> S16) & ODD)) >> S16
                second = (high[j] + ROUND + ((high[j] >> S16) & ODD)) >> S16
                row[j] = np.uint32(first) | (np.uint32(second) << S16)

    def to_f32(x, words):
        for k in range(len(x)):
            words[k] = x[k]

    return to_bf16 if words.dtype == types.uint32 else to_f32


@overload(as_words)
def _as_words(x, scratch):
    def from_bf16(x, scratch):
        words = scratch[: len(x) // 2]
        for k in range(len(words)):
            low = x[2 * k]
            high = x[2 * k + 1]
            row = words[k]
            for j in range(len(row)):
                row[j] = np.uint32(low[j]) | (np.uint32(high[j]) << S16)
        return words

    def from_f32(x, scratch):
        return x

    return from_bf16 if x.dtype == types.uint16 else from_f32


@math_kernel
def product(a, b, c):
    """Compute c f32[m, n] = a @ b for a real[m, K] and b words[K / 2 or K, n]."""
    depth, n = b.shape
    for j in range(0, n, COLUMNS):
        for i in range(0, len(c), ROWS):
            tile(a, i * depth, depth, 1, b, j, n, c, i * n + j, n, depth, False)


@math_kernel
def add_transposed_product(a, b, c):
    """Add a.T @ b to c f32[m, n], for a real[K, m] and b real[K, n]."""
    m, n = c.shape
    left = np.empty((BLOCK // 2, m), np.uint32)
    right = np.empty((BLOCK // 2, n), np.uint32)
    for first in range(0, len(a), BLOCK):
        x = as_words(a[first : first + BLOCK], left)
        y = as_words(b[first : first + BLOCK], right)
        for j in range(0, n, COLUMNS):
            for i in range(0, m, ROWS):
                tile(x, i, 1, m, y, j, n, c, i * n + j, n, len(x), True)


@math_kernel
def transpose(x, y):
    """Write x f32[m, n] to y f32[n, m]."""
    m, n = x.shape
    for first in range(0, m, SQUARE):
        end = min(first + SQUARE, m)
        for j in range(n):
            row = y[j]
            for i in range(first, end):
                row[i] = x[i, j]


@math_kernel
def apply_heads(hidden, heads, bias, out):
    """Write heads f32[>= A, H] @ hidden f32[H] + bias f32[A] to out f32[A]. A `product` is slower for few outputs."""
    for a in range(len(bias)):
        total = ZERO
        head = heads[a]
        for k in range(len(hidden)):
            total += head[k] * hidden[k]
        out[a] = total + bias[a]

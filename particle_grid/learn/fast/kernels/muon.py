"""A step of Muon on one weight matrix, as one compiled call, see `particle_grid.learn.optimiser`.

All matrices are float32 and padded with zeros to multiples of the register tile, which changes nothing: singular values
of 0 stay 0. The iterates are polynomials of one symmetric matrix. So they commute, all of their products are symmetric,
and only the tiles on and above the diagonal are computed.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from particle_grid.learn.fast.kernels.tiles import COLUMNS, LANES, ROWS, tile
from particle_grid.support.jit import math_kernel

SQUARES = 5  # square matrices of scratch memory: the Gram matrix, the polynomial, and what their products need
STRIP = 64  # rows of a step that are computed at a time, so that they stay in the nearest cache
TINY = np.float32(1e-7)  # least norm that a gradient is divided by


def scratch_size(rows: int, columns: int) -> int:
    """Return how many numbers of scratch memory `step` needs for a matrix f32[rows, columns]."""
    m = -(-rows // COLUMNS) * COLUMNS
    n = -(-columns // COLUMNS) * COLUMNS
    short = min(m, n)
    return m * n + SQUARES * short * short + max(STRIP * n, m * n if m < n else 0)


@intrinsic
def transpose_block(typing_context, x, x_at, x_row, y, y_at, y_row):
    """Write the transpose of a block f32[16, 16] of x to y.

    Args:
        x, y: float32 arrays.
        x_at, y_at: where the blocks start.
        x_row, y_row: distance between rows.
    """

    def generate(context, builder, signature, args):
        vector = ir.VectorType(ir.FloatType(), LANES)

        def pointer(position, row):
            data = context.make_array(signature.args[position])(context, builder, args[position]).data
            at = builder.add(args[position + 1], builder.mul(args[position + 2], ir.IntType(64)(row)))
            return builder.bitcast(builder.gep(data, [at]), vector.as_pointer())

        rows = [builder.load(pointer(0, row), align=4) for row in range(LANES)]
        for distance in (1, 2, 4, 8):  # exchange the blocks of this size beside the diagonal (Eklundh 1972)
            lanes = [(lane, lane & distance) for lane in range(LANES)]
            low = [LANES + lane - distance if odd else lane for lane, odd in lanes]
            high = [LANES + lane if odd else lane + distance for lane, odd in lanes]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), LANES), mask) for mask in (low, high)]
            for first in (row for row in range(LANES) if not row & distance):
                pair = rows[first], rows[first + distance]
                rows[first] = builder.shuffle_vector(*pair, masks[0])
                rows[first + distance] = builder.shuffle_vector(*pair, masks[1])
        for row, value in enumerate(rows):
            builder.store(value, pointer(3, row), align=4)

    return types.void(x, x_at, x_row, y, y_at, y_row), generate


@math_kernel
def transpose(x, y):
    """Copy a matrix x f32[m, n] to y f32[n, m]."""
    m, n = x.shape
    for i in range(0, m, LANES):
        for j in range(0, n, LANES):
            transpose_block(x, i * n + j, n, y, j * m + i, m)


@math_kernel
def mirror(c):
    """Copy what is above the diagonal of a square matrix to below it."""
    n = len(c)
    for i in range(LANES, n, LANES):
        for j in range(0, i, LANES):
            transpose_block(c, j * n + i, n, c, i * n + j, n)


@math_kernel
def symmetric_product(a, b, c):
    """Compute the symmetric matrix c f32[n, n] = a @ b for symmetric matrices that commute."""
    n = len(c)
    for j in range(0, n, COLUMNS):
        for i in range(0, j + COLUMNS, ROWS):
            tile(a, i * n, n, 1, b, j, n, c, i * n + j, n, n, False)
    mirror(c)


@math_kernel
def gram(x, c):
    """Compute c f32[n, n] = x.T @ x for x f32[K, n]."""
    n = len(c)
    for j in range(0, n, COLUMNS):
        for i in range(0, j + COLUMNS, ROWS):
            tile(x, i, 1, n, x, j, n, c, i * n + j, n, len(x), False)
    mirror(c)


@math_kernel
def polynomial(x, square, coefficients):
    """Replace the square of a symmetric matrix x by a + b x + c x**2."""
    a, b, c = coefficients
    for i in range(len(x)):
        row = x[i]
        out = square[i]
        for j in range(len(row)):
            out[j] = b * row[j] + c * out[j]
        out[i] += a


@math_kernel
def inverse_root(squares, coefficients):
    """Return the number of the square that holds nearly squares[0]**-0.5, for a Gram matrix.

    Args:
        squares: f32[SQUARES, n, n], of which the others are overwritten.
        coefficients: f32[K, 3], of the odd polynomials.
    """
    g = squares[0]
    p = squares[1]
    s = squares[2]
    old = 4
    new = 3
    last = len(coefficients) - 1
    for k in range(last + 1):
        p = squares[new] if k == 0 else squares[1]
        symmetric_product(g, g, p)
        polynomial(g, p, coefficients[k])
        if k:
            symmetric_product(p, squares[old], squares[new])
        if k < last:
            symmetric_product(p, g, s)
            symmetric_product(p, s, g)
        old, new = new, old
    return old


@math_kernel
def add_momentum(gradient, momentum_buffer, momentum, x):
    """Update the running mean of gradients f32[m, n], and write Nesterov's look ahead to x, which is padded by 0."""
    m, n = gradient.shape
    rest = np.float32(1) - momentum
    for i in range(m):
        new = gradient[i]
        mean = momentum_buffer[i]
        row = x[i, :n]
        for j in range(n):
            mean[j] = momentum * mean[j] + rest * new[j]
            row[j] = momentum * mean[j] + rest * new[j]
        x[i, n:] = np.float32(0)
    x[m:] = np.float32(0)


@math_kernel
def subtract_product(a, b, scale, strip, weight):
    """Subtract scale * a @ b from weight f32[m, n], which is not padded. strip: f32[STRIP, columns of b]."""
    depth, n = b.shape
    for first in range(0, len(a), STRIP):
        rows = min(STRIP, len(a) - first)
        for j in range(0, n, COLUMNS):
            for i in range(0, rows, ROWS):
                tile(a, (first + i) * depth, depth, 1, b, j, n, strip, i * n + j, n, depth, False)
        for i in range(min(rows, len(weight) - first)):
            row = weight[first + i]
            change = strip[i, : len(row)]
            for j in range(len(row)):
                row[j] -= scale * change[j]


@math_kernel
def step(weight, gradient, momentum_buffer, momentum, rate, coefficients, scratch):
    """Take a step.

    Args:
        weight, gradient, momentum_buffer: f32[m, n].
        momentum: of the running mean of gradients.
        rate: what singular values of nearly 1 are multiplied by.
        coefficients: f32[K, 3], of the odd polynomials.
        scratch: f32[at least `scratch_size`].
    """
    m = -(-weight.shape[0] // COLUMNS) * COLUMNS
    n = -(-weight.shape[1] // COLUMNS) * COLUMNS
    short = min(m, n)
    end = m * n + SQUARES * short * short
    x = scratch[: m * n].reshape(m, n)
    squares = scratch[m * n : end].reshape(SQUARES, short, short)
    g = squares[0]
    add_momentum(gradient, momentum_buffer, momentum, x)
    if m >= n:
        gram(x, g)
    else:
        transposed = scratch[end : end + m * n].reshape(n, m)
        transpose(x, transposed)
        gram(transposed, g)
    total = np.float32(0)
    for i in range(short):
        total += g[i, i]
    norm = max(np.sqrt(total), TINY)
    g *= np.float32(1) / (norm * norm)
    q = squares[inverse_root(squares, coefficients)]
    strip = scratch[end : end + STRIP * n].reshape(STRIP, n)
    if m >= n:
        subtract_product(x, q, rate / norm, strip, weight)
    else:
        subtract_product(q, x, rate / norm, strip, weight)

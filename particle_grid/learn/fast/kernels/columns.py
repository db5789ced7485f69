"""Copy the columns of some agents, and add up gradients."""

import numpy as np

from particle_grid.support.jit import math_kernel

STRIP = 2048  # numbers of a sum that stay in the nearest cache
ZERO = np.float32(0)


@math_kernel
def gather(x, agents, y):
    """Copy the columns of some agents: y[t, k] = x[t, agents[k]], for x [T, N, size] and y [T, at least n, >= size]."""
    for t in range(len(x)):
        for k in range(len(agents)):
            source = x[t, agents[k]]
            target = y[t, k]
            for j in range(len(source)):
                target[j] = source[j]


@math_kernel
def scatter(parts, agents, wholes):
    """Copy back to the columns of some agents: y[t, agents[k]] = x[t, k], for each x of parts and y of wholes.

    The arrays x are f32[T, at least n, at least size], and the arrays y f32[T, N, size].
    """
    for x, y in zip(parts, wholes):  # noqa: B905 - Numba knows no `strict`
        for t in range(len(y)):
            for k in range(len(agents)):
                source = x[t, k]
                target = y[t, agents[k]]
                for j in range(len(target)):
                    target[j] = source[j]


@math_kernel
def clear(x):
    """Set x f32[n] to 0."""
    for k in range(len(x)):
        x[k] = ZERO


@math_kernel
def add_rows(x):
    """Add all other rows of x f32[parts, size] to the first one, in order."""
    for first in range(0, x.shape[1], STRIP):
        total = x[0, first : first + STRIP]
        for part in range(1, len(x)):
            row = x[part, first : first + STRIP]
            for k in range(len(total)):
                total[k] += row[k]

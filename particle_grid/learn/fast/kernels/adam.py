"""A step of Adam on all parameters, as one compiled call, see `particle_grid.learn.optimiser`."""

import numpy as np

from particle_grid.support.jit import math_kernel

PART = 1024  # numbers whose squares are added in float32
ONE = np.float32(1)
ZERO = np.float32(0)


@math_kernel
def norm(x):
    """Return the Euclidean norm of x f32[n]."""
    total = 0.0
    for first in range(0, len(x), PART):
        part = x[first : first + PART]
        squares = ZERO
        for k in range(len(part)):
            squares += part[k] * part[k]
        total += squares
    return np.sqrt(total)


@math_kernel
def step(parameters, gradient, means, squares, scale, rates, roots, eps, beta1, beta2):
    """Update parameters and moments.

    Args:
        parameters: a tuple of f32[n].
        gradient: f32[N], of all parameters, one after the other.
        means, squares: f32[N], the running means of the gradients and of their squares.
        scale: factor of the gradients.
        rates: f32[P], for each parameter the learning rate, divided by 1 - beta1**steps.
        roots: f32[P], for each parameter the square root of 1 / (1 - beta2**steps).
        eps, beta1, beta2: of Adam.
    """
    first = 0
    for number in range(len(parameters)):
        x = parameters[number]
        end = first + len(x)
        d = gradient[first:end]
        mean = means[first:end]
        square = squares[first:end]
        rate = rates[number]
        root = roots[number]
        for k in range(len(x)):
            new = scale * d[k]
            mean[k] += (ONE - beta1) * (new - mean[k])
            square[k] += (ONE - beta2) * (new * new - square[k])
            x[k] -= rate * mean[k] / (np.sqrt(square[k]) * root + eps)
        first = end

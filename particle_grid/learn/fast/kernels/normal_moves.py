"""The loss for normal distributions whose likelihood or entropy is that of executed moves. Arguments: see `losses`.

The heads are `ProbitHead`, `ClippedHead` and `SnappedMovesHead`. Their distributions have probability masses below,
between and above two edges.
"""

import numpy as np

from particle_grid.learn.fast.kernels.elementary import HALF_LOG_2PI, exp, log, log_complement, tanh
from particle_grid.learn.fast.kernels.loss_parts import (
    BLOCK,
    D_LOGP,
    ENTROPY,
    ENTROPY_COEF,
    F32_0,
    F32_1,
    HALF,
    LOGP,
    ROWS,
    SHARE,
    SPARE,
    SUMS,
    VALUE_COEF,
    WEIGHT,
    add_row,
    dot,
    gather,
    scatter,
    surrogate,
    total,
    value_terms,
)
from particle_grid.support.jit import math_kernel

PROBIT, CLIPPED, SNAPPED_MOVES = range(3)  # kinds of heads
ROOT_HALF = np.float32(0.5**0.5)
MOVE_EDGE = HALF
# Places in an array for one component, z f32[PLACES]: what is given, then what is computed. SLOPE: the derivative of
# LOG_STD by the output. P and H: the gradients of log-probability and entropy by LOCATION and LOG_STD.
LOCATION, LOG_STD, SLOPE, SAMPLE, P, H, P_LOCATION, P_LOG_STD, H_LOCATION, H_LOG_STD, PLACES = (
    k * BLOCK for k in range(11)
)  # fmt: skip


@math_kernel
def log_density(x):
    """Return the logarithm of the standard normal density."""
    return -HALF * x * x - HALF_LOG_2PI


@math_kernel
def log_cumulative(x):
    """Return the logarithm of the standard normal cumulative distribution function, within 4e-7 and 2e-7 of its size.

    The complementary error function is the fit of Press et al., "Numerical Recipes", 1992, section 6.2.
    """
    f = np.float32
    y = abs(x) * ROOT_HALF
    t = F32_1 / (F32_1 + HALF * y)
    fit = ((((f(0.17087277) * t - f(0.82215223)) * t + f(1.48851587)) * t - f(1.13520398)) * t + f(0.27886807)) * t
    fit = ((((fit - f(0.18628806)) * t + f(0.09678418)) * t + f(0.37409196)) * t + f(1.00002368)) * t - f(1.26551223)
    tail = log(HALF * t) + fit - y * y
    return tail if x < F32_0 else log_complement(exp(tail))


@math_kernel
def log_masses(left, right):
    """Return the logarithms of the probabilities below, between and above two standardised edges."""
    near = log_cumulative(min(right, -left))  # the mass between is that of the mirror image, too
    far = log_cumulative(min(left, -right))
    return log_cumulative(left), near + log_complement(exp(far - near)), log_cumulative(-right)


@math_kernel
def bounded(raw, middle, reach):
    """Return a log standard deviation and its derivative by the raw number it comes from: see `Bounds`."""
    t = tanh(raw)
    return middle + reach * t, reach * (F32_1 - t * t)


@math_kernel
def clipped_log_prob(x, location, log_std):
    """Return the log-probability of a normal sample clipped to [-1, 1], and its derivatives by location and log_std."""
    inverse = exp(-log_std)
    at = (x - location) * inverse
    outwards = F32_1 if x > F32_0 else -F32_1
    tail = log_cumulative(-outwards * at)  # beyond x, if that is an end
    ratio = exp(log_density(at) - tail) * outwards
    if abs(x) < F32_1:
        return log_density(at) - log_std, at * inverse, at * at - F32_1
    return tail, ratio * inverse, at * ratio


@math_kernel
def _deviations(count, raw, middle, reach, start, z):
    """Write the log standard deviations of raw outputs f32[BLOCK]."""
    for k in range(count):
        z[k + LOG_STD], z[k + SLOPE] = bounded(raw[k] + start, middle, reach)


@math_kernel
def _move_entropy(count, z):
    """Compute the entropy of the nearest moves."""
    for k in range(count):
        inverse = exp(-z[k + LOG_STD])
        left = (-MOVE_EDGE - z[k + LOCATION]) * inverse
        right = (MOVE_EDGE - z[k + LOCATION]) * inverse
        below, between, above = log_masses(left, right)
        d_left = exp(log_density(left)) * (between - below)  # derivatives by the edges
        d_right = exp(log_density(right)) * (above - between)
        z[k + H] = -exp(below) * below - exp(between) * between - exp(above) * above
        z[k + H_LOCATION] = -(d_left + d_right) * inverse
        z[k + H_LOG_STD] = -left * d_left - right * d_right


@math_kernel
def _clipped_entropy(count, z):
    """Compute the entropy of clipped samples: of two masses, and of the density between them."""
    for k in range(count):
        inverse = exp(-z[k + LOG_STD])
        left = (-F32_1 - z[k + LOCATION]) * inverse
        right = (F32_1 - z[k + LOCATION]) * inverse
        below, between, above = log_masses(left, right)
        at_left = exp(log_density(left))
        at_right = exp(log_density(right))
        spread = z[k + LOG_STD] + HALF_LOG_2PI + HALF
        inside = exp(between)
        d_left = at_left * (HALF * (F32_1 - left * left) - spread - below - F32_1)
        d_right = at_right * (spread - HALF * (F32_1 - right * right) + above + F32_1)
        z[k + H] = inside * spread + HALF * (at_left * left - at_right * right)
        z[k + H] -= exp(below) * below + exp(above) * above
        z[k + H_LOCATION] = -(d_left + d_right) * inverse
        z[k + H_LOG_STD] = inside - left * d_left - right * d_right


@math_kernel
def _move_logp(count, z):
    """Compute the log-probability of a move, whose number 0 to 2 is the sample."""
    for k in range(count):
        inverse = exp(-z[k + LOG_STD])
        left = (-MOVE_EDGE - z[k + LOCATION]) * inverse
        right = (MOVE_EDGE - z[k + LOCATION]) * inverse
        below, between, above = log_masses(left, right)
        is_low = z[k + SAMPLE] < HALF
        is_high = z[k + SAMPLE] > np.float32(1.5)
        logp = below if is_low else above if is_high else between
        d_left = exp(log_density(left) - logp) * (F32_1 if is_low else F32_0 if is_high else -F32_1)
        d_right = exp(log_density(right) - logp) * (-F32_1 if is_high else F32_0 if is_low else F32_1)
        z[k + P] = logp
        z[k + P_LOCATION] = -(d_left + d_right) * inverse
        z[k + P_LOG_STD] = -left * d_left - right * d_right


@math_kernel
def _clipped_logp(count, z):
    """Compute the log-probability of a clipped sample."""
    for k in range(count):
        logp, by_location, by_log_std = clipped_log_prob(z[k + SAMPLE], z[k + LOCATION], z[k + LOG_STD])
        z[k + P] = logp
        z[k + P_LOCATION] = by_location
        z[k + P_LOG_STD] = by_log_std


@math_kernel
def _sample_logp(count, z):
    """Compute the log-density of a normal sample."""
    for k in range(count):
        inverse = exp(-z[k + LOG_STD])
        at = (z[k + SAMPLE] - z[k + LOCATION]) * inverse
        z[k + P] = log_density(at) - z[k + LOG_STD]
        z[k + P_LOCATION] = at * inverse
        z[k + P_LOG_STD] = at * at - F32_1


@math_kernel
def _gradient(count, rows, coef, p, h, d):
    """Write the loss's gradient, d f32[BLOCK], given those of log-probability p and entropy h."""
    weight, d_logp = rows[WEIGHT][:count], rows[D_LOGP][:count]
    for k in range(len(weight)):
        d[k] = d_logp[k] * p[k] - coef * weight[k] * h[k]


@math_kernel
def _product(count, x, y, result):
    for k in range(count):
        result[k] = x[k] * y[k]


@math_kernel
def _terms(count, kind, z):
    """Compute log-probability and entropy of a component, and their gradients."""
    if kind == CLIPPED:
        _clipped_logp(count, z)
        _clipped_entropy(count, z)
    elif kind == PROBIT:
        _move_logp(count, z)
        _move_entropy(count, z)
    else:
        _sample_logp(count, z)
        _move_entropy(count, z)


@math_kernel
def moves_loss(out, agents, samples, old_logp, advantage, returns, truncations, numbers, parameters, d_out, sums):
    """Compute the loss of `ProbitHead`, `ClippedHead` or `SnappedMovesHead`: see this module.

    Parameters: f32[4 + A], the kind of the head, the middle, the reach and the start of its log standard deviations,
    and these themselves, if they are the same for all observations. Then the last A sums are their gradients.
    """
    components = samples.shape[2]
    shared = out.shape[2] == components + 1
    x = np.empty((out.shape[2], BLOCK), np.float32)
    z = np.empty((components, PLACES), np.float32)
    taken = np.empty((components, BLOCK), samples.dtype)
    rows = np.empty((ROWS, BLOCK), np.float32)
    share = np.float32(numbers[SHARE])
    coef = np.float32(numbers[ENTROPY_COEF])
    sums[:] = 0
    for first in range(0, out.shape[0] * out.shape[1], BLOCK):
        count = min(BLOCK, out.shape[0] * out.shape[1] - first)
        gather(first, count, out, agents, samples, old_logp, advantage, returns, truncations, share, x, taken, rows)
        rows[SPARE] = F32_0
        for a in range(components):
            z[a, LOCATION:LOG_STD] = x[a]
            z[a, SAMPLE:P] = taken[a]
            if shared:
                z[a, LOG_STD:SLOPE] = parameters[4 + a]
            else:
                _deviations(count, x[components + a], parameters[1], parameters[2], parameters[3], z[a])
            _terms(count, int(parameters[0]), z[a])
            add_row(z[a, P:H], rows[LOGP][:count])
            add_row(z[a, H:P_LOCATION], rows[SPARE][:count])
        sums[ENTROPY] += dot(rows[WEIGHT][:count], rows[SPARE][:count])
        surrogate(count, rows, numbers, sums)
        for a in range(components):
            _gradient(count, rows, coef, z[a, P_LOCATION:P_LOG_STD], z[a, H_LOCATION:H_LOG_STD], x[a])
            _gradient(count, rows, coef, z[a, P_LOG_STD:H_LOCATION], z[a, H_LOG_STD:PLACES], z[a, LOG_STD:SLOPE])
            if shared:
                sums[SUMS + a] += total(z[a, LOG_STD : LOG_STD + count])
            else:
                _product(count, z[a, LOG_STD:SLOPE], z[a, SLOPE:SAMPLE], x[components + a])
        value_terms(count, x[-1], rows, np.float32(numbers[VALUE_COEF]), x[-1], sums)
        scatter(first, count, x, d_out)

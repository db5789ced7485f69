"""The loss of a chunk of agents and its gradient for `HurdleHead`. The arguments are those of `losses`."""

import numpy as np

from particle_grid.learn.fast.kernels.elementary import exp, log, tanh
from particle_grid.learn.fast.kernels.loss_parts import (
    BLOCK,
    D_LOGP,
    ENTROPY,
    ENTROPY_COEF,
    F32_0,
    F32_1,
    LOGP,
    ROWS,
    SHARE,
    SPARE,
    VALUE_COEF,
    WEIGHT,
    dot,
    gather,
    scatter,
    surrogate,
    value_terms,
)
from particle_grid.learn.fast.kernels.losses import choice_gradient, choice_terms, log_softmax
from particle_grid.learn.heads import hurdle
from particle_grid.support.jit import math_kernel

BETWEEN = hurdle.BETWEEN
CHOICES = hurdle.CHOICES
OUTPUTS = hurdle.OUTPUTS
LOG_ODDS = np.float32(hurdle.LOG_ODDS)
LOG_UNIT = np.float32(hurdle.LOG_UNIT)
HALF_LOG_SCALE = np.float32(hurdle.LEAST_LOG_SCALE / 2)
SHIFT = np.float32(hurdle.SHIFT)
F32_2 = np.float32(2)
# Places in an array for one component. The outputs are replaced by the gradient of the density.
X_LOCATION, X_SCALE, SAMPLE, H_LOCATION, H_SCALE, DENSITY, SPREAD, DENSITY_ROWS = (k * BLOCK for k in range(8))


@math_kernel
def logistic(z):
    """Return s = sigmoid(z), log(s) and log(1 - s)."""
    e = exp(-abs(z))
    softplus = log(F32_1 + e)
    return (F32_1 if z > F32_0 else e) / (F32_1 + e), min(z, F32_0) - softplus, min(-z, F32_0) - softplus


@math_kernel
def parts(x_location, x_scale):
    """Return location, log scale and their derivatives from the outputs of the network."""
    location = tanh(x_location)
    t = tanh(x_scale + SHIFT)
    return location, HALF_LOG_SCALE * (F32_1 - t), F32_1 - location * location, HALF_LOG_SCALE * (t * t - F32_1)


@math_kernel
def _truncated_logistic(count, z):
    """Compute log-density and entropy between the atoms, and their gradients, for a component z f32[DENSITY_ROWS]."""
    for k in range(count):
        location, log_scale, slope, slope_of_scale = parts(z[k + X_LOCATION], z[k + X_SCALE])
        inverse = exp(-log_scale)
        y = (z[k + SAMPLE] - location) * inverse
        left = (-F32_1 - location) * inverse
        right = (F32_1 - location) * inverse
        s, log_s, log_t = logistic(y)
        a, log_a, log_a_complement = logistic(left)
        b, log_b, log_b_complement = logistic(right)
        share = F32_1 / (b - a)
        log_width = log(b - a)
        d_a = a * (F32_1 - a)
        d_b = b * (F32_1 - b)
        integral = b * log_b - (F32_1 - b) * log_b_complement - F32_2 * b
        integral -= a * log_a - (F32_1 - a) * log_a_complement - F32_2 * a
        between = integral * share
        g_a = d_a * (log_a + log_a_complement)
        g_b = d_b * (log_b + log_b_complement)
        away = F32_2 * s - F32_1
        narrower = (d_b - d_a) * share  # the derivatives of -log_width by location / scale, and by log_scale
        wider = (right * d_b - left * d_a) * share
        z[k + DENSITY] = log_s + log_t - log_scale - log_width - LOG_UNIT
        z[k + SPREAD] = log_scale + log_width - between + LOG_UNIT
        z[k + X_LOCATION] = slope * inverse * (away + narrower)
        z[k + X_SCALE] = slope_of_scale * (y * away + wider - F32_1)
        z[k + H_LOCATION] = slope * inverse * ((g_b - g_a) * share - narrower * (F32_1 + between))
        z[k + H_SCALE] = slope_of_scale * (
            F32_1 - wider * (F32_1 + between) + (right * g_b - left * g_a) * share
        )  # fmt: skip


@math_kernel
def prepare(count, x, p, z):
    """Replace the logits in x f32[OUTPUTS, BLOCK] by log-probabilities, and compute p and the density in z."""
    location = x[CHOICES][:count]
    scale = x[CHOICES + 1][:count]
    odds = x[BETWEEN][:count]
    for k in range(len(location)):
        z[k + X_LOCATION] = location[k]
        z[k + X_SCALE] = scale[k]
        odds[k] += LOG_ODDS
    _truncated_logistic(count, z)
    log_softmax(count, x[:CHOICES], p)


@math_kernel
def most_probable(out):
    """Return the most probable choice given a component's outputs f32[OUTPUTS]; between the atoms, it is the peak."""
    best = 0
    for j in range(1, CHOICES):
        odds = LOG_ODDS if j == BETWEEN else F32_0
        best = j if out[j] + odds > out[best] else best
    return tanh(out[CHOICES]) if best == BETWEEN else np.float32(best) - F32_1


@math_kernel
def _choices(count, sample, choice):
    """Write which of the choices a sample belongs to, i32[BLOCK]."""
    for k in range(count):
        x = sample[k]
        is_atom = (x == F32_0) | (abs(x) == F32_1)
        choice[k] = np.int32(x + F32_1) if is_atom else np.int32(BETWEEN)


@math_kernel
def density_terms(count, choice, p, density, spread, logp, entropy):
    """Add what the density contributes to log-probability and entropy, from the probability p f32[BLOCK] of it."""
    for k in range(count):
        logp[k] += density[k] if choice[k] == np.int32(BETWEEN) else F32_0
        entropy[k] += p[k] * spread[k]


@math_kernel
def _density_gradient(count, choice, p, rows, coef, z, d):
    """Add the entropy's share to the gradient of the logits, and write that of location and scale.

    Args:
        p: f32[CHOICES, BLOCK].
        z: f32[DENSITY_ROWS].
        d: f32[OUTPUTS, BLOCK].
    """
    weight, d_logp = rows[WEIGHT][:count], rows[D_LOGP][:count]
    for j in range(CHOICES):
        this = F32_1 if j == BETWEEN else F32_0
        for k in range(len(weight)):
            d[j, k] -= coef * weight[k] * z[k + SPREAD] * p[BETWEEN, k] * (this - p[j, k])
    for k in range(len(weight)):
        chosen = d_logp[k] if choice[k] == np.int32(BETWEEN) else F32_0
        bonus = coef * weight[k] * p[BETWEEN, k]
        d[CHOICES, k] = chosen * z[k + X_LOCATION] - bonus * z[k + H_LOCATION]
        d[CHOICES + 1, k] = chosen * z[k + X_SCALE] - bonus * z[k + H_SCALE]


@math_kernel
def hurdle_loss(out, agents, samples, old_logp, advantage, returns, truncations, numbers, parameters, d_out, sums):
    """Compute the loss of `HurdleHead`: see this module. There are no parameters."""
    components = samples.shape[2]
    x = np.empty((out.shape[2], BLOCK), np.float32)
    p = np.empty_like(x)
    z = np.empty((components, DENSITY_ROWS), np.float32)
    taken = np.empty((components, BLOCK), samples.dtype)
    choice = np.empty((components, BLOCK), np.int32)
    entropy = np.empty((components, BLOCK), np.float32)
    rows = np.empty((ROWS, BLOCK), np.float32)
    share = np.float32(numbers[SHARE])
    coef = np.float32(numbers[ENTROPY_COEF])
    sums[:] = 0
    for first in range(0, out.shape[0] * out.shape[1], BLOCK):
        count = min(BLOCK, out.shape[0] * out.shape[1] - first)
        gather(
            first, count, out, agents, samples, old_logp, advantage, returns, truncations, share, x, taken, rows
        )  # fmt: skip
        weight = rows[WEIGHT][:count]
        logp = rows[LOGP][:count]
        between = rows[SPARE][:count]
        between[:] = F32_0
        for a in range(components):
            at = a * OUTPUTS
            end = at + CHOICES
            z[a, SAMPLE:H_LOCATION] = taken[a]
            prepare(count, x[at : at + OUTPUTS], p[at:end], z[a])
            _choices(count, taken[a], choice[a])
            sums[ENTROPY] += choice_terms(count, x[at:end], p[at:end], choice[a], weight, logp, entropy[a][:count])
            density, spread = z[a, DENSITY:SPREAD], z[a, SPREAD:DENSITY_ROWS]
            density_terms(count, choice[a], p[at + BETWEEN], density, spread, logp, between)
        sums[ENTROPY] += dot(weight, between)
        surrogate(count, rows, numbers, sums)
        for a in range(components):
            at = a * OUTPUTS
            end = at + CHOICES
            choice_gradient(count, x[at:end], p[at:end], choice[a], rows, entropy[a], coef, x[at:end])
            _density_gradient(count, choice[a], p[at:end], rows, coef, z[a], x[at : at + OUTPUTS])
        value_terms(count, x[-1], rows, np.float32(numbers[VALUE_COEF]), x[-1], sums)
        scatter(first, count, x, d_out)

"""The loss of a chunk of agents and its gradient for `MixtureHead`. The arguments are those of `losses`."""

import numpy as np

from particle_grid.learn.fast.kernels.elementary import exp, log
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
    add_row,
    dot,
    gather,
    scatter,
    surrogate,
    value_terms,
)
from particle_grid.learn.fast.kernels.losses import log_softmax
from particle_grid.learn.fast.kernels.normal_moves import bounded, clipped_log_prob, log_cumulative, log_density
from particle_grid.learn.heads.clipped import MIXTURE_BOUNDS
from particle_grid.learn.heads.numbers import MOVES
from particle_grid.support.jit import math_kernel

COUNT = len(MOVES)  # distributions in a mixture
OUTPUTS = 3 * COUNT  # of a component: logits, shifts of the means, raw standard deviations
MIDDLE = np.float32(MIXTURE_BOUNDS.middle)
REACH = np.float32(MIXTURE_BOUNDS.reach)
# Places in an array for one distribution, z f32[PLACES]. SLOPE: the derivative of LOG_STD by the output. POINT: its
# part of the probability or density at a point, then the derivatives of that by MEAN and LOG_STD. H: the gradient of
# the entropy by log-weight, MEAN and LOG_STD, and G: that of the log-probability of the sample.
LOG_WEIGHT, MEAN, LOG_STD, SLOPE, POINT, BY_MEAN, BY_LOG_STD, H, H_MEAN, H_LOG_STD, G, G_MEAN, G_LOG_STD, PLACES = (
    k * BLOCK for k in range(14)
)  # fmt: skip


@math_kernel
def _prepare(count, x, p, z):
    """Write the distributions of a component's outputs x f32[OUTPUTS, BLOCK] to z f32[COUNT, PLACES].

    The logits in x become log-probabilities, and their probabilities are written to p f32[COUNT, BLOCK].
    """
    log_softmax(count, x[:COUNT], p)
    for j in range(COUNT):
        z[j, LOG_WEIGHT:MEAN] = x[j]
        z[j, MEAN:LOG_STD] = x[COUNT + j] + np.float32(j - 1)
        z[j, LOG_STD:SLOPE] = x[2 * COUNT + j]
        z[j, H:G] = F32_0
        _deviations(count, z[j])


@math_kernel
def _deviations(count, z):
    """Replace raw outputs by log standard deviations."""
    for k in range(count):
        z[k + LOG_STD], z[k + SLOPE] = bounded(z[k + LOG_STD], MIDDLE, REACH)


@math_kernel
def _inside(count, x, z):
    """Compute a distribution's part of the density at a point x between the ends."""
    for k in range(count):
        inverse = exp(-z[k + LOG_STD])
        at = (x - z[k + MEAN]) * inverse
        part = exp(z[k + LOG_WEIGHT] + log_density(at) - z[k + LOG_STD])
        z[k + POINT] = part
        z[k + BY_MEAN] = part * at * inverse
        z[k + BY_LOG_STD] = part * (at * at - F32_1)


@math_kernel
def _at_end(count, end, z):
    """Compute a distribution's part of the probability of an end, -1 or 1."""
    for k in range(count):
        inverse = exp(-z[k + LOG_STD])
        at = (end - z[k + MEAN]) * inverse
        slope = exp(z[k + LOG_WEIGHT] + log_density(at)) * end
        z[k + POINT] = exp(z[k + LOG_WEIGHT] + log_cumulative(-end * at))
        z[k + BY_MEAN] = slope * inverse
        z[k + BY_LOG_STD] = slope * at


@math_kernel
def _entropy_term(count, share, first, second, third, entropy, slope):
    """Add a point's term of the entropy, whose weight is `share`, and write its derivative by the density there."""
    for k in range(count):
        p = first[k] + second[k] + third[k]
        log_p = log(p)
        entropy[k] -= share * p * log_p
        slope[k] = -share * (log_p + F32_1)


@math_kernel
def _add_gradient(count, slope, z):
    """Add a point's part of the entropy's gradient."""
    for k in range(count):
        z[k + H] += slope[k] * z[k + POINT]
        z[k + H_MEAN] += slope[k] * z[k + BY_MEAN]
        z[k + H_LOG_STD] += slope[k] * z[k + BY_LOG_STD]


@math_kernel
def _entropy(count, nodes, weights, z, entropy, slope):
    """Add a component's entropy, and compute its gradient. slope: f32[BLOCK], overwritten."""
    for q in range(len(nodes)):
        for j in range(COUNT):
            if abs(nodes[q]) < F32_1:
                _inside(count, nodes[q], z[j])
            else:
                _at_end(count, nodes[q], z[j])
        parts = (z[0, POINT:BY_MEAN], z[1, POINT:BY_MEAN], z[2, POINT:BY_MEAN])
        _entropy_term(count, weights[q], parts[0], parts[1], parts[2], entropy, slope)
        for j in range(COUNT):
            _add_gradient(count, slope, z[j])


@math_kernel
def _sample_term(count, sample, z):
    """Compute the logarithm of a distribution's part of a sample's probability, in POINT, and its derivatives."""
    for k in range(count):
        logp, by_mean, by_log_std = clipped_log_prob(sample[k], z[k + MEAN], z[k + LOG_STD])
        z[k + POINT] = z[k + LOG_WEIGHT] + logp
        z[k + BY_MEAN] = by_mean
        z[k + BY_LOG_STD] = by_log_std


@math_kernel
def _log_sum(count, first, second, third, total):
    """Write the logarithm of a sum, given the logarithms of its terms."""
    for k in range(count):
        largest = max(max(first[k], second[k]), third[k])
        whole = exp(first[k] - largest) + exp(second[k] - largest) + exp(third[k] - largest)
        total[k] = largest + log(whole)


@math_kernel
def _sample_gradient(count, total, z):
    """Write the gradient of a sample's log-probability."""
    for k in range(count):
        share = exp(z[k + POINT] - total[k])
        z[k + G] = share
        z[k + G_MEAN] = share * z[k + BY_MEAN]
        z[k + G_LOG_STD] = share * z[k + BY_LOG_STD]


@math_kernel
def _gradient(count, rows, coef, z):
    """Replace G by the loss's gradient, by log-weight, MEAN and the output of LOG_STD."""
    weight, d_logp = rows[WEIGHT][:count], rows[D_LOGP][:count]
    for k in range(len(weight)):
        bonus = coef * weight[k]
        z[k + G] = d_logp[k] * z[k + G] - bonus * z[k + H]
        z[k + G_MEAN] = d_logp[k] * z[k + G_MEAN] - bonus * z[k + H_MEAN]
        z[k + G_LOG_STD] = (d_logp[k] * z[k + G_LOG_STD] - bonus * z[k + H_LOG_STD]) * z[k + SLOPE]


@math_kernel
def _output_gradients(count, p, z, d):
    """Write the gradients of a component's outputs, d f32[OUTPUTS, BLOCK], given those of its distributions."""
    for j in range(COUNT):
        d[COUNT + j] = z[j, G_MEAN:G_LOG_STD]
        d[2 * COUNT + j] = z[j, G_LOG_STD:PLACES]
        for k in range(count):
            d[j, k] = z[j, k + G] - p[j, k] * (z[0, k + G] + z[1, k + G] + z[2, k + G])


@math_kernel
def mixture_loss(out, agents, samples, old_logp, advantage, returns, truncations, numbers, parameters, d_out, sums):
    """Compute the loss of `MixtureHead`: see this module. Parameters: f32[2 Q], points and weights of the entropy."""
    components = samples.shape[2]
    nodes, weights = parameters[: len(parameters) // 2], parameters[len(parameters) // 2 :]
    x = np.empty((out.shape[2], BLOCK), np.float32)
    p = np.empty((COUNT * components, BLOCK), np.float32)
    z = np.empty((components, COUNT, PLACES), np.float32)
    total = np.empty(BLOCK, np.float32)
    taken = np.empty((components, BLOCK), samples.dtype)
    rows = np.empty((ROWS, BLOCK), np.float32)
    share = np.float32(numbers[SHARE])
    coef = np.float32(numbers[ENTROPY_COEF])
    sums[:] = 0
    for first in range(0, out.shape[0] * out.shape[1], BLOCK):
        count = min(BLOCK, out.shape[0] * out.shape[1] - first)
        gather(
            first, count, out, agents, samples, old_logp, advantage, returns, truncations, share, x, taken, rows
        )  # fmt: skip
        entropy = rows[SPARE][:count]
        entropy[:] = F32_0
        for a in range(components):
            _prepare(count, x[a * OUTPUTS : (a + 1) * OUTPUTS], p[a * COUNT : (a + 1) * COUNT], z[a])
            _entropy(count, nodes, weights, z[a], entropy, total)
            for j in range(COUNT):
                _sample_term(count, taken[a], z[a, j])
            _log_sum(count, z[a, 0, POINT:BY_MEAN], z[a, 1, POINT:BY_MEAN], z[a, 2, POINT:BY_MEAN], total)
            for j in range(COUNT):
                _sample_gradient(count, total, z[a, j])
            add_row(total, rows[LOGP][:count])
        sums[ENTROPY] += dot(rows[WEIGHT][:count], entropy)
        surrogate(count, rows, numbers, sums)
        for a in range(components):
            for j in range(COUNT):
                _gradient(count, rows, coef, z[a, j])
            _output_gradients(count, p[a * COUNT : (a + 1) * COUNT], z[a], x[a * OUTPUTS : (a + 1) * OUTPUTS])
        value_terms(count, x[-1], rows, np.float32(numbers[VALUE_COEF]), x[-1], sums)
        scatter(first, count, x, d_out)

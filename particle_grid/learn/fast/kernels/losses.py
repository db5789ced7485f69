"""The loss of a chunk of agents and its gradient, for each family of heads: the twins of `ppo_loss` and the heads.

A kernel takes the outputs of the network, reads the rollout buffer's columns of its agents, and writes the gradient of
the outputs and the chunk's share of the loss. The arguments of all kernels:

    out: f32[T, P, K + 1], outputs of actor and critic. Rows from len(agents) on are padding, whose gradient is 0.
    agents: i64[n], n <= P, their columns in the following arrays.
    samples: [T, N, A], as in the rollout buffer, and so are
    old_logp, advantage, returns: f32[T, N]. What they hold in truncated steps is never read, nor is `out` there.
    truncations: bool[T, N].
    numbers: f64[7], see `loss_parts`.
    parameters: what the head needs besides the outputs.
    d_out: f32[T, P, K + 1], the result.
    sums: f64[SUMS + gradients of the head's own parameters], the result: shares of the terms of the loss, without
        their coefficients, and of statistics.

Agent-steps are handled in blocks, see `loss_parts`.
"""

import numpy as np

from particle_grid.learn.fast.kernels.elementary import HALF_LOG_2PI, LN_2, exp, log, log_complement, log_gamma_parts
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

X_ALPHA, X_BETA, SAMPLE, H_ALPHA, H_BETA, BETA_LOGP, BETA_ENTROPY, BETA_ROWS = (k * BLOCK for k in range(8))
OFFSET = HALF_LOG_2PI - np.float32(4) + LN_2  # LN_2: actions are twice as far apart as samples


@math_kernel
def log_softmax(count, logits, p):
    """Replace logits f32[choices, BLOCK] by log-probabilities, and write probabilities to p."""
    largest = np.empty(BLOCK, np.float32)[:count]
    scale = np.zeros(BLOCK, np.float32)[:count]
    largest[:] = logits[0][:count]
    for j in range(1, len(logits)):
        row = logits[j][:count]
        for k in range(len(row)):
            largest[k] = max(largest[k], row[k])
    for j in range(len(logits)):
        row, e = logits[j][:count], p[j][:count]
        for k in range(len(row)):
            e[k] = exp(row[k] - largest[k])
            scale[k] += e[k]
    for k in range(len(scale)):
        largest[k] += log(scale[k])
        scale[k] = F32_1 / scale[k]
    for j in range(len(logits)):
        row, e = logits[j][:count], p[j][:count]
        for k in range(len(row)):
            row[k] -= largest[k]
            e[k] *= scale[k]


@math_kernel
def choice_terms(count, logp_all, p, taken, weight, logp, entropy):
    """Add a component's log-probability to logp, write its entropy, and return the weighted sum of the latter."""
    entropy[:] = F32_0
    for j in range(len(p)):
        choice = np.int32(j)
        row, q = logp_all[j][:count], p[j][:count]
        for k in range(len(row)):
            entropy[k] -= q[k] * row[k]
            logp[k] += row[k] if taken[k] == choice else F32_0
    return dot(weight, entropy)


@math_kernel
def choice_gradient(count, logp_all, p, taken, rows, entropy, coef, d):
    """Write the gradient of a component's logits, d f32[choices, BLOCK]."""
    weight, d_logp = rows[WEIGHT][:count], rows[D_LOGP][:count]
    for j in range(len(p)):
        choice = np.int32(j)
        row = logp_all[j][:count]
        q = p[j][:count]
        d_row = d[j][:count]
        for k in range(len(row)):
            chosen = d_logp[k] if taken[k] == choice else F32_0
            d_row[k] = chosen - q[k] * (d_logp[k] - coef * weight[k] * (row[k] + entropy[k]))


@math_kernel
def choices(count, taken, number, width, choice):
    """Write which of a number of choices, evenly spread from -1 to 1, each sample belongs to, i32[BLOCK].

    If width is 0, samples are the choices. Otherwise they are up to half of it from the value of their choice.
    """
    if width > F32_0:
        for k in range(count):
            nearest = np.floor((taken[k] + F32_1) / width + HALF)
            choice[k] = np.int32(min(max(nearest, F32_0), np.float32(number - 1)))
    else:
        for k in range(count):
            choice[k] = np.int32(taken[k])


@math_kernel
def categorical_loss(out, agents, samples, old_logp, advantage, returns, truncations, numbers, parameters, d_out, sums):
    """Compute the loss of `CategoricalHead`, `BinsHead` and `JitterHead`: see this module.

    Parameters: f64[2 A], the numbers of choices, and how wide the noise around them is; 0 if samples are choices.
    """
    components = samples.shape[2]
    x = np.empty((out.shape[2], BLOCK), np.float32)
    p = np.empty_like(x)
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
        weight, logp = rows[WEIGHT][:count], rows[LOGP][:count]
        at = 0
        for a in range(components):
            end = at + int(parameters[a])
            width = np.float32(parameters[components + a])
            log_softmax(count, x[at:end], p[at:end])
            choices(count, taken[a], end - at, width, choice[a])
            sums[ENTROPY] += choice_terms(count, x[at:end], p[at:end], choice[a], weight, logp, entropy[a][:count])
            if width > F32_0:
                logp -= log(width)
                sums[ENTROPY] += log(width) * total(weight)
            at = end
        surrogate(count, rows, numbers, sums)
        value_terms(count, x[at], rows, np.float32(numbers[VALUE_COEF]), x[at], sums)
        at = 0
        for a in range(components):
            end = at + int(parameters[a])
            choice_gradient(count, x[at:end], p[at:end], choice[a], rows, entropy[a], coef, x[at:end])
            at = end
        scatter(first, count, x, d_out)


@math_kernel
def _normal_logp(count, mean, sample, log_std, logp):
    """Add a component's log-probability to logp."""
    inverse = exp(-log_std)
    for k in range(count):
        z = (sample[k] - mean[k]) * inverse
        logp[k] -= HALF * z * z + (log_std + HALF_LOG_2PI)


@math_kernel
def _normal_gradient(count, mean, sample, log_std, d_logp, d):
    """Write the gradient of a component's mean, and return that of its log standard deviation."""
    inverse = exp(-log_std)
    total = F32_0
    for k in range(count):
        z = (sample[k] - mean[k]) * inverse
        d[k] = d_logp[k] * z * inverse
        total += d_logp[k] * (z * z - F32_1)
    return total


@math_kernel
def _squash(count, mean, weight, shift, share, coef, slope, d):
    """Add a node's part of the mean slope of the tangent: see `SquashedHead`.

    Args:
        mean, weight: f32[count].
        shift: of the node from the mean.
        share: of the node in the quadrature.
        coef: of the entropy.
        slope: f32[count], to which the mean logarithm of the slope is added.
        d: f32[count], to which its part of the gradient of the mean is added.

    Returns:
        The gradient of `shift`.
    """
    total = F32_0
    for k in range(count):
        x = mean[k] + shift
        size = abs(x)
        e = exp(np.float32(-2) * size)
        slope[k] += np.float32(2) * share * (LN_2 - size - log(F32_1 + e))
        tangent = (F32_1 - e) / (F32_1 + e) if x > F32_0 else (e - F32_1) / (F32_1 + e)
        gradient = np.float32(2) * share * coef * weight[k] * tangent
        d[k] += gradient
        total += gradient
    return total


@math_kernel
def normal_loss(out, agents, samples, old_logp, advantage, returns, truncations, numbers, parameters, d_out, sums):
    """Compute the loss of `GaussianHead`, `SnappedHead` and `SquashedHead`: see this module.

    Parameters: f32[A + 2 Q], log standard deviations, then nodes and weights of the quadrature of a squashed head's
    entropy, of which others have none. The last A sums are gradients of the log standard deviations.
    """
    components = samples.shape[2]
    nodes = (len(parameters) - components) // 2
    x = np.empty((out.shape[2], BLOCK), np.float32)
    d = np.empty_like(x)
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
        weight = rows[WEIGHT][:count]
        slope = rows[SPARE][:count]
        slope[:] = F32_0
        for a in range(components):
            _normal_logp(count, x[a], taken[a], parameters[a], rows[LOGP])
        surrogate(count, rows, numbers, sums)
        valid = total(weight)
        for a in range(components):
            log_std = parameters[a]
            sums[ENTROPY] += valid * (log_std + HALF_LOG_2PI + HALF)
            sums[SUMS + a] += _normal_gradient(count, x[a], taken[a], log_std, rows[D_LOGP], d[a]) - coef * valid
            for q in range(nodes):
                shift = parameters[components + q] * exp(log_std)
                part = parameters[components + nodes + q]
                sums[SUMS + a] += shift * _squash(count, x[a], weight, shift, part, coef, slope, d[a])
        sums[ENTROPY] += dot(weight, slope)
        value_terms(count, x[components], rows, np.float32(numbers[VALUE_COEF]), d[components], sums)
        scatter(first, count, d, d_out)


@math_kernel
def _beta_terms(count, z):
    """Compute log-probability and entropy of a component of `BetaHead`, and their gradients.

    All are parts of one array, z f32[BETA_ROWS], at constant distances: for more arrays, the compiler would give up.

    Args:
        count: the number of rows.
        z: outputs at X_ALPHA and X_BETA, which the gradient of the log-probability replaces; samples at SAMPLE; the
            gradient of the entropy is written to H_ALPHA and H_BETA; log-probability and entropy to the other two.
    """
    for k in range(count):
        e_alpha = exp(-abs(z[k + X_ALPHA]))
        e_beta = exp(-abs(z[k + X_BETA]))
        a = max(z[k + X_ALPHA], F32_0) + log(F32_1 + e_alpha)  # alpha - 1
        b = max(z[k + X_BETA], F32_0) + log(F32_1 + e_beta)
        slope_of_a = (F32_1 if z[k + X_ALPHA] > F32_0 else e_alpha) / (F32_1 + e_alpha)
        slope_of_b = (F32_1 if z[k + X_BETA] > F32_0 else e_beta) / (F32_1 + e_beta)
        y_a, correction_a, product_a, digamma_a, trigamma_a = log_gamma_parts(a + F32_1)
        y_b, correction_b, product_b, digamma_b, trigamma_b = log_gamma_parts(b + F32_1)
        y, correction, product, digamma, trigamma = log_gamma_parts(a + b + np.float32(2))
        # Logarithms of ratios, because differences of large logarithms would lose digits.
        log_beta = (y_a - HALF) * log(y_a / y) + (y_b - HALF) * log(y_b / y) + np.float32(3.5) * log(y)
        log_beta += correction_a + correction_b - correction - log(product_a / product * product_b) + OFFSET
        low = log(z[k + SAMPLE])
        high = log_complement(z[k + SAMPLE])
        z[k + BETA_LOGP] = a * low + b * high - log_beta
        z[k + BETA_ENTROPY] = a * (digamma - digamma_a) + b * (digamma - digamma_b) + log_beta
        z[k + X_ALPHA] = slope_of_a * (low + digamma - digamma_a)
        z[k + X_BETA] = slope_of_b * (high + digamma - digamma_b)
        z[k + H_ALPHA] = slope_of_a * ((a + b) * trigamma - a * trigamma_a)
        z[k + H_BETA] = slope_of_b * ((a + b) * trigamma - b * trigamma_b)


@math_kernel
def _beta_gradient(count, rows, coef, h, d):
    """Combine gradients of log-probability and entropy, d and h f32[BLOCK], to that of the loss, in d."""
    weight, d_logp = rows[WEIGHT][:count], rows[D_LOGP][:count]
    for k in range(len(weight)):
        d[k] = d_logp[k] * d[k] - coef * weight[k] * h[k]


@math_kernel
def beta_loss(out, agents, samples, old_logp, advantage, returns, truncations, numbers, parameters, d_out, sums):
    """Compute the loss of `BetaHead`: see this module. There are no parameters."""
    components = samples.shape[2]
    x = np.empty((out.shape[2], BLOCK), np.float32)
    h = np.empty_like(x)
    z = np.empty(BETA_ROWS, np.float32)
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
            b = a + components
            z[X_ALPHA:X_BETA] = x[a]
            z[X_BETA:SAMPLE] = x[b]
            z[SAMPLE:H_ALPHA] = taken[a]
            _beta_terms(count, z)
            x[a] = z[X_ALPHA:X_BETA]
            x[b] = z[X_BETA:SAMPLE]
            h[a] = z[H_ALPHA:H_BETA]
            h[b] = z[H_BETA:BETA_LOGP]
            add_row(z[BETA_LOGP:BETA_ENTROPY], rows[LOGP][:count])
            add_row(z[BETA_ENTROPY:BETA_ROWS], entropy)
        sums[ENTROPY] += dot(rows[WEIGHT][:count], entropy)
        surrogate(count, rows, numbers, sums)
        for j in range(2 * components):
            _beta_gradient(count, rows, coef, h[j], x[j])
        value_terms(count, x[2 * components], rows, np.float32(numbers[VALUE_COEF]), x[2 * components], sums)
        scatter(first, count, x, d_out)

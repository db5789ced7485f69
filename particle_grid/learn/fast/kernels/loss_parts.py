"""What the losses of all heads share: reading and writing rows, the clipped objective, the value loss, and moments.

A block's rows are agent-steps. They are transposed, so that loops run over the rows of a block and are vectorised.
"""

import numpy as np

from particle_grid.learn.fast.kernels.elementary import exp
from particle_grid.support.jit import math_kernel

BLOCK = 272  # rows of a block: 64 bytes more than a power of two, or columns would share the same lines of the cache
# Places in `numbers`. The advantages are normalised as (advantage - MEAN) * SCALE.
MEAN, SCALE, SHARE, CLIP, VALUE_COEF, ENTROPY_COEF, RATIO_LIMIT = range(7)  # SHARE: 1 / the number of valid steps
POLICY_LOSS, VALUE_LOSS, ENTROPY, KL, CLIP_FRACTION, SUMS = range(6)  # places in `sums`, and their number
# Places in `rows` f32[ROWS, BLOCK], what a block knows of each row. Its weight is SHARE, or 0 if it is not valid.
WEIGHT, OLD_LOGP, ADVANTAGE, RETURNS, LOGP, D_LOGP, SPARE, ROWS = range(8)
F32_0 = np.float32(0)
F32_1 = np.float32(1)
HALF = np.float32(0.5)


@math_kernel
def gather(first, count, out, agents, samples, old_logp, advantage, returns, truncations, share, x, taken, rows):
    """Copy a block's rows, from number `first` of [T * P] on, to x f32[K + 1, BLOCK], taken [A, BLOCK] and `rows`.

    Rows that are not valid become 0 in all of them.
    """
    width = out.shape[1]
    t = first // width
    i = first % width
    for k in range(count):
        valid = i < len(agents)
        if valid:
            valid = not truncations[t, agents[i]]
        if valid:
            agent = agents[i]
            source = out[t, i]
            rows[WEIGHT, k] = share
            rows[OLD_LOGP, k] = old_logp[t, agent]
            rows[ADVANTAGE, k] = advantage[t, agent]
            rows[RETURNS, k] = returns[t, agent]
            for j in range(len(x)):
                x[j, k] = source[j]
            for a in range(len(taken)):
                taken[a, k] = samples[t, agent, a]
        else:
            rows[: RETURNS + 1, k] = F32_0
            x[:, k] = F32_0
            taken[:, k] = 0
        rows[LOGP, k] = F32_0
        i += 1
        if i == width:
            i = 0
            t += 1


@math_kernel
def scatter(first, count, d, d_out):
    """Copy the gradient of a block's rows, d f32[K + 1, BLOCK], to d_out f32[T, P, K + 1]."""
    width = d_out.shape[1]
    t = first // width
    i = first % width
    for k in range(count):
        target = d_out[t, i]
        for j in range(len(target)):
            target[j] = d[j, k]
        i += 1
        if i == width:
            i = 0
            t += 1


@math_kernel
def surrogate(count, rows, numbers, sums):
    """Add the terms that depend on log-probabilities, and write the gradient of these."""
    f = np.float32
    mean = f(numbers[MEAN])
    scale = f(numbers[SCALE])
    clip = f(numbers[CLIP])
    low = f(1 - numbers[CLIP])
    high = f(1 + numbers[CLIP])
    limit = f(numbers[RATIO_LIMIT])
    weight, old_logp, advantage, logp, d_logp = (
        rows[WEIGHT][:count], rows[OLD_LOGP][:count], rows[ADVANTAGE][:count], rows[LOGP][:count], rows[D_LOGP][:count]
    )  # fmt: skip
    policy_loss = F32_0
    kl = F32_0
    clipped = F32_0
    for k in range(len(weight)):
        change = logp[k] - old_logp[k]
        log_ratio = min(max(change, -limit), limit)
        ratio = exp(log_ratio)
        a = (advantage[k] - mean) * scale
        inside = min(max(ratio, low), high)
        # Within the range both are the same, and the gradient flows; outside, it flows through the first, if smaller.
        flows = (change == log_ratio) & ((ratio == inside) | (a * ratio < a * inside))
        d_logp[k] = -weight[k] * a * ratio if flows else F32_0
        policy_loss -= weight[k] * min(a * ratio, a * inside)
        kl += weight[k] * (ratio - F32_1 - log_ratio)
        clipped += weight[k] if abs(ratio - F32_1) > clip else F32_0
    sums[POLICY_LOSS] += policy_loss
    sums[KL] += kl
    sums[CLIP_FRACTION] += clipped


@math_kernel
def dot(x, y):
    """Return the sum of products."""
    total = F32_0
    for k in range(len(x)):
        total += x[k] * y[k]
    return total


@math_kernel
def total(x):
    """Return the sum."""
    whole = F32_0
    for k in range(len(x)):
        whole += x[k]
    return whole


@math_kernel
def add_row(x, sums):
    """Add x to sums, element by element."""
    for k in range(len(sums)):
        sums[k] += x[k]


@math_kernel
def value_terms(count, value, rows, coef, d_value, sums):
    """Add the value loss, given values f32[BLOCK], and write their gradient."""
    weight, returns = rows[WEIGHT][:count], rows[RETURNS][:count]
    total = F32_0
    for k in range(len(weight)):
        error = value[k] - returns[k]
        d_value[k] = coef * weight[k] * error
        total += weight[k] * error * error
    sums[VALUE_LOSS] += HALF * total


@math_kernel
def advantage_sums(agents, advantage, truncations, centre, sums):
    """Write the number of valid steps, and the sums of their advantages' distances from a centre and of the squares.

    Args:
        agents: i64[n], columns.
        advantage: f32[T, N].
        truncations: bool[T, N].
        centre: a number.
        sums: f64[3], the result.
    """
    count = 0
    total = 0.0
    squares = 0.0
    for t in range(len(advantage)):
        row = advantage[t]
        ended = truncations[t]
        for k in range(len(agents)):
            if not ended[agents[k]]:
                x = row[agents[k]] - centre
                count += 1
                total += x
                squares += x * x
    sums[0] = count
    sums[1] = total
    sums[2] = squares

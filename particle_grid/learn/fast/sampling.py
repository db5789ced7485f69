"""Samples of actions and their log-probabilities in compiled kernels, for the heads of this package.

The heads' `sample` remains the definition, and draws the same random numbers. When a kernel is chosen, it is compared
with it, and rejected if it differs.
"""

import math

import numba
import numpy as np
import torch
from torch import Tensor

from particle_grid.learn import heads
from particle_grid.learn.fast.kernels import hurdle
from particle_grid.learn.fast.kernels.elementary import HALF, HALF_LOG_2PI, exp, log
from particle_grid.learn.fast.kernels.loss_parts import BLOCK, F32_0, F32_1
from particle_grid.learn.fast.kernels.losses import log_softmax
from particle_grid.learn.heads import CategoricalHead, GaussianHead, Head, HurdleHead
from particle_grid.learn.heads.hurdle import LARGEST, SMALLEST
from particle_grid.support.jit import math_kernel

TOLERANCE = 1e-4  # relative difference of a kernel from its definition
MOST_OTHERS = 1e-3  # share of samples that may differ, because a random number is as large as a rounded probability
CHOICES = (heads.CategoricalHead, heads.BinsHead)
NORMALS = (heads.GaussianHead, heads.SnappedHead, heads.SquashedHead)
F32_LARGEST = np.float32(LARGEST)
F32_SMALLEST = np.float32(SMALLEST)


@math_kernel
def _transpose(first, count, out, x):
    """Copy a block's rows, from number `first` of out f32[n, K] on, to x f32[K, BLOCK]."""
    for k in range(count):
        source = out[first + k]
        for j in range(len(source)):
            x[j, k] = source[j]


@math_kernel
def _choose(count, logp_all, p, noise, choice, logp):
    """Choose by inverting the cumulative distribution, and add the log-probability of the choice to logp."""
    cumulative = np.zeros(BLOCK, np.float32)[:count]
    choice[:count] = 0
    for j in range(len(p) - 1):  # without the last, 1 up to rounding, which is the last choice's
        q = p[j][:count]
        for k in range(len(q)):
            cumulative[k] += q[k]
            choice[k] += np.int32(1) if noise[k] >= cumulative[k] else np.int32(0)
    for j in range(len(p)):
        row = logp_all[j][:count]
        this = np.int32(j)
        for k in range(len(row)):
            logp[k] += row[k] if choice[k] == this else F32_0


@math_kernel
def categorical_sample(out, noise, nvec, samples, logp):
    """Sample from independent choices.

    Args:
        out: f32[n, K], logits.
        noise: f32[A, n] in [0, 1).
        nvec: i64[A].
        samples: i32[n, A], the result.
        logp: f32[n], the result.
    """
    x = np.empty((out.shape[1], BLOCK), np.float32)
    p = np.empty_like(x)
    choice = np.empty(BLOCK, np.int32)
    for first in range(0, len(out), BLOCK):
        count = min(BLOCK, len(out) - first)
        _transpose(first, count, out, x)
        total = logp[first : first + count]
        total[:] = F32_0
        at = 0
        for a in range(len(nvec)):
            end = at + nvec[a]
            log_softmax(count, x[at:end], p[at:end])
            _choose(count, x[at:end], p[at:end], noise[a][first : first + count], choice, total)
            for k in range(count):
                samples[first + k, a] = choice[k]
            at = end


@math_kernel
def normal_sample(out, noise, log_std, samples, logp):
    """Sample from independent normal distributions.

    The log-probability is that of the rounded sample, so that a replay gives the same.

    Args:
        out: f32[n, A], means.
        noise: f32[n, A].
        log_std: f32[A].
        samples: f32[n, A], the result.
        logp: f32[n], the result.
    """
    logp[:] = F32_0
    for a in range(len(log_std)):
        std = exp(log_std[a])
        inverse = exp(-log_std[a])
        for n in range(len(out)):
            samples[n, a] = out[n, a] + std * noise[n, a]
            z = (samples[n, a] - out[n, a]) * inverse
            logp[n] -= HALF * z * z + (log_std[a] + HALF_LOG_2PI)


@math_kernel
def _between(count, x_location, x_scale, noise, z):
    """Write samples from truncated logistic distributions to a component z of `hurdle`, by inverting the cumulative."""
    for k in range(count):
        location, log_scale, _, _ = hurdle.parts(x_location[k], x_scale[k])
        inverse = exp(-log_scale)
        below, _, _ = hurdle.logistic((-F32_1 - location) * inverse)
        above, _, _ = hurdle.logistic((location - F32_1) * inverse)
        width = F32_1 - below - above
        odds = log(below + width * noise[k]) - log(above + width * (F32_1 - noise[k]))
        x = min(max(location + exp(log_scale) * odds, -F32_LARGEST), F32_LARGEST)
        z[k + hurdle.SAMPLE] = F32_SMALLEST if x == F32_0 else x


@math_kernel
def hurdle_sample(out, noise, samples, logp):
    """Sample from atoms and the density between them.

    Args:
        out: f32[n, K].
        noise: f32[2, A, n] in [0, 1), for the choices and for values between the atoms.
        samples: f32[n, A], the result.
        logp: f32[n], the result.
    """
    x = np.empty((out.shape[1], BLOCK), np.float32)
    p = np.empty_like(x)
    z = np.empty(hurdle.DENSITY_ROWS, np.float32)
    choice = np.empty(BLOCK, np.int32)
    unused = np.empty(BLOCK, np.float32)
    for first in range(0, len(out), BLOCK):
        count = min(BLOCK, len(out) - first)
        _transpose(first, count, out, x)
        total = logp[first : first + count]
        total[:] = F32_0
        for a in range(samples.shape[1]):
            at = a * hurdle.OUTPUTS
            end = at + hurdle.CHOICES
            _between(count, x[end], x[end + 1], noise[1, a, first : first + count], z)
            hurdle.prepare(count, x[at : at + hurdle.OUTPUTS], p[at:end], z)
            _choose(count, x[at:end], p[at:end], noise[0, a, first : first + count], choice, total)
            density, spread = z[hurdle.DENSITY : hurdle.SPREAD], z[hurdle.SPREAD : hurdle.DENSITY_ROWS]
            hurdle.density_terms(count, choice, p[at + hurdle.BETWEEN], density, spread, total, unused)
            for k in range(count):
                atom = np.float32(choice[k]) - F32_1
                samples[first + k, a] = z[k + hurdle.SAMPLE] if choice[k] == hurdle.BETWEEN else atom


class FusedSampler:
    """Samples like `head.sample`, several times faster.

    Args:
        head: one of CHOICES or NORMALS, or a `HurdleHead`.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        if isinstance(head, CategoricalHead):
            self.nvec = np.array(head.nvec, np.int64)

    @torch.no_grad()
    def __call__(self, out: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return samples [n, A] and their log-probability f32[n], for outputs f32[n, K]."""
        samples = torch.empty(len(out), self.head.components, dtype=self.head.dtype)
        logp = torch.empty(len(out))
        results = (samples.numpy(), logp.numpy())
        if isinstance(self.head, GaussianHead):
            noise = torch.randn(out.shape, generator=generator)
            normal_sample(out.numpy(), noise.numpy(), self.head.log_std.numpy(), *results)
        elif isinstance(self.head, HurdleHead):
            noise = torch.rand((2, self.head.components, len(out)), generator=generator)
            hurdle_sample(out.numpy(), noise.numpy(), *results)
        else:
            noise = torch.rand((self.head.components, len(out)), generator=generator)
            categorical_sample(out.numpy(), noise.numpy(), self.nvec, *results)
        return samples, logp


def fused_sampler(head: Head) -> tuple[FusedSampler | None, str]:
    """Return the compiled sampling for a head, or None if there is none, and a sentence that describes the choice."""
    name = type(head).__name__
    if type(head) not in (*CHOICES, *NORMALS, HurdleHead):
        return None, f"Actions are sampled in plain torch: there is no kernel for {name}."
    if numba.config.DISABLE_JIT:
        return None, "Actions are sampled in plain torch: Numba's compiler is off (NUMBA_DISABLE_JIT)."
    others = {(x.dtype, x.device.type) for x in head.parameters()} - {(torch.float32, "cpu")}
    if others:
        dtype, device = others.pop()
        return None, f"Actions are sampled in plain torch: there is no kernel for a head in {dtype} on {device}."
    difference = compare(head)
    if not difference <= TOLERANCE:
        return None, (
            f"Actions are sampled in plain torch, which is slower: {name} was changed and the kernel in learn/fast was "
            f"not, so they differ (by {difference:.1e}). Change it too, or set trainer.fast=off."
        )
    return FusedSampler(head), "Actions are sampled in a kernel."


@torch.no_grad()
def compare(head: Head) -> float:
    """Return the largest difference between the kernel for a head and `head.sample`, for random outputs.

    The definition may raise any exception if it was changed.
    """
    outputs = torch.randn(4096, head.outputs + 1, generator=torch.Generator().manual_seed(0))[:, :-1]
    results = []
    try:
        for sample in (head.sample, FusedSampler(head)):
            results.append(sample(outputs, torch.Generator().manual_seed(1)))
    except Exception:  # from modified code: a signature that differs, for instance
        return math.inf
    (expected, expected_logp), (got, logp) = results
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return math.inf
    same = ((got - expected).abs() <= TOLERANCE).all(1)
    if float(same.float().mean()) < 1 - MOST_OTHERS:
        return 1.0
    return float(((logp - expected_logp)[same].abs() / (1 + expected_logp[same].abs())).max())

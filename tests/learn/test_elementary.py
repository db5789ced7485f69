"""The elementary functions of kernels are accurate to float32, within what their docstrings state."""

import numpy as np
import torch

from particle_grid.learn.fast.kernels import elementary
from particle_grid.support.jit import math_kernel
from tests.cases import needs_jit

pytestmark = needs_jit("the kernels use machine instructions")


@math_kernel
def every_exp(x, y):
    for k in range(len(x)):
        y[k] = elementary.exp(x[k])


@math_kernel
def every_log(x, y):
    for k in range(len(x)):
        y[k] = elementary.log(x[k])


@math_kernel
def every_log_complement(x, y):
    for k in range(len(x)):
        y[k] = elementary.log_complement(x[k])


@math_kernel
def every_log_gamma(x, y):
    for k in range(len(x)):
        shifted, correction, product, digamma, trigamma = elementary.log_gamma_parts(x[k])
        y[0, k] = (shifted - 0.5) * np.log(shifted) - shifted + 0.5 * np.log(2 * np.pi) + correction - np.log(product)
        y[1, k] = digamma
        y[2, k] = trigamma


def computed(kernel, x, *shape):
    y = np.empty((*shape, len(x)), np.float32)
    kernel(x, y)
    return y


def test_exp_is_accurate_and_clamped():
    x = np.linspace(-87, 88, 1_000_003).astype(np.float32)
    y = computed(every_exp, x)
    assert np.abs(y / np.exp(x.astype(np.float64)) - 1).max() < 4e-7
    assert (computed(every_exp, np.zeros(20, np.float32)) == 1).all()
    edges = np.array([-1e9, -87, 88, 1e9], np.float32)
    assert (computed(every_exp, edges)[[0, 3]] == computed(every_exp, edges)[[1, 2]]).all()


def test_log_is_accurate_and_finite_at_zero():
    x = np.exp(np.linspace(-80, 80, 1_000_003)).astype(np.float32)
    expected = np.log(x.astype(np.float64))
    assert (np.abs(computed(every_log, x) - expected) / np.maximum(1, np.abs(expected))).max() < 2e-7
    assert np.isfinite(computed(every_log, np.zeros(20, np.float32))).all()


def test_log_of_the_complement_is_accurate():
    x = np.concatenate([np.logspace(-20, -1, 10_000), np.linspace(0.1, 1 - 1e-6, 100_000)]).astype(np.float32)
    assert np.abs(computed(every_log_complement, x) / np.log1p(-x.astype(np.float64)) - 1).max() < 3e-7


def test_the_gamma_function_and_its_derivatives_are_accurate():
    x = np.concatenate([np.linspace(1, 40, 100_001), np.logspace(1, 6, 100_001)]).astype(np.float32)
    exact = torch.from_numpy(x).double()
    expected = torch.stack([exact.lgamma(), exact.digamma(), torch.polygamma(1, exact)]).numpy()
    error = np.abs(computed(every_log_gamma, x, 3) - expected)
    assert (error[0] / (8 + np.abs(expected[0]))).max() < 1e-6
    assert error[1].max() < 2e-6
    assert (error[2] / expected[2]).max() < 4e-6

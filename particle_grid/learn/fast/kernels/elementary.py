"""Exponential, hyperbolic tangent, logarithm and gamma function in float32.

They consist of arithmetic and shifts of bits, so that loops of them are vectorised.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from particle_grid.support.jit import math_kernel

F32 = ir.FloatType()
I32 = ir.IntType(32)
LOG2_E = np.float32(1.4426950408889634)
LN_2 = np.float32(0.6931471805599453)
ONE = np.float32(1)
HALF = np.float32(0.5)
QUARTER = np.float32(0.25)
HALF_LOG_2PI = np.float32(0.9189385332046727)
LOWEST = np.float32(-87)  # exp of less is denormal, and of more than HIGHEST infinite
HIGHEST = np.float32(88)


@intrinsic
def _power_of_two(typing_context, n):
    """Return 2**n of a float32 whole number from -126 to 127."""

    def generate(context, builder, signature, args):
        whole = builder.fptosi(args[0], I32)
        return builder.bitcast(builder.shl(builder.add(whole, I32(127)), I32(23)), F32)

    return types.float32(types.float32), generate


@intrinsic
def _exponent(typing_context, x):
    """Return n, as float32, with sqrt(0.5) <= x / 2**n < sqrt(2), of a positive normal float32."""

    def generate(context, builder, signature, args):
        bits = builder.sub(builder.bitcast(args[0], I32), I32(0x3F3504F3))  # bits of sqrt(0.5)
        return builder.sitofp(builder.ashr(bits, I32(23)), F32)

    return types.float32(types.float32), generate


@math_kernel
def exp(x):
    """Return e**x within 3e-7 of its size, for x clamped to [-87, 88].

    The coefficients are a minimax fit in common use (Cephes, `expf`).
    """
    f = np.float32
    x = min(max(x, LOWEST), HIGHEST)
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN_2
    p = (f(1.9875691500e-4) * r + f(1.3981999507e-3)) * r + f(8.3334519073e-3)
    p = ((p * r + f(4.1665795894e-2)) * r + f(1.6666665459e-1)) * r + f(5.0000001201e-1)
    return (p * r * r + r + ONE) * _power_of_two(n)


@math_kernel
def tanh(x):
    """Return the hyperbolic tangent."""
    e = exp(np.float32(-2) * abs(x))
    t = (ONE - e) / (ONE + e)
    return t if x > np.float32(0) else -t


@math_kernel
def _log_of_ratio(s):
    """Return log((1 + s) / (1 - s)) for sizes of s up to 0.18."""
    f = np.float32
    q = s * s
    return f(2) * s + (((f(2 / 9) * q + f(2 / 7)) * q + f(2 / 5)) * q + f(2 / 3)) * q * s


@math_kernel
def log(x):
    """Return the logarithm of a positive normal number, within 2e-7, or 2e-7 of its size. That of 0 is finite."""
    n = _exponent(x)
    m = x * _power_of_two(-n)
    return n * LN_2 + _log_of_ratio((m - ONE) / (m + ONE))


@math_kernel
def log_complement(x):
    """Return log(1 - x) for 0 <= x < 1, within 2e-7 of its size."""
    return _log_of_ratio(-x / (np.float32(2) - x)) if x < QUARTER else log(ONE - x)


@math_kernel
def log_gamma_parts(x):
    """Return parts of the logarithm of the gamma function of x >= 1, and its first and second derivative.

    The first three are y = x + 4, c and p, with log(gamma(x)) = (y - 1/2) log(y) - y + log(2 pi) / 2 + c - log(p).
    These are asymptotic series (Abramowitz and Stegun 1964, 6.1.41, 6.3.18 and 6.4.12) at y, and recurrences.
    """
    f = np.float32
    y = x + f(4)
    r = ONE / y
    s = r * r
    u = x * (x + f(3))
    product = u * (u + f(2))  # x (x + 1) (x + 2) (x + 3)
    middle = f(2) * x + f(3)
    first = (f(2) * u + f(2)) * middle / product  # the sum of 1 / (x + k), k = 0..3
    second = first * first - (f(2) * middle * middle + f(4) * u + f(4)) / product  # of 1 / (x + k)**2
    correction = ((f(1 / 1260) * s - f(1 / 360)) * s + f(1 / 12)) * r
    series = (((f(1 / 240) * s - f(1 / 252)) * s + f(1 / 120)) * s - f(1 / 12)) * s
    digamma = log(y) - HALF * r + series - first
    series = (((f(-1 / 30) * s + f(1 / 42)) * s - f(1 / 30)) * s + f(1 / 6)) * s
    return y, correction, product, digamma, r * (ONE + HALF * r + series) + second

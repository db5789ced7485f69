"""A seeded random generator per world: splitmix64, whose whole state is one uint64 that is saved with the world.

Source: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
Each function advances the generator `rng[w]` of world w, so worlds can run in any order on any number of threads.
"""

import math
from typing import Any

import numpy as np

from particle_grid.support.errors import UserError
from particle_grid.support.jit import kernel

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S11, S27 = np.uint64(11), np.uint64(27)
S30, S31 = np.uint64(30), np.uint64(31)
S32, S40 = np.uint64(32), np.uint64(40)
# The constants of `seed_generators`: words in its pool, and factors that are odd.
POOL = 4
MASK, S16 = np.uint64(0xFFFFFFFF), np.uint64(16)
FILL, FILL_FACTOR = np.uint64(0x43B0D7E5), np.uint64(0x931E8875)
DRAW, DRAW_FACTOR = np.uint64(0x8B51F9DD), np.uint64(0x58F38DED)
LEFT, RIGHT = np.uint64(0xCA01F9DD), np.uint64((1 << 32) - 0x4973F715)  # the second is subtracted
SQRT_HALF = 0.7071067811865476
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # small multiples of the first are exact
FOREVER = 1 << 62  # steps: the lifetime of agents that do not respawn, and more than any world lasts


def seeded(seed: int, worlds: int) -> np.ndarray:
    """Return independent generators u64[worlds], derived from one seed."""
    words = max(1, -(-int(seed).bit_length() // 32))
    entropy = np.frombuffer(int(seed).to_bytes(4 * words, "little"), "<u4").astype(np.uint64)
    generators = np.empty(worlds, np.uint64)
    seed_generators(entropy, np.empty(POOL, np.uint64), generators)
    return generators


@kernel
def _scramble(value, constant, factor):
    """Return a word mixed with a constant, and the next constant."""
    following = (constant * factor) & MASK
    value = ((value ^ constant) * following) & MASK
    return value ^ (value >> S16), following


@kernel
def _stir(word, other):
    """Return a word of the pool with another one mixed into it."""
    word = (((word * LEFT) & MASK) + ((other * RIGHT) & MASK)) & MASK
    return word ^ (word >> S16)


@kernel
def seed_generators(entropy, pool, generators):
    """Write the generators u64[worlds] of a seed, as `numpy.random.SeedSequence(seed).generate_state` does.

    Source: M. E. O'Neill, "Developing a seed_seq alternative", 2015.

    Args:
        entropy: u64[words], the seed in words of 32 bits, the lowest first.
        pool: u64[POOL], used in between.
        generators: u64[worlds], the result.
    """
    constant, zero = FILL, np.uint64(0)
    for k in range(len(pool)):
        pool[k], constant = _scramble(entropy[k] if k < len(entropy) else zero, constant, FILL_FACTOR)
    for k in range(len(pool)):
        for other in range(len(pool)):
            if other != k:
                word, constant = _scramble(pool[k], constant, FILL_FACTOR)
                pool[other] = _stir(pool[other], word)
    for k in range(len(pool), len(entropy)):
        for other in range(len(pool)):
            word, constant = _scramble(entropy[k], constant, FILL_FACTOR)
            pool[other] = _stir(pool[other], word)
    constant = DRAW
    for k in range(len(generators)):
        low, constant = _scramble(pool[2 * k % len(pool)], constant, DRAW_FACTOR)
        high, constant = _scramble(pool[(2 * k + 1) % len(pool)], constant, DRAW_FACTOR)
        generators[k] = low | (high << S32)


def check_seed(seed: Any) -> None:
    """Raise UserError unless `seed` is a non-negative integer or None."""
    if seed is not None and not (type(seed) is not bool and isinstance(seed, int | np.integer) and seed >= 0):
        raise UserError(f"seed={seed!r} is not a seed: use a whole number of at least 0.")


def check_generator(generator: Any) -> None:
    """Raise UserError unless `generator` is a writable array u64[1], as scripted policies need."""
    fits = isinstance(generator, np.ndarray) and generator.dtype == np.uint64 and generator.shape == (1,)
    if not (fits and generator.flags.carray):
        raise UserError(
            f"generator={generator!r} is not a generator for a scripted policy: use a writable array of one uint64."
        )


@kernel
def _mix(z):
    z = (z ^ (z >> S30)) * MIX_1
    z = (z ^ (z >> S27)) * MIX_2
    return z ^ (z >> S31)


@kernel
def next_u64(rng, w):
    """Return the next 64 random bits of world w."""
    rng[w] += GOLDEN
    return _mix(rng[w])


@kernel
def hidden(origin, k):
    """Return hidden number k of a world, in [0, 1) and a multiple of 2**-24.

    Hidden numbers are a function of `state.origin[w]`, the world's generator when it started. They advance no generator
    and are independent of the numbers drawn from it.
    """
    z = _mix(_mix(origin) + np.uint64(k + 1) * GOLDEN)
    return np.float32(z >> S40) * np.float32(2**-24)


@kernel
def below(rng, w, n):
    """Return a random integer in [0, n), for n < 2**32, by multiplication (its bias is under n / 2**32)."""
    return np.int64(((next_u64(rng, w) >> S32) * np.uint64(n)) >> S32)


@kernel
def uniform(rng, w):
    """Return a random float64 in [0, 1)."""
    return np.float64(next_u64(rng, w) >> S11) * 2.0**-53


@kernel
def log1p(x):
    """Return log(1 + x) for -1 < x <= 0, within one unit in the last place, with the same bits on every machine.

    It decides how long agents live, and the libraries of systems and browsers round theirs differently. This one is a
    fixed sequence of sums, products and quotients.

    With 1 + x = 2**n (1 + f), log(1 + f) is computed from s = f / (2 + f). The coefficients are a minimax fit in common
    use (FreeBSD msun, `e_log.c`).
    """
    one_plus_x = 1.0 + x
    lost = (x - (one_plus_x - 1.0)) / one_plus_x  # by rounding the sum
    n, f = 0.0, one_plus_x
    while f < SQRT_HALF:
        n, f = n - 1.0, 2.0 * f
    f -= 1.0
    s = f / (2.0 + f)
    z = s * s
    p = (1.479819860511658591e-01 * z + 1.531383769920937332e-01) * z + 1.818357216161805012e-01
    p = ((p * z + 2.222219843214978396e-01) * z + 2.857142874366239149e-01) * z + 3.999999999940941908e-01
    p = (p * z + 6.666666666666735130e-01) * z
    half_square = 0.5 * f * f
    return n * LN2_HIGH - ((half_square - (s * (half_square + p) + (n * LN2_LOW + lost))) - f)


def decay(lifespan: float) -> float:
    """Return the logarithm of the share of agents that survive a step; 0 for a lifespan of 0, which means forever."""
    return 0.0 if lifespan == 0 else -math.inf if lifespan <= 1 else log1p(-1 / lifespan)


@kernel
def lifetime(rng, w, decay):
    """Return the steps until an agent's next respawn: geometrically distributed, or FOREVER without decay."""
    if decay == 0:
        return np.int64(FOREVER)
    return np.int64(1) + np.int64(log1p(-uniform(rng, w)) / decay)

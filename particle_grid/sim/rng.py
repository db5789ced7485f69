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
FOREVER = 1 << 62  # steps: the lifetime of agents that do not respawn, and more than any world lasts


def seeded(seed: int, worlds: int) -> np.ndarray:
    """Return independent generators u64[worlds], derived from one seed."""
    return np.random.SeedSequence(seed).generate_state(worlds, np.uint64)


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


def decay(lifespan: float) -> float:
    """Return the logarithm of the share of agents that survive a step; 0 for a lifespan of 0, which means forever."""
    return 0.0 if lifespan == 0 else -math.inf if lifespan <= 1 else math.log1p(-1 / lifespan)


@kernel
def lifetime(rng, w, decay):
    """Return the steps until an agent's next respawn: geometrically distributed, or FOREVER without decay."""
    if decay == 0:
        return np.int64(FOREVER)
    return np.int64(1) + np.int64(math.log1p(-uniform(rng, w)) / decay)

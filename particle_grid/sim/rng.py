"""A seeded random generator per world: splitmix64, whose whole state is one uint64 that is saved with the world.

Source: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
Each function advances the generator `rng[w]` of world w, so worlds can run in any order on any number of threads.
"""

import math
from typing import Any

import numpy as np

from particle_grid.support.jit import kernel

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S27, S30, S31, S32, S40, S11 = (np.uint64(n) for n in (27, 30, 31, 32, 40, 11))


def seeded(seed: int, worlds: int) -> np.ndarray:
    """Generators u64[worlds] of independent worlds, from one seed."""
    return np.random.SeedSequence(seed).generate_state(worlds, np.uint64)


def check_seed(seed: Any) -> None:
    """Raises ValueError for what is neither a seed nor None."""
    if seed is not None and not (type(seed) is not bool and isinstance(seed, int | np.integer) and seed >= 0):
        raise ValueError(f"seed={seed!r} is no seed: give a whole number from 0 on.")


def check_generator(generator: Any) -> None:
    """Raises ValueError for what a script cannot draw from."""
    fits = isinstance(generator, np.ndarray) and generator.dtype == np.uint64 and generator.shape == (1,)
    if not (fits and generator.flags.carray):
        raise ValueError(f"generator={generator!r} is no generator of a script: give a writable array of one uint64.")


@kernel
def _mix(z):
    z = (z ^ (z >> S30)) * MIX_1
    z = (z ^ (z >> S27)) * MIX_2
    return z ^ (z >> S31)


@kernel
def next_u64(rng, w):
    """The next 64 random bits of world w."""
    rng[w] += GOLDEN
    return _mix(rng[w])


@kernel
def hidden(origin, k):
    """The k-th number, in [0, 1) and 2**-24 apart, that belongs to a world which began at a generator's state: it moves
    no generator, and has nothing to do with what was drawn from that one."""
    z = _mix(_mix(origin) + np.uint64(k + 1) * GOLDEN)
    return np.float32(z >> S40) * np.float32(2**-24)


@kernel
def below(rng, w, n):
    """A random integer in [0, n), n < 2**32, by multiplication (bias under n / 2**32)."""
    return np.int64(((next_u64(rng, w) >> S32) * np.uint64(n)) >> S32)


@kernel
def uniform(rng, w):
    """A random float64 in [0, 1)."""
    return np.float64(next_u64(rng, w) >> S11) * 2.0**-53


def decay(lifespan: float) -> float:
    """The logarithm of the share of agents that survive a step: 0 for a lifespan of 0, which means for ever."""
    return 0.0 if lifespan == 0 else -math.inf if lifespan <= 1 else math.log1p(-1 / lifespan)


@kernel
def lifetime(rng, w, decay):
    """Steps until the next respawn: geometric, for ever (2**62) without decay."""
    if decay == 0:
        return np.int64(1) << 62
    return np.int64(1) + np.int64(math.log1p(-uniform(rng, w)) / decay)

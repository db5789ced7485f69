"""Random numbers: the logarithm that decides lifespans, and the generators that seeds give."""

import hashlib
from decimal import Decimal, localcontext
from math import ulp

import numpy as np
import pytest

from particle_grid.sim import rng
from particle_grid.support.jit import kernel
from tests.cases import needs_jit


@kernel
def logarithms(x, out):
    for k in range(len(x)):
        out[k] = rng.log1p(x[k])


def uniforms(count, seed):
    """Return numbers as `uniform` draws them, and some close to its ends."""
    words = np.random.default_rng(seed).integers(0, 1 << 53, count, dtype=np.uint64)
    near = np.arange(100, dtype=np.uint64)
    return np.concatenate([words, words >> np.uint64(40), near, np.uint64((1 << 53) - 1) - near]) * 2.0**-53


def exact(x):
    with localcontext() as context:
        context.prec = 60
        return (1 + Decimal(float(x))).ln()


@pytest.mark.parametrize("x", [uniforms(5000, 0), 1 / np.random.default_rng(1).uniform(1, 2**20, 5000)])
def test_the_logarithm_is_within_one_unit_in_the_last_place(x):
    found = np.empty(len(x))
    logarithms(-x, found)
    for value, result in zip(-x, found, strict=True):
        assert abs(Decimal(float(result)) - exact(value)) <= Decimal(ulp(result))


@needs_jit("compares compiled code with Python")
def test_the_logarithm_has_the_same_bits_compiled_and_in_python():
    x = -uniforms(2000, 2)
    found = np.empty(len(x))
    logarithms(x, found)
    assert found.tolist() == [rng.log1p.py_func(float(value)) for value in x]


def test_the_logarithm_has_the_same_bits_on_every_machine():
    """They decide trajectories: a change is a new version of every environment."""
    x = -uniforms(20_000, 3)
    found = np.empty(len(x))
    logarithms(x, found)
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == "04b10da9e0b0b276"


def test_no_library_decides_how_long_an_agent_lives():
    assert "math" not in vars(rng)["lifetime"].__code__.co_names + rng.log1p.__code__.co_names


SEEDS = [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**64 + 5, 2**128 + 3, 2**300 + 11]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("worlds", [1, 2, 7, 300])
def test_generators_are_those_of_a_seed_sequence(seed, worlds):
    expected = np.random.SeedSequence(seed).generate_state(worlds, np.uint64)
    assert rng.seeded(seed, worlds).tolist() == expected.tolist()

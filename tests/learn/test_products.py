"""Matrix products in kernels equal NumPy's on the same, rounded numbers."""

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from particle_grid.learn.fast.kernels.products import (
    add_transposed_product,
    pack,
    pack_words,
    product,
    transpose,
    unpack,
)
from particle_grid.learn.fast.kernels.tiles import HAS_BF16
from particle_grid.learn.fast.torch_conv_lstm import matrix, tensor
from tests.cases import needs_jit

pytestmark = needs_jit("the kernels use machine instructions")
REALS = [np.float32, *([np.uint16] if HAS_BF16 else [])]
both = pytest.mark.parametrize("real", REALS)


@numba.njit
def to_real(x, y):
    for k in range(len(x)):
        pack(x[k], y[k])


@numba.njit
def from_real(x, y):
    for k in range(len(x)):
        unpack(x[k], y[k])


@numba.njit
def to_words(x, words):
    pack_words(x, words)


def rounded(x, real):
    """Return a matrix in this form."""
    y = np.empty(x.shape, real)
    to_real(x, y)
    return y


def words(x, real):
    """Return a matrix as words."""
    y = np.empty((len(x) // 2, x.shape[1]), np.uint32) if real is np.uint16 else np.empty_like(x)
    to_words(x, y)
    return y


def exact(x):
    """Return a matrix in float64."""
    return tensor(x).double().numpy()


@both
@settings(max_examples=30)
@given(rows=st.integers(0, 5), depth=st.integers(1, 150), columns=st.integers(1, 5), seed=st.integers(0, 1000))
def test_products_equal_numpys(real, rows, depth, columns, seed):
    generator = np.random.default_rng(seed)
    a = rounded(generator.normal(size=(8 * rows, 2 * depth)).astype(np.float32), real)
    b = words(generator.normal(size=(2 * depth, 32 * columns)).astype(np.float32), real)
    c = np.full((len(a), 32 * columns), np.nan, np.float32)
    product(a, b, c)
    np.testing.assert_allclose(c, exact(a) @ matrix(b).double().numpy(), rtol=1e-4, atol=1e-4)


@both
@settings(max_examples=30)
@given(rows=st.integers(1, 5), depth=st.integers(0, 150), columns=st.integers(1, 5), seed=st.integers(0, 1000))
def test_transposed_products_equal_numpys_and_are_added(real, rows, depth, columns, seed):
    generator = np.random.default_rng(seed)
    a = rounded(generator.normal(size=(2 * depth, 8 * rows)).astype(np.float32), real)
    b = rounded(generator.normal(size=(2 * depth, 32 * columns)).astype(np.float32), real)
    c = generator.normal(size=(8 * rows, 32 * columns)).astype(np.float32)
    expected = c + exact(a).T @ exact(b)
    add_transposed_product(a, b, c)
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)


def test_numbers_are_rounded_to_bf16_as_by_torch():
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(8, 64)) * 10.0 ** generator.integers(-30, 30, (8, 64))).astype(np.float32)
    x[0, :4] = 0.0, -0.0, np.inf, 1 + 2**-8  # the last is a tie
    expected = torch.from_numpy(x).bfloat16()
    assert torch.equal(tensor(rounded(x, np.uint16)), expected)
    assert torch.equal(matrix(words(x, np.uint16)), expected)
    back = np.empty_like(x)
    from_real(rounded(x, np.uint16), back)
    assert (back == expected.float().numpy()).all()


@given(rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_matrices_are_transposed(rows, columns):
    x = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    y = np.empty((columns, rows), np.float32)
    transpose(x, y)
    assert (y == x.T).all()

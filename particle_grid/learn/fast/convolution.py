"""The convolutions of `ConvLSTM` and `Conv` on one-hot windows, and their gradients.

The first convolution and its ReLU are one call of `particle_grid.learn.fast.one_hot.encode`. The second one covers all
patches, so it is one product. Its bias is left to the caller.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from particle_grid.learn.fast.network import words
from particle_grid.learn.fast.one_hot import convolution_places, encode, encode_back
from particle_grid.learn.fast.products import add_transposed_product, product
from particle_grid.learn.policy import CHANNELS, ConvEncoder
from particle_grid.support.jit import math_kernel

BLOCK = 64  # rows whose gradients are computed together


class Convolution(NamedTuple):
    """What the kernels read."""

    places: np.ndarray  # i64[cells, 9] see `particle_grid.learn.fast.one_hot.encode`
    base: np.ndarray  # f32[patches * 32]
    table: np.ndarray  # f32[25 * 7 * 32]
    dense: np.ndarray  # f32[0, patches * 32]
    conv: np.ndarray  # words[patches * 32, 32]
    conv_back: np.ndarray  # words[32, patches * 32]


@math_kernel
def convolve(obs, weights, hidden, x):
    """Compute the first convolution, hidden real[rows, patches * 32], and the second without bias, x f32[rows, 32]."""
    encode(obs, weights.places, weights.base, weights.table, weights.dense, hidden)
    product(hidden, weights.conv, x)


@math_kernel
def convolve_back(obs, weights, hidden, d_x, d_base, d_table, d_conv):
    """Add the gradients of `convolve` to d_base, d_table and d_conv, given d_x real[rows, 32]."""
    add_transposed_product(hidden, d_x, d_conv)
    d_hidden = np.empty((BLOCK, hidden.shape[1]), np.float32)
    d_dense = np.empty((0, hidden.shape[1]), np.float32)
    for first in range(0, len(obs), BLOCK):
        rows = slice(first, first + BLOCK)
        d_block = d_hidden[: len(obs[rows])]
        product(d_x[rows], weights.conv_back, d_block)
        encode_back(obs[rows], weights.places, hidden[rows], d_block, d_base, d_table.reshape(-1), d_dense)


class FastEncoder:
    """Prepares a `ConvEncoder` whose first convolution covers the window without padding."""

    def __init__(self, encoder: ConvEncoder) -> None:
        self.encoder = encoder
        self.places = convolution_places(encoder.side, encoder.conv1.kernel_size[0], encoder.conv1.stride[0])
        self.patches = int(self.places[:, 1::2].max()) // CHANNELS + 1

    def compose(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return base f32[patches * 32], table f32[25, 7, 32] and conv f32[patches * 32, 32]."""
        conv1 = self.encoder.conv1
        assert conv1.bias is not None
        table = conv1.weight.permute(2, 3, 1, 0).flatten(0, 1)  # [32, 7, 5, 5] -> [25, 7, 32]
        empty = table[:, :1]
        base = (conv1.bias + empty.sum((0, 1))).repeat(self.patches)
        conv = self.encoder.conv2.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [32, 32, p, p] -> [p * p * 32, 32]
        return base, table - empty, conv

    def pack(self, composed: Sequence[Tensor], dtype: torch.dtype) -> Convolution:
        """Return the arrays that the kernels read."""
        base, table, conv = composed
        return Convolution(
            self.places,
            base.numpy(),
            table.flatten().numpy(),
            np.empty((0, len(base)), np.float32),
            words(conv, dtype),
            words(conv.t(), dtype),
        )

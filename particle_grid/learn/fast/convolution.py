"""The convolutions of `ConvLSTM` and `Conv` on one-hot windows, and their gradients.

The first convolution and its ReLU are one call of `kernels.one_hot.encode`. The second one covers all
patches, so it is one matrix multiplication. Its bias is left to the caller.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from particle_grid.learn.fast.kernels.one_hot import convolution_places, encode, encode_back
from particle_grid.learn.fast.kernels.products import add_transposed_product, pack_words, product, transpose
from particle_grid.learn.policy import CELLS, CHANNELS, ConvEncoder
from particle_grid.support.jit import math_kernel

BLOCK = 64  # rows whose gradients are computed together
ZERO = np.float32(0)


class Convolution(NamedTuple):
    """What the kernels read."""

    places: np.ndarray  # i64[cells, 9] see `kernels.one_hot.encode`
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
        encode_back(obs[rows], weights.places, hidden[rows], d_block, d_base, d_table, d_dense)


@math_kernel
def compose_convolutions(conv1, conv1_bias, conv2, base, table, conv, conv_back):
    """Compose the convolutional encoder.

    Args:
        conv1: f32[32, 7, positions].
        conv1_bias: f32[32].
        conv2: f32[32, 32, patches].
        base, table: results, see `kernels.one_hot.encode`.
        conv: words[patches * 32, 32], result.
        conv_back: words[32, patches * 32], result: the transposed matrix.
    """
    channels, codes, positions = conv1.shape
    patches = conv2.shape[2]
    for c in range(channels):
        total = conv1_bias[c]
        for position in range(positions):
            empty = conv1[c, 0, position]
            total += empty
            for code in range(codes):
                table[(position * codes + code) * channels + c] = conv1[c, code, position] - empty
        for patch in range(patches):
            base[patch * channels + c] = total
    rows = np.empty((len(conv2), patches * channels), np.float32)
    for o in range(len(conv2)):
        for c in range(channels):
            for patch in range(patches):
                rows[o, patch * channels + c] = conv2[o, c, patch]
    columns = np.empty((patches * channels, len(conv2)), np.float32)
    transpose(rows, columns)
    pack_words(rows, conv_back)
    pack_words(columns, conv)


@math_kernel
def compose_convolutions_back(d_base, d_table, d_conv, d_conv1, d_conv1_bias, d_conv2):
    """Write the gradients of `compose_convolutions`, given those of base, table and conv f32[patches * 32, 32]."""
    channels, codes, positions = d_conv1.shape
    patches = d_conv2.shape[2]
    for c in range(channels):
        total = ZERO
        for patch in range(patches):
            total += d_base[patch * channels + c]
        d_conv1_bias[c] = total
        for position in range(positions):
            d_empty = total
            for code in range(1, codes):
                d = d_table[(position * codes + code) * channels + c]
                d_conv1[c, code, position] = d
                d_empty -= d
            d_conv1[c, 0, position] = d_empty
    for o in range(len(d_conv2)):
        for c in range(channels):
            for patch in range(patches):
                d_conv2[o, c, patch] = d_conv[patch * channels + c, o]


class FastEncoder:
    """Describes a `ConvEncoder` whose first convolution covers the window without padding."""

    def __init__(self, encoder: ConvEncoder) -> None:
        size = encoder.conv1.kernel_size[0]
        self.places = convolution_places(encoder.side, size, encoder.conv1.stride[0])
        self.width = int(self.places[:, 1::2].max()) + CHANNELS
        #: Shapes of the sums of gradients: base, table and conv.
        self.shapes = (self.width,), (size * size * CELLS * CHANNELS,), (self.width, CHANNELS)

    def compose(self, arrays: dict[str, np.ndarray], words: Callable[[int, int], np.ndarray]) -> Convolution:
        """Return the weights for parameters of these names; words(rows, columns) makes a matrix of words."""
        base, table = (np.empty(shape, np.float32) for shape in self.shapes[:2])
        dense = np.empty((0, self.width), np.float32)
        weights = Convolution(self.places, base, table, dense, words(self.width, CHANNELS), words(CHANNELS, self.width))
        conv1, bias, conv2 = self._flat(arrays)
        compose_convolutions(conv1, bias, conv2, base, table, weights.conv, weights.conv_back)
        return weights

    def compose_back(self, sums: Sequence[np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        """Write the gradients of the parameters, given those of base, table and conv."""
        compose_convolutions_back(*sums, *self._flat(gradients))

    @staticmethod
    def _flat(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return conv1 f32[32, 7, positions], its bias, and conv2 f32[32, 32, patches]."""
        conv1 = arrays["conv1"]
        conv2 = arrays["conv2"]
        return conv1.reshape(*conv1.shape[:2], -1), arrays["conv1_bias"], conv2.reshape(*conv2.shape[:2], -1)


def encoder_parameters(encoder: ConvEncoder) -> dict[str, Tensor]:
    """Return the parameters by the names that kernels use."""
    conv1 = encoder.conv1
    conv2 = encoder.conv2
    assert conv1.bias is not None
    assert conv2.bias is not None
    return {"conv1": conv1.weight, "conv1_bias": conv1.bias, "conv2": conv2.weight, "conv2_bias": conv2.bias}

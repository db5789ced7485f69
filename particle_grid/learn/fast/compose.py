"""Compose the parameters of `ConvLSTM` into the matrices that its kernels multiply by, and pass gradients back.

Everything between the second convolution and the gates is linear. With L = [linear.weight | linear.weight[:, :32] @
conv2.bias + linear.bias], which has 40 columns, a step's gates are

    gates = [convolved 32 | features 7 | 1 | h] @ joint,  joint = [weight_ih @ L | weight_hh].T

where the row of the constant 1 also has the biases of the LSTM.
"""

import numpy as np

from particle_grid.learn.fast.products import MULTIPLE_COLUMNS, add_transposed_product, pack_words, product
from particle_grid.support.jit import math_kernel

SQUARE = 16  # rows that `transpose` moves at a time
ONE_ROW = 39  # of joint: the row of the constant 1
INPUTS = 40  # rows of joint before those of h
WIDTH = 2 * MULTIPLE_COLUMNS  # columns of L, padded with zeros
ZERO = np.float32(0)


@math_kernel
def transpose(x, y):
    """Write x f32[m, n] to y f32[n, m]."""
    m, n = x.shape
    for first in range(0, m, SQUARE):
        end = min(first + SQUARE, m)
        for j in range(n):
            row = y[j]
            for i in range(first, end):
                row[i] = x[i, j]


@math_kernel
def compose_convolutions(conv1, conv1_bias, conv2, base, table, conv, conv_back):
    """Compose the convolutional encoder.

    Args:
        conv1: f32[32, 7, positions].
        conv1_bias: f32[32].
        conv2: f32[32, 32, patches].
        base, table: results, see `particle_grid.learn.fast.one_hot.encode`.
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


@math_kernel
def compose_gates(p, left, joint, inputs_back, recurrent_back):
    """Compose the gates.

    Args:
        p: the parameters: linear f32[H, 39], linear_bias f32[H], conv2_bias f32[32], weight_ih and weight_hh f32[4 H, H],
            bias_ih and bias_hh f32[4 H].
        left: f32[H, WIDTH], result: L, in its first 40 columns.
        joint: words[40 + H, 4 H], result.
        inputs_back: words[4 H, 32], result: the first 32 rows of joint, transposed.
        recurrent_back: words[4 H, H], result: the last H rows of joint, transposed.
    """
    for i in range(len(p.linear)):
        shift = p.linear_bias[i]
        for k in range(len(p.conv2_bias)):
            shift += p.linear[i, k] * p.conv2_bias[k]
        for k in range(p.linear.shape[1]):
            left[i, k] = p.linear[i, k]
        left[i, ONE_ROW] = shift
    gates, size = p.weight_hh.shape
    into = np.empty((gates, WIDTH), np.float32)
    product(p.weight_ih, left, into)
    rows = np.empty((INPUTS + size, gates), np.float32)
    transpose(into[:, :INPUTS], rows[:INPUTS])
    transpose(p.weight_hh, rows[INPUTS:])
    for k in range(gates):
        rows[ONE_ROW, k] += p.bias_ih[k] + p.bias_hh[k]
    pack_words(rows, joint)
    pack_words(into[:, : inputs_back.shape[1]], inputs_back)
    pack_words(p.weight_hh, recurrent_back)


@math_kernel
def compose_gates_back(p, left, d_joint, d):
    """Write the gradients of `compose_gates` to those of the parameters, d, given d_joint f32[40 + H, 4 H]."""
    into = d_joint[:INPUTS]
    d_left = np.empty((INPUTS, len(p.linear)), np.float32)
    product(into, p.weight_ih, d_left)
    left_rows = np.empty((INPUTS, len(left)), np.float32)
    transpose(left[:, :INPUTS], left_rows)
    d.weight_ih[:] = 0
    add_transposed_product(into, left_rows, d.weight_ih)
    transpose(d_joint[INPUTS:], d.weight_hh)
    d.bias_ih[:] = into[ONE_ROW]
    d.bias_hh[:] = into[ONE_ROW]
    d_shift = d_left[ONE_ROW]
    d.conv2_bias[:] = 0
    for i in range(len(p.linear)):
        d.linear_bias[i] = d_shift[i]
        for k in range(p.linear.shape[1]):
            d.linear[i, k] = d_left[k, i]
        for k in range(len(p.conv2_bias)):
            d.linear[i, k] += d_shift[i] * p.conv2_bias[k]
            d.conv2_bias[k] += d_shift[i] * p.linear[i, k]

"""A step of an LSTM with actor and critic, and its gradients: what happens between the matrix products.

Everything between the second convolution and the gates is linear. With L = [linear.weight | linear.weight[:, :32] @
conv2.bias + linear.bias], which has 40 columns, a step's gates are

    gates = [convolved 32 | features 7 | 1 | h] @ joint,  joint = [weight_ih @ L | weight_hh].T

where the row of the constant 1 also has the biases of the LSTM.
"""

from typing import NamedTuple

import numpy as np

from particle_grid.learn.fast.kernels.one_hot import put_features
from particle_grid.learn.fast.kernels.products import (
    MULTIPLE_COLUMNS,
    add_transposed_product,
    apply_heads,
    pack,
    pack_words,
    product,
    transpose,
    unpack,
)
from particle_grid.support.jit import math_kernel

ONE_ROW = 39  # row of joint with the constant 1
INPUTS = 40  # rows of joint before those of h
WIDTH = 2 * MULTIPLE_COLUMNS  # columns of L, padded with zeros
HALF = np.float32(0.5)
ONE = np.float32(1)
ZERO = np.float32(0)


@math_kernel
def join(x, obs, cells, h, starts, joint):
    """Write the input of a step's matrix product to joint real[n, ...].

    A row is x real[n, 32], the features divided by 255, a 1, and h f32[n, H], or 0 if an episode starts.
    """
    width = joint.shape[1]
    row = np.zeros(width, np.float32)
    channels = x.shape[1]
    hidden = h.shape[1]
    for n in range(len(obs)):
        keep = ZERO if starts[n] else ONE
        unpack(x[n], row[:channels])
        put_features(obs[n], cells, row[channels : width - hidden])
        last = row[width - hidden :]
        old = h[n]
        for k in range(len(last)):
            last[k] = keep * old[k]
        pack(row, joint[n])


@math_kernel
def _tanh(x):
    """Return the hyperbolic tangent by a rational approximation, within 4e-7.

    It consists of products and one division, so that loops of it are vectorised. The coefficients are a minimax fit in
    common use (Eigen, "generic_fast_tanh_float").
    """
    f = np.float32
    x = min(max(x, f(-7.9)), f(7.9))
    s = x * x
    p = ((f(-2.76076847742355e-16) * s + f(2.00018790482477e-13)) * s + f(-8.60467152213735e-11)) * s
    p = ((p + f(5.12229709037114e-08)) * s + f(1.48572235717979e-05)) * s + f(6.37261928875436e-04)
    p = p * s + f(4.89352455891786e-03)
    q = (f(1.19825839466702e-06) * s + f(1.18534705686654e-04)) * s + f(2.26843463243900e-03)
    return x * p / (q * s + f(4.89352518554385e-03))


@math_kernel
def _sigmoid(x):
    return HALF * _tanh(HALF * x) + HALF


@math_kernel
def step(preactivations, c, starts, heads, bias, gates, c_next, h, out):
    """Compute an LSTM step, and actor and critic on its output.

    Args:
        preactivations: real[n, 4 H], of the input, forget, cell and output gates.
        c: f32[n, H], the cell state before, taken as 0 where an episode starts.
        starts: bool[n].
        heads: f32[A, H].
        bias: f32[A].
        gates: real[n, 4 H], result: the activated gates. It may be `preactivations`.
        c_next, h: f32[n, H], results.
        out: f32[n, A], result.
    """
    size = h.shape[1]
    act = np.empty(4 * size, np.float32)
    i = act[:size]
    f = act[size : 2 * size]
    g = act[2 * size : 3 * size]
    o = act[3 * size :]
    for n in range(len(h)):
        keep = ZERO if starts[n] else ONE
        unpack(preactivations[n], act)
        old = c[n]
        new = c_next[n]
        hidden = h[n]
        for k in range(size):
            i[k] = _sigmoid(i[k])
            f[k] = _sigmoid(f[k])
            g[k] = _tanh(g[k])
            o[k] = _sigmoid(o[k])
        for k in range(size):
            new[k] = f[k] * (keep * old[k]) + i[k] * g[k]
            hidden[k] = o[k] * _tanh(new[k])
        pack(act, gates[n])
        apply_heads(hidden, heads, bias, out[n])


@math_kernel
def step_back(gates, c, starts, c_next, d_out, heads, d_h_next, starts_next, d_c, d_heads, d_bias):
    """Replace the activated gates of `step` by gradients before the activation, and add to d_heads and d_bias.

    The gradient of h comes from d_out and from the next step, d_h_next real[n, H]. That of c is passed on in
    d_c f32[n, H]. Nothing flows back across the start of an episode.
    """
    size = c.shape[1]
    act = np.empty(4 * size, np.float32)
    d_hidden = np.empty(size, np.float32)
    y = np.empty(size, np.float32)
    i = act[:size]
    f = act[size : 2 * size]
    g = act[2 * size : 3 * size]
    o = act[3 * size :]
    for n in range(len(gates)):
        keep = ZERO if starts[n] else ONE
        keep_next = ZERO if starts_next[n] else ONE
        old = c[n]
        new = c_next[n]
        d_cell = d_c[n]
        unpack(gates[n], act)
        unpack(d_h_next[n], d_hidden)
        for k in range(size):
            d_hidden[k] *= keep_next
            y[k] = _tanh(new[k])
        for a in range(len(heads)):
            head = heads[a]
            d_head = d_heads[a]
            d = d_out[n, a]
            d_bias[a] += d
            for k in range(size):
                d_hidden[k] += d * head[k]
                d_head[k] += d * o[k] * y[k]
        for k in range(size):
            d = d_cell[k] + d_hidden[k] * o[k] * (ONE - y[k] * y[k])
            d_i = d * g[k] * i[k] * (ONE - i[k])
            d_f = d * keep * old[k] * f[k] * (ONE - f[k])
            d_g = d * i[k] * (ONE - g[k] * g[k])
            d_o = d_hidden[k] * y[k] * o[k] * (ONE - o[k])
            d_cell[k] = d * f[k] * keep
            i[k] = d_i
            f[k] = d_f
            g[k] = d_g
            o[k] = d_o
        pack(act, gates[n])


class GateParameters(NamedTuple):
    """The parameters that the gates are composed of, or their gradients."""

    linear: np.ndarray  # f32[H, 39]
    linear_bias: np.ndarray  # f32[H]
    conv2_bias: np.ndarray  # f32[32]
    weight_ih: np.ndarray  # f32[4 H, H]
    weight_hh: np.ndarray  # f32[4 H, H]
    bias_ih: np.ndarray  # f32[4 H]
    bias_hh: np.ndarray  # f32[4 H]


@math_kernel
def compose_gates(p, left, joint, inputs_back, recurrent_back):
    """Compose the gates.

    Args:
        p: the parameters.
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

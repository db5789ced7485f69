"""What happens between the matrix products of the fast path: convolution of one-hot windows, and LSTM cells.

Arrays marked `real` hold float32, or bf16 as bits in uint16, because NumPy has no bf16. Each of their rows is unpacked
into a float32 scratch row, computed there and packed again: the compiler vectorises loops over contiguous slices of
equal length.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from particle_grid.support.jit import math_kernel

CHANNELS = 32  # of the first convolution; a row of its table
HALF = np.float32(0.5)
ONE = np.float32(1)
ZERO = np.float32(0)
BYTE = np.uint64(0xFF)
LAST_CODE = np.uint64(6)
S3 = np.uint64(3)
S16 = np.uint32(16)
ROUND = np.uint32(0x7FFF)
ODD = np.uint32(1)


def unpack(row, x):
    """Copy a row to x[:], as float32."""


def pack(x, row):
    """Copy x to row[:], rounded to nearest, ties to even."""


@overload(unpack)
def _unpack(row, x):
    def from_bf16(row, x):
        bits = x.view(np.uint32)
        for k in range(len(bits)):
            bits[k] = np.uint32(row[k]) << S16  # bf16 is the upper half of a float32

    def from_f32(row, x):
        for k in range(len(x)):
            x[k] = row[k]

    return from_bf16 if row.dtype == types.uint16 else from_f32


@overload(pack)
def _pack(x, row):
    def to_bf16(x, row):
        bits = x.view(np.uint32)
        for k in range(len(bits)):
            row[k] = np.uint16((bits[k] + ROUND + ((bits[k] >> S16) & ODD)) >> S16)

    def to_f32(x, row):
        for k in range(len(x)):
            row[k] = x[k]

    return to_bf16 if row.dtype == types.uint16 else to_f32


@intrinsic
def _add_row(typing_context, into, at, rows, start):
    """Add rows[start : start + 32] to into[at : at + 32], both flat float32 arrays.

    This is spelt out because Numba unrolls a loop of constant length into scalars, and a slice of run-time length costs
    three times as much.
    """

    def generate(context, builder, signature, args):
        vector = ir.VectorType(ir.FloatType(), CHANNELS).as_pointer()

        def pointer(kind, array, index):
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [index]), vector)

        target = pointer(signature.args[0], args[0], args[1])
        source = pointer(signature.args[2], args[2], args[3])
        total = builder.fadd(builder.load(target, align=4), builder.load(source, align=4))
        builder.store(total, target, align=4)

    return types.void(into, at, rows, start), generate


@intrinsic
def _word(typing_context, array, k):
    """Return bytes 8 * k to 8 * k + 7 of a uint8 array as uint64."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        words = builder.bitcast(data, ir.IntType(64).as_pointer())
        return builder.load(builder.gep(words, [args[1]]), align=1)

    return types.uint64(array, k), generate


@intrinsic
def _zeros_below(typing_context, word):
    """Return the number of 0 bits of a uint64 below its lowest 1."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(word), generate


@math_kernel
def _seen(window, cells, found):
    """Write the numbers of the cells that are not empty to `found`, and return their count.

    Eight cells are tested at once, because most windows are nearly empty. This reads up to seven bytes after the last
    cell, which are the features of the same observation.
    """
    count = 0
    for k in range((cells + 7) // 8):
        word = _word(window, k)
        left = cells - 8 * k
        if left < 8:
            word &= (np.uint64(1) << np.uint64(8 * left)) - np.uint64(1)
        while word:
            byte = _zeros_below(word) >> S3
            found[count] = np.int64(np.uint64(8 * k) + byte)
            count += 1
            word &= ~(BYTE << (byte << S3))
    return count


@math_kernel
def convolve(obs, places, base, table, hidden):
    """Compute the first convolution and its ReLU.

    An empty patch yields its part of `base`. Each cell that is not empty adds a row of `table` to each patch that
    contains it.

    Args:
        obs: u8[T, n, observation size].
        places: i64[cells, 1 + 2 * 4]. The number of patches that contain a cell, and for each of these where the patch
            starts in a row of `hidden`, and where the rows of the cell's position start in `table`.
        base: f32[patches * 32].
        table: f32[25 * 7 * 32].
        hidden: real[T * n, patches * 32], the result.
    """
    row = np.empty(hidden.shape[1], np.float32)
    found = np.empty(len(places), np.int64)
    for n in range(len(hidden)):
        window = obs[n // obs.shape[1], n % obs.shape[1]]
        for k in range(len(row)):
            row[k] = base[k]
        for k in range(_seen(window, len(places), found)):
            cell = found[k]
            code = np.int64(min(np.uint64(window[cell]), LAST_CODE)) * CHANNELS
            for j in range(places[cell, 0]):
                _add_row(row, places[cell, 1 + 2 * j], table, places[cell, 2 + 2 * j] + code)
        for k in range(len(row)):
            row[k] = max(row[k], ZERO)
        pack(row, hidden[n])


@math_kernel
def convolve_back(obs, places, hidden, d_hidden, d_base, d_table):
    """Add the gradients of `convolve` to d_base and d_table, given d_hidden real[T * n, patches * 32]."""
    row = np.empty(hidden.shape[1], np.float32)
    out = np.empty(hidden.shape[1], np.float32)
    found = np.empty(len(places), np.int64)
    for n in range(len(hidden)):
        window = obs[n // obs.shape[1], n % obs.shape[1]]
        unpack(d_hidden[n], row)
        unpack(hidden[n], out)
        for k in range(len(row)):
            row[k] = row[k] if out[k] > ZERO else ZERO
        for k in range(len(row)):
            d_base[k] += row[k]
        for k in range(_seen(window, len(places), found)):
            cell = found[k]
            code = np.int64(min(np.uint64(window[cell]), LAST_CODE)) * CHANNELS
            for j in range(places[cell, 0]):
                _add_row(d_table, places[cell, 2 + 2 * j] + code, row, places[cell, 1 + 2 * j])


@math_kernel
def join(x, obs, cells, h, starts, joint):
    """Write the input of a step's product to joint real[n, ...].

    A row is x real[n, 32], the features divided by 255, a 1, zeros, and h f32[n, H], or 0 if an episode starts.
    """
    width = joint.shape[1]
    row = np.zeros(width, np.float32)
    features = obs.shape[1] - cells
    hidden = h.shape[1]
    for n in range(len(obs)):
        keep = ZERO if starts[n] else ONE
        unpack(x[n], row[:CHANNELS])
        for k in range(features):
            row[CHANNELS + k] = np.float32(obs[n, cells + k]) * np.float32(1 / 255)
        row[CHANNELS + features] = ONE
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
def step(gates, c, starts, heads, bias, c_next, h, out):
    """Compute an LSTM step, and actor and critic on its output.

    Args:
        gates: real[n, 4 H], input, forget, cell and output gates. They are activated in place.
        c: f32[n, H], the cell state before, taken as 0 where an episode starts.
        starts: bool[n].
        heads: f32[A, H].
        bias: f32[A].
        c_next, h: f32[n, H], results; c_next may be c.
        out: f32[n, A], result.
    """
    size = h.shape[1]
    act = np.empty(4 * size, np.float32)
    i = act[:size]
    f = act[size : 2 * size]
    g = act[2 * size : 3 * size]
    o = act[3 * size :]
    for n in range(len(gates)):
        keep = ZERO if starts[n] else ONE
        old = c[n]
        new = c_next[n]
        hidden = h[n]
        unpack(gates[n], act)
        for k in range(size):
            i[k] = _sigmoid(i[k])
            f[k] = _sigmoid(f[k])
            g[k] = _tanh(g[k])
            o[k] = _sigmoid(o[k])
        for k in range(size):
            new[k] = f[k] * (keep * old[k]) + i[k] * g[k]
            hidden[k] = o[k] * _tanh(new[k])
        pack(act, gates[n])
        for a in range(len(bias)):
            total = ZERO
            head = heads[a]
            for k in range(size):
                total += head[k] * hidden[k]
            out[n, a] = total + bias[a]


@math_kernel
def step_back(gates, c, starts, c_next, d_out, heads, d_h_next, starts_next, d_c, d_heads, d_bias):
    """Replace the activated gates of `step` by gradients before the activation, and add to d_heads and d_bias.

    The gradient of h comes from d_out and from the next step, d_h_next real[n, H]. That of c is passed on in
    d_c f32[n, H]. Nothing flows back across the start of an episode.
    """
    size = c.shape[1]
    act = np.empty(4 * size, np.float32)
    d_h = np.empty(size, np.float32)
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
        unpack(d_h_next[n], d_h)
        for k in range(size):
            d_h[k] *= keep_next
            y[k] = _tanh(new[k])
        for a in range(len(heads)):
            head = heads[a]
            d_head = d_heads[a]
            d = d_out[n, a]
            d_bias[a] += d
            for k in range(size):
                d_h[k] += d * head[k]
                d_head[k] += d * o[k] * y[k]
        for k in range(size):
            d = d_cell[k] + d_h[k] * o[k] * (ONE - y[k] * y[k])
            d_i = d * g[k] * i[k] * (ONE - i[k])
            d_f = d * keep * old[k] * f[k] * (ONE - f[k])
            d_g = d * i[k] * (ONE - g[k] * g[k])
            d_o = d_h[k] * y[k] * o[k] * (ONE - o[k])
            d_cell[k] = d * f[k] * keep
            i[k] = d_i
            f[k] = d_f
            g[k] = d_g
            o[k] = d_o
        pack(act, gates[n])

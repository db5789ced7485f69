"""What happens between the matrix products of the fast path: convolution of one-hot windows, and LSTM cells.

Arrays marked `real` hold float32, or bf16 as its bits in uint16, which NumPy lacks. A row of those is unpacked into a
float32 scratch, computed there and packed again: loops over contiguous slices of the same length become vectors.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from particle_grid.support.jit import math_kernel

CHANNELS = 32  # of the first convolution; a row of its table
HALF, ONE, ZERO = np.float32(0.5), np.float32(1), np.float32(0)
BYTE, LAST_CODE = np.uint64(0xFF), np.uint64(6)
S3, S16, S64 = np.uint64(3), np.uint32(16), np.uint64(64)
ROUND, ODD = np.uint32(0x7FFF), np.uint32(1)


def unpack(row, x):
    """x[:] = row, as float32."""


def pack(x, row):
    """row[:] = x, rounded to the nearest, ties to even."""


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
    """into[at : at + 32] += rows[start : start + 32], of flat float32 arrays. Spelt out, since Numba unrolls a loop of
    constant length into scalars, and a slice of run-time length costs three times as much."""

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
    """Bytes 8 * k to 8 * k + 7 of a uint8 array, as uint64."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        words = builder.bitcast(data, ir.IntType(64).as_pointer())
        return builder.load(builder.gep(words, [args[1]]), align=1)

    return types.uint64(array, k), generate


@intrinsic
def _zeros_below(typing_context, word):
    """How many of the lowest bits of a uint64 are 0 before the first 1."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(word), generate


@math_kernel
def _seen(window, cells, found):
    """Writes the numbers of the cells that are not empty, and returns how many there are. Eight are looked at at once:
    most windows are nearly empty. `window` has at least a byte behind each eight cells that begin in it."""
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
    """The first convolution and its ReLU. obs u8[T, n, row] -> hidden real[T * n, patches * 32].

    A patch with nothing in it comes to its part of base f32[patches * 32]; each cell that is not empty adds a row of
    table f32[25 * 7 * 32] to each patch that it is in. places i64[cells, 1 + 2 * 4]: in how many patches a cell is, and
    for each where the patch begins in `hidden`, and where the rows of its position begin in `table`."""
    row, found = np.empty(hidden.shape[1], np.float32), np.empty(len(places), np.int64)
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
    """Adds the gradients of `convolve` to d_base and d_table. d_hidden real[T * n, patches * 32]: behind the ReLU."""
    row, out = np.empty(hidden.shape[1], np.float32), np.empty(hidden.shape[1], np.float32)
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
    """joint real[n, ...] = x real[n, 32], the features as shares of 255, a 1, zeros, and at the end h f32[n, H], which
    is 0 where an episode starts."""
    width, row = joint.shape[1], np.zeros(joint.shape[1], np.float32)
    features, hidden = obs.shape[1] - cells, h.shape[1]
    for n in range(len(obs)):
        keep = ZERO if starts[n] else ONE
        unpack(x[n], row[:CHANNELS])
        for k in range(features):
            row[CHANNELS + k] = np.float32(obs[n, cells + k]) * np.float32(1 / 255)
        row[CHANNELS + features] = ONE
        last, old = row[width - hidden :], h[n]
        for k in range(len(last)):
            last[k] = keep * old[k]
        pack(row, joint[n])


@math_kernel
def _tanh(x):
    """Rational approximation, within 4e-7: products and one division, so that it becomes vectors. The coefficients are
    a minimax fit that is in common use (Eigen, "generic_fast_tanh_float")."""
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
    """An LSTM step, and the heads on it. gates real[n, 4 H] (input, forget, cell, output) are activated in place;
    c f32[n, H], 0 where an episode starts -> c_next, which may be c, h f32[n, H] and out f32[n, A].
    heads f32[A, H], bias f32[A]."""
    size = h.shape[1]
    act = np.empty(4 * size, np.float32)
    i, f, g, o = act[:size], act[size : 2 * size], act[2 * size : 3 * size], act[3 * size :]
    for n in range(len(gates)):
        keep, old, new, hidden = ZERO if starts[n] else ONE, c[n], c_next[n], h[n]
        unpack(gates[n], act)
        for k in range(size):
            i[k], f[k], g[k], o[k] = _sigmoid(i[k]), _sigmoid(f[k]), _tanh(g[k]), _sigmoid(o[k])
        for k in range(size):
            new[k] = f[k] * (keep * old[k]) + i[k] * g[k]
            hidden[k] = o[k] * _tanh(new[k])
        pack(act, gates[n])
        for a in range(len(bias)):
            total, head = ZERO, heads[a]
            for k in range(size):
                total += head[k] * hidden[k]
            out[n, a] = total + bias[a]


@math_kernel
def step_back(gates, c, starts, c_next, d_out, heads, d_h_next, starts_next, d_c, d_heads, d_bias):
    """Turns the activated gates of `step` into gradients before the activation, in place. The gradient of h comes from
    the heads and from the next step, d_h_next real[n, H]; that of c, f32[n, H], is passed on in place. Nothing flows
    back over the start of an episode. Adds to d_heads f32[A, H] and d_bias f32[A]."""
    size = c.shape[1]
    act, d_h, y = np.empty(4 * size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    i, f, g, o = act[:size], act[size : 2 * size], act[2 * size : 3 * size], act[3 * size :]
    for n in range(len(gates)):
        keep, keep_next = ZERO if starts[n] else ONE, ZERO if starts_next[n] else ONE
        old, new, d_cell = c[n], c_next[n], d_c[n]
        unpack(gates[n], act)
        unpack(d_h_next[n], d_h)
        for k in range(size):
            d_h[k] *= keep_next
            y[k] = _tanh(new[k])
        for a in range(len(heads)):
            head, d_head, d = heads[a], d_heads[a], d_out[n, a]
            d_bias[a] += d
            for k in range(size):
                d_h[k] += d * head[k]
                d_head[k] += d * o[k] * y[k]
        for k in range(size):
            d = d_cell[k] + d_h[k] * o[k] * (ONE - y[k] * y[k])
            d_i, d_f = d * g[k] * i[k] * (ONE - i[k]), d * keep * old[k] * f[k] * (ONE - f[k])
            d_g, d_o = d * i[k] * (ONE - g[k] * g[k]), d_h[k] * y[k] * o[k] * (ONE - o[k])
            d_cell[k] = d * f[k] * keep
            i[k], f[k], g[k], o[k] = d_i, d_f, d_g, d_o
        pack(act, gates[n])

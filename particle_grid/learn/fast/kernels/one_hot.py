"""The first layer of every policy on one-hot windows: a convolution or a linear layer, then ReLU.

A window has one code per cell, so the layer adds one row of a table per cell and patch that contains it. Most cells are
empty. The sum over an empty window is therefore computed once, as `base`, and the table holds the differences from an
empty cell.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from particle_grid.learn.fast.kernels.products import pack, unpack
from particle_grid.support.jit import math_kernel

CHANNELS = 32  # channels of a patch; a row of the table
ONE = np.float32(1)
ZERO = np.float32(0)
BYTE = np.uint64(0xFF)
CODES = 7  # codes of a cell
LAST_CODE = np.uint64(CODES - 1)
S3 = np.uint64(3)
SCALE = np.float32(1 / 255)  # scale of features


def convolution_places(side: int, kernel: int, stride: int) -> np.ndarray:
    """Return the table of patches i64[side * side, 9] of a convolution without padding, see `encode`."""
    patches = (side - kernel) // stride + 1
    result = np.zeros((side * side, 9), np.int64)
    for patch in range(patches * patches):
        for position in range(kernel * kernel):
            row = patch // patches * stride + position // kernel
            column = patch % patches * stride + position % kernel
            place = result[row * side + column]
            place[1 + 2 * place[0] : 3 + 2 * place[0]] = patch * CHANNELS, position * CODES * CHANNELS
            place[0] += 1
    return result


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
def put_features(window, cells, row):
    """Write the features of an observation u8[cells + features], divided by 255, and a 1 to row f32[features + 1]."""
    features = len(window) - cells
    for k in range(features):
        row[k] = np.float32(window[cells + k]) * SCALE
    row[features] = ONE


@math_kernel
def encode(obs, places, base, table, dense, hidden):
    """Compute the layer and its ReLU.

    Args:
        obs: u8[rows, cells + features].
        places: i64[cells, 1 + 2 * P]. The number of patches that contain a cell, and for each of these where the patch
            starts in a row of `hidden`, and where the rows of the cell's position start in `table`.
        base: f32[width], the result for an empty window and features of 0, before the ReLU.
        table: f32[any size], rows of CHANNELS for each position and code.
        dense: f32[F, width], the weights of the first F features.
        hidden: real[rows, width], the result.
    """
    row = np.empty(hidden.shape[1], np.float32)
    found = np.empty(len(places), np.int64)
    for n in range(len(hidden)):
        window = obs[n]
        for k in range(len(row)):
            row[k] = base[k]
        for i in range(_seen(window, len(places), found)):
            cell = found[i]
            code = np.int64(min(np.uint64(window[cell]), LAST_CODE)) * CHANNELS
            for j in range(places[cell, 0]):
                _add_row(row, places[cell, 1 + 2 * j], table, places[cell, 2 + 2 * j] + code)
        for i in range(len(dense)):
            feature = np.float32(window[len(places) + i]) * SCALE
            weights = dense[i]
            for k in range(len(row)):
                row[k] += feature * weights[k]
        for k in range(len(row)):
            row[k] = max(row[k], ZERO)
        pack(row, hidden[n])


@math_kernel
def encode_back(obs, places, hidden, d_hidden, d_base, d_table, d_dense):
    """Add the gradients of `encode` to d_base, d_table and d_dense, given d_hidden real[rows, width]."""
    row = np.empty(hidden.shape[1], np.float32)
    out = np.empty(hidden.shape[1], np.float32)
    found = np.empty(len(places), np.int64)
    for n in range(len(hidden)):
        window = obs[n]
        unpack(d_hidden[n], row)
        unpack(hidden[n], out)
        for k in range(len(row)):
            row[k] = row[k] if out[k] > ZERO else ZERO
        for k in range(len(row)):
            d_base[k] += row[k]
        for i in range(_seen(window, len(places), found)):
            cell = found[i]
            code = np.int64(min(np.uint64(window[cell]), LAST_CODE)) * CHANNELS
            for j in range(places[cell, 0]):
                _add_row(d_table, places[cell, 2 + 2 * j] + code, row, places[cell, 1 + 2 * j])
        for i in range(len(d_dense)):
            feature = np.float32(window[len(places) + i]) * SCALE
            weights = d_dense[i]
            for k in range(len(row)):
                weights[k] += feature * row[k]

"""The one unusual trick of the simulator: a row of a window is copied as one unaligned 16-byte vector.

A row of 11 cells copied so writes 5 bytes too many, which the next row, or the features behind the window, overwrite.
Applies where `fits(vision)`; `observe.py` has plain loops that write the same bytes for every other case.
"""

from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from particle_grid.sim.state import AGENT_1, FEATURES

LANES = 16
BYTE = ir.IntType(8)
VECTOR = ir.VectorType(BYTE, LANES)


def fits(vision: int) -> bool:
    """Whether a window's row fits into a vector, and its overhang into the features behind the window."""
    side = 2 * vision + 1
    return side <= LANES <= side + FEATURES and not numba.config.DISABLE_JIT


def _pointer(context: Any, builder: ir.IRBuilder, kind: Any, array: Any, index: ir.Value) -> ir.Value:
    """Pointer to the LANES bytes that start at a flat index of a contiguous uint8 array."""
    data = arrayobj.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), VECTOR.as_pointer())


def _lanes(byte: int) -> ir.Constant:
    return ir.Constant(VECTOR, [byte] * LANES)


def _splat(builder: ir.IRBuilder, byte: ir.Value) -> ir.Value:
    """A vector of one byte known at run time."""
    first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), byte, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(VECTOR, ir.Undefined), zeros)


def _count(builder: ir.IRBuilder, hits: ir.Value, valid: ir.Value) -> ir.Value:
    """How many of the lanes `hits` (1 bit each) are set, among those of the bit mask `valid`."""
    mask = builder.and_(builder.bitcast(hits, ir.IntType(LANES)), builder.trunc(valid, ir.IntType(LANES)))
    popcount = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.IntType(LANES), [ir.IntType(LANES)]), f"llvm.ctpop.i{LANES}"
    )
    return builder.zext(builder.call(popcount, [mask]), ir.IntType(64))


@intrinsic
def copy_row(typing_context, target, at, source, start):
    """Copies LANES bytes from source[start:] to target[at:], flat indices into contiguous uint8 arrays."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kinds = signature.args
        cells = builder.load(_pointer(context, builder, kinds[2], args[2], args[3]), align=1)
        builder.store(cells, _pointer(context, builder, kinds[0], args[0], args[1]), align=1)
        return context.get_dummy_value()

    return types.void(target, at, source, start), generate


@intrinsic
def copy_row_counting(typing_context, target, at, source, start, own, valid):
    """As `copy_row`; returns (cells equal to `own`, cells that are agents) among the lanes of the bit mask `valid`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kinds = signature.args
        cells = builder.load(_pointer(context, builder, kinds[2], args[2], args[3]), align=1)
        builder.store(cells, _pointer(context, builder, kinds[0], args[0], args[1]), align=1)
        equal = builder.icmp_unsigned("==", cells, _splat(builder, args[4]))
        agent = builder.icmp_unsigned(">=", cells, _lanes(AGENT_1))
        counts = [_count(builder, hits, args[5]) for hits in (equal, agent)]
        return context.make_tuple(builder, signature.return_type, counts)

    signature = types.UniTuple(types.int64, 2)(target, at, source, start, types.uint8, types.int64)
    return signature, generate

"""Machine instructions that Numba does not expose: vector copies of a window, and prefetches.

A row of a window is copied as one unaligned 16-byte vector. A row of 11 cells therefore writes 5 bytes too many, which
the next row, or the features after the window, overwrite. Agents are counted while their row is in a register: a byte
shuffle maps each cell to its contribution, and one sum over the rows yields both counts. (Comparing vectors would
produce masks, and processors with AVX-512 produce only one or two masks per cycle.)

The vector path is used where `fits(vision)`; `window.py` has plain loops that write the same bytes everywhere else.
"""

import platform
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from particle_grid.sim.observation import FEATURES
from particle_grid.sim.world import AGENT_1, CODES

LANES = 16
BYTE, WORD = ir.IntType(8), ir.IntType(64)
INDEX = ir.IntType(32)
ROW, WORDS = ir.VectorType(BYTE, LANES), ir.VectorType(WORD, 2)
OWN, AGENT = 16, 1  # contributions of a cell to the counts of its lane: a byte holds up to 15 rows of each


def fits(vision: int) -> bool:
    """Return whether a row of the window fits into a vector and its overhang into the features, on this processor."""
    side = 2 * vision + 1
    one_word = FEATURES == 7  # and a cell, which `window.look` stores together
    return one_word and _shuffles() and not numba.config.DISABLE_JIT and side < LANES <= side + FEATURES


def _shuffles() -> bool:
    """Return whether the processor that Numba compiles for has the 16-byte shuffle of SSSE3."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    if numba.config.CPU_NAME or numba.config.CPU_FEATURES:
        return "+ssse3" in (numba.config.CPU_FEATURES or "")
    return bool(binding.get_host_cpu_features().get("ssse3"))


def _pointer(context: Any, builder: ir.IRBuilder, kind: Any, array: Any, index: ir.Value, to: ir.Type) -> ir.Value:
    """Return a pointer to the data at a flat index of a contiguous uint8 array."""
    data = arrayobj.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def _instruction(builder: ir.IRBuilder, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
    """Emit a machine instruction by its LLVM name."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _lanes(values: list[int]) -> ir.Constant:
    return ir.Constant(ROW, values)


@intrinsic
def copy_row(typing_context, target, at, source, start):
    """Copy LANES bytes from source[start:] to target[at:], by flat indices into contiguous uint8 arrays."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kinds = signature.args
        cells = builder.load(_pointer(context, builder, kinds[2], args[2], args[3], ROW), align=1)
        builder.store(cells, _pointer(context, builder, kinds[0], args[0], args[1], ROW), align=1)
        return context.get_dummy_value()

    return types.void(target, at, source, start), generate


@intrinsic
def copy_window(typing_context, target, at, source, start, stride, rows, colour):
    """Copy the rows of a window from source[start:], `stride` apart, to consecutive bytes of target[at:].

    `rows` is an array with as many axes as the window has rows. Returns 2**32 times the number of cells of `colour` in
    the window, plus the number of cells that are agents.
    """
    side = rows.ndim

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kinds, start = signature.args, args[3]
        if side == 1:  # for plain loops this is compiled but never run; the processor may lack the shuffle
            return WORD(0)
        tables = [[(AGENT if k >= AGENT_1 else 0) + (OWN if k == c else 0) for k in range(LANES)] for c in range(CODES)]
        constant = ir.Constant(ir.ArrayType(ROW, CODES), [_lanes(table) for table in tables])
        name = "particle_grid.tables"
        known = builder.module.globals.get(name)
        constants = known or cgutils.global_constant(builder.module, name, constant)
        table = builder.load(builder.gep(constants, [INDEX(0), builder.zext(args[6], INDEX)]), align=1)
        counts = _lanes([0] * LANES)
        for row in range(side):
            cells = builder.load(_pointer(context, builder, kinds[2], args[2], start, ROW), align=1)
            to = builder.add(args[1], WORD(row * side))
            builder.store(cells, _pointer(context, builder, kinds[0], args[0], to, ROW), align=1)
            counts = builder.add(counts, _instruction(builder, "llvm.x86.ssse3.pshuf.b.128", ROW, table, cells))
            start = builder.add(start, args[4])
        agents = builder.and_(counts, _lanes([15] * side + [0] * (LANES - side)))
        own = builder.and_(builder.lshr(counts, _lanes([4] * LANES)), _lanes([15] * side + [0] * (LANES - side)))
        sums = [_instruction(builder, "llvm.x86.sse2.psad.bw", WORDS, x, _lanes([0] * LANES)) for x in (agents, own)]
        both = builder.or_(sums[0], builder.shl(sums[1], ir.Constant(WORDS, [32, 32])))
        return builder.add(*[builder.extract_element(both, INDEX(half)) for half in (0, 1)])

    return types.int64(target, at, source, start, stride, rows, types.uint8), generate


@intrinsic
def store_word(typing_context, target, at, word):
    """Write the eight bytes of a uint64 to target[at:], lowest byte first."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], WORD)
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(target, at, types.uint64), generate


@intrinsic
def prefetch(typing_context, array, at):
    """Start to fetch array[at] from memory, because it will be written soon."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], BYTE)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, INDEX, INDEX, INDEX])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        # The flags mean: for writing, into the nearest cache, data rather than code.
        builder.call(function, [pointer, INDEX(1), INDEX(3), INDEX(1)])
        return context.get_dummy_value()

    return types.void(array, at), generate

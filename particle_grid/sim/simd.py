"""The unusual tricks of the simulator, each a few machine instructions that Numba has no words for.

A row of a window is copied as one unaligned 16-byte vector: one of 11 cells so writes 5 bytes too many, which the next
row, or the features behind the window, overwrite. The agents in it are counted on the way, in the register that holds
the row: a comparison of vectors would make masks, of which a processor with AVX-512 makes one or two a cycle; a table
of 16 bytes, looked up by cell code, says at once whether a cell counts, and two instructions a row suffice.

All this applies where `fits(vision)`; `observe.py` has plain loops that write the same bytes for every other case.
"""

import platform
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

from particle_grid.sim.world import AGENT_1, CODES, FEATURES

LANES = 16
BYTE, WORD, INDEX = ir.IntType(8), ir.IntType(64), ir.IntType(32)
ROW, WORDS = ir.VectorType(BYTE, LANES), ir.VectorType(WORD, 2)
OWN, AGENT = 16, 1  # what a cell adds to the count of its lane: up to 15 rows of each fit into a byte


def fits(vision: int) -> bool:
    """Whether a window's row fits into a vector, its overhang into the features, and Numba has words for it here."""
    side = 2 * vision + 1
    return _shuffles() and not numba.config.DISABLE_JIT and side < LANES <= side + FEATURES


def _shuffles() -> bool:
    """Whether Numba compiles for a processor that looks 16 bytes up at once (SSSE3): this one, or the one asked for."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    if numba.config.CPU_NAME or numba.config.CPU_FEATURES:
        return "+ssse3" in (numba.config.CPU_FEATURES or "")
    return bool(binding.get_host_cpu_features().get("ssse3"))


def _pointer(context: Any, builder: ir.IRBuilder, kind: Any, array: Any, index: ir.Value, to: ir.Type) -> ir.Value:
    """Pointer to what starts at a flat index of a contiguous uint8 array."""
    data = arrayobj.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), to.as_pointer())


def _instruction(builder: ir.IRBuilder, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
    """A machine instruction, by its name in LLVM."""
    kind = ir.FunctionType(result, [arg.type for arg in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _lanes(values: list[int]) -> ir.Constant:
    return ir.Constant(ROW, values)


@intrinsic
def copy_row(typing_context, target, at, source, start):
    """Copies LANES bytes from source[start:] to target[at:], flat indices into contiguous uint8 arrays."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kinds = signature.args
        cells = builder.load(_pointer(context, builder, kinds[2], args[2], args[3], ROW), align=1)
        builder.store(cells, _pointer(context, builder, kinds[0], args[0], args[1], ROW), align=1)
        return context.get_dummy_value()

    return types.void(target, at, source, start), generate


@intrinsic
def copy_window(typing_context, target, at, source, start, stride, rows, colour):
    """Copies as many rows as the array `rows` has axes from source[start:], `stride` apart, to target[at:], one behind
    the other, and returns 2**32 times the cells of `colour` in them plus the cells that are agents."""
    side = rows.ndim

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        kinds, start = signature.args, args[3]
        if side == 1:  # plain loops are taken, where this is compiled and never run; the processor may lack the words
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
    """Writes the eight bytes of a uint64, the lowest first, to target[at:]."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], WORD)
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(target, at, types.uint64), generate


@intrinsic
def prefetch(typing_context, array, at):
    """Begins to fetch array[at], which will be written soon, from memory."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1], BYTE)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, INDEX, INDEX, INDEX])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(function, [pointer, INDEX(1), INDEX(3), INDEX(1)])  # to write, keep it near, data
        return context.get_dummy_value()

    return types.void(array, at), generate

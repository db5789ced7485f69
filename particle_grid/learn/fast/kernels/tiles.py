"""A register tile: the innermost part of every matrix product of the fast path, as an LLVM intrinsic.

A tile keeps ROWS x COLUMNS partial sums in vector registers while it walks down the shared dimension. Elements of the
left matrix are broadcast and rows of the right one are loaded as vectors, so only the right matrix needs a special
layout. Unlike calls of a library, tiles are as fast for 8 rows as for 512, and whole passes of a network can be
compiled around them.

Matrices hold *words*: float32 numbers, or pairs of bf16 numbers, of which the first is in the lower half. A tile of
pairs needs the instruction `vdpbf16ps` (AVX512-BF16: Zen 4, Sapphire Rapids and later). It adds the products of both
halves in float32. Tiles of float32 compile for any processor.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16  # float32 numbers in a vector; LLVM splits vectors that the processor does not have


def _features() -> set[str]:
    """Return the features of the processor that Numba compiles for."""
    chosen = numba.config.CPU_FEATURES  # set by the variable NUMBA_CPU_FEATURES
    if chosen is not None:
        return {name[1:] for name in chosen.split(",") if name.startswith("+")}
    return {name for name, present in llvm.get_host_cpu_features().items() if present}


FEATURES = _features()
HAS_BF16 = "avx512bf16" in FEATURES
HAS_AMX = "amx-bf16" in FEATURES
# As many vectors of sums as registers hold, beside one row of the right matrix: 32 of 512 bits, 16 of 256 (AVX), 32 of
# 128 (ARM), or 16 of 128 as in WebAssembly.
ROWS = 8 if "avx512f" in FEATURES else 4 if FEATURES & {"avx", "neon"} else 2
VECTORS = 2 if "avx512f" in FEATURES else 1
COLUMNS = VECTORS * LANES

_F32 = ir.FloatType()
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_FLOATS = ir.VectorType(_F32, LANES)
_PAIRS = ir.VectorType(_I32, LANES)


class _Tile:
    """Emits the code of one tile.

    Args:
        context, builder, signature, arguments: as numba passes them to the generator of an intrinsic.
        bf16: whether words are pairs of bf16 numbers.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any, bf16: bool) -> None:
        self.builder = builder
        self.bf16 = bf16
        self.word = _I32 if bf16 else _F32
        self.vector = _PAIRS if bf16 else _FLOATS
        names = "a", "a_at", "a_row", "a_k", "b", "b_at", "b_row", "c", "c_at", "c_row", "depth", "add"
        self.given = dict(zip(names, arguments, strict=True))
        kinds = dict(zip(names, signature.args, strict=True))

        def start(name: str, word: ir.Type) -> Any:
            data = context.make_array(kinds[name])(context, builder, self.given[name]).data
            return builder.gep(builder.bitcast(data, word.as_pointer()), [self.given[f"{name}_at"]])

        self.a = start("a", self.word)
        self.b = start("b", self.word)
        self.c = start("c", _F32)
        self.sums = [[cgutils.alloca_once(builder, _FLOATS) for _ in range(VECTORS)] for _ in range(ROWS)]

    def emit(self) -> None:
        """Emit the whole tile."""
        builder = self.builder
        with builder.if_else(builder.trunc(self.given["add"], ir.IntType(1))) as (add, clear):
            with add:
                self._for_each_sum(
                    lambda r, v: builder.store(builder.load(self._result(r, v), align=4), self.sums[r][v])
                )
            with clear:
                zero = ir.Constant(_FLOATS, [0.0] * LANES)
                self._for_each_sum(lambda r, v: builder.store(zero, self.sums[r][v]))
        rows = [builder.gep(self.a, [builder.mul(self.given["a_row"], _I64(r))]) for r in range(ROWS)]
        with cgutils.for_range(builder, self.given["depth"], intp=_I64) as loop:
            self._add_products(rows, loop.index)
        self._for_each_sum(lambda r, v: builder.store(builder.load(self.sums[r][v]), self._result(r, v), align=4))

    def _for_each_sum(self, body: Callable[[int, int], Any]) -> None:
        for row in range(ROWS):
            for v in range(VECTORS):
                body(row, v)

    def _result(self, row: int, v: int) -> Any:
        """Return the pointer to a vector of the result."""
        offset = self.builder.add(self.builder.mul(self.given["c_row"], _I64(row)), _I64(v * LANES))
        return self.builder.bitcast(self.builder.gep(self.c, [offset]), _FLOATS.as_pointer())

    def _add_products(self, rows: list[Any], k: Any) -> None:
        """Emit the products of word k of each row of a with row k of b."""
        builder = self.builder
        b_k = builder.gep(self.b, [builder.mul(k, self.given["b_row"])])
        parts = [builder.gep(b_k, [_I64(v * LANES)]) for v in range(VECTORS)]
        columns = [builder.load(builder.bitcast(part, self.vector.as_pointer()), align=4) for part in parts]
        offset = builder.mul(k, self.given["a_k"])
        for row, sums in zip(rows, self.sums, strict=True):
            same = self._broadcast(builder.load(builder.gep(row, [offset]), align=4))
            for total, column in zip(sums, columns, strict=True):
                builder.store(self._multiply_add(same, column, builder.load(total)), total)

    def _broadcast(self, word: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, word, _I32(0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(_PAIRS, [0] * LANES))

    def _multiply_add(self, a: Any, b: Any, total: Any) -> Any:
        kinds = [_FLOATS, self.vector, self.vector] if self.bf16 else [_FLOATS] * 3
        name = "llvm.x86.avx512bf16.dpbf16ps.512" if self.bf16 else "llvm.fmuladd.v16f32"
        function = cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(_FLOATS, kinds), name)
        return self.builder.call(function, [total, a, b] if self.bf16 else [a, b, total])


@intrinsic
def tile(typing_context, a, a_at, a_row, a_k, b, b_at, b_row, c, c_at, c_row, depth, add):
    """Compute c[ROWS, COLUMNS] (+)= a[ROWS, depth] @ b[depth, COLUMNS].

    Args:
        a, b: flat memory of words: float32 arrays, or uint16 or uint32 arrays of bf16.
        c: a float32 array.
        a_at, b_at, c_at: where each block starts, in words.
        a_row, a_k: distance in words between rows of a, and between words along the shared dimension. Thus a may be a
            transposed matrix.
        b_row, c_row: distance between rows of b and of c.
        depth: words along the shared dimension.
        add: whether to add to what is in c.
    """
    bf16 = a.dtype != types.float32

    def generate(context, builder, signature, args):
        _Tile(context, builder, signature, args, bf16).emit()

    return types.void(a, a_at, a_row, a_k, b, b_at, b_row, c, c_at, c_row, depth, add), generate

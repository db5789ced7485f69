"""How arrays and numbers reach compiled kernels: records in memory that are read back as named tuples.

A record is a sequence of words of 64 bits. A number is one word, an array one with its address and one for each length,
and a named tuple the words of its fields. Shapes are thus chosen when a kernel runs, and one module serves worlds of
any size.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np import arrayobj

WORD = ir.IntType(64)


def reader(kind: types.Type) -> Callable[[int], Any]:
    """Return a function for kernels that returns the value of a type in the record at an address."""

    @intrinsic
    def read(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            words = builder.inttoptr(builder.zext(args[0], WORD), WORD.as_pointer())
            return _Record(context, builder, words).value(kind)

        return kind(types.int32), generate

    return read


class _Record:
    """Emits code that reads a record from its first word to its last."""

    def __init__(self, context: Any, builder: ir.IRBuilder, words: ir.Value) -> None:
        self.context = context
        self.builder = builder
        self.words = words
        self.at = 0

    def value(self, kind: types.Type) -> ir.Value:
        """Return the next value."""
        if isinstance(kind, types.BaseTuple):
            return self.context.make_tuple(self.builder, kind, [self.value(each) for each in kind])
        if isinstance(kind, types.Array):
            return self._array(kind)
        word = self._word()
        if kind == types.float64:
            return self.builder.bitcast(word, ir.DoubleType())
        if kind == types.float32:
            return self.builder.bitcast(self.builder.trunc(word, ir.IntType(32)), ir.FloatType())
        return self.builder.trunc(word, ir.IntType(1)) if kind == types.boolean else word

    def _word(self) -> ir.Value:
        pointer = self.builder.gep(self.words, [WORD(self.at)])
        self.at += 1
        return self.builder.load(pointer, align=8)

    def _array(self, kind: types.Array) -> ir.Value:
        context, builder = self.context, self.builder
        element = context.get_data_type(kind.dtype)
        data = builder.inttoptr(self._word(), element.as_pointer())
        shape = [self._word() for _ in range(kind.ndim)]
        itemsize = WORD(context.get_abi_sizeof(element))
        strides = [itemsize]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        array = arrayobj.make_array(kind)(context, builder)
        arrayobj.populate_array(array, data, shape, strides, itemsize, meminfo=None)
        return array._getvalue()

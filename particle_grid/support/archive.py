"""Check an archive before `torch.load` reads it: it may hold tensors, numbers and strings in dicts, lists and tuples.

`torch.load` runs no foreign code with weights_only, but a crafted file can still make it allocate gigabytes, return
views that are larger than their data, or overflow the stack. A file that passes this check yields no more data than it
contains, in no other form than `torch.save` writes.
"""

import io
import math
import pickletools
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LARGEST_PICKLE = 1 << 22  # bytes; ten thousand tensors need a quarter of this, and each byte may become an object
DEEPEST = 32  # containers within containers; code that walks through them recurses
MOST_AXES = 32
DTYPES = {
    "torch BoolStorage": torch.bool,
    "torch ByteStorage": torch.uint8,
    "torch CharStorage": torch.int8,
    "torch ShortStorage": torch.int16,
    "torch IntStorage": torch.int32,
    "torch LongStorage": torch.int64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch.storage UntypedStorage": torch.uint8,  # used for the following dtypes, which the tensor itself names
    "torch uint16": torch.uint16,
    "torch uint32": torch.uint32,
    "torch uint64": torch.uint64,
}
PLAIN = (type(None), bool, int, float, str)


def check(content: bytes | memoryview) -> None:
    """Raise an exception, usually ValueError, for anything that `torch.save` does not write. No tensor is read."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        members = {info.filename: info for info in infos}
        stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
        if not stored or sum(info.file_size for info in infos) > len(content):
            raise ValueError("it unpacks to more than it holds")
        if len(members) < len(infos):
            raise ValueError("it holds two members of one name")
        folder = infos[0].filename.partition("/")[0]
        if members[f"{folder}/data.pkl"].file_size > LARGEST_PICKLE:
            raise ValueError("it describes too many objects")
        if archive.read(f"{folder}/byteorder").decode() != sys.byteorder:
            raise ValueError("it was saved on a machine with another byte order")
        machine = _Machine(lambda key: members[f"{folder}/data/{key}"], archive.read)
        _check(machine.run(archive.read(f"{folder}/data.pkl")))


class _Machine:
    """Runs the instructions of pickle's protocol 2 that `torch.save` writes, with tensors that have no data.

    Args:
        member: returns the archive's entry of a storage.
        read: returns the bytes of an entry.
    """

    def __init__(self, member: Callable[[str], zipfile.ZipInfo], read: Callable[[zipfile.ZipInfo], bytes]) -> None:
        self.member = member
        self.read = read
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Tensor] = {}
        self.globals = DTYPES | {
            "collections OrderedDict": dict,
            "torch._utils _rebuild_tensor_v2": _strided,
            "torch._utils _rebuild_tensor_v3": _strided,
        }

    def run(self, pickled: bytes) -> Any:
        """Return the one object that the instructions create."""
        argument: Any  # a number, text or None, depending on the instruction
        for opcode, argument, _ in pickletools.genops(pickled):
            match opcode.name:
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                    self.stack.append(argument)
                case "BINUNICODE":
                    argument.encode()  # raises for half a surrogate pair, which cannot be printed or written
                    self.stack.append(argument)
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
                case "GLOBAL":
                    self.stack.append(self.globals[argument])
                case "BINPUT" | "LONG_BINPUT":
                    self.memo[argument] = self.stack[-1]
                case "BINGET" | "LONG_BINGET":
                    self.stack.append(self._remembered(argument))
                case "MARK":
                    self.marks.append(len(self.stack))
                case "BINPERSID":
                    self.stack.append(self._storage(*self._take(1)[0]))
                case "REDUCE":
                    function, arguments = self._take(2)
                    self.stack.append(function(*arguments))
                case "PROTO" | "STOP":
                    pass
                case name:
                    self._contain(name)
        [value] = self.stack
        return value

    def _contain(self, name: str) -> None:
        """Create or fill a container."""
        match name:
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                self.stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(self._take(int(name[-1]))))
            case "TUPLE":
                self.stack.append(tuple(self._since_mark()))
            case "APPEND" | "APPENDS":
                values = self._take(1) if name == "APPEND" else self._since_mark()
                self.stack[-1].extend(values)
            case "SETITEM" | "SETITEMS":
                values = self._take(2) if name == "SETITEM" else self._since_mark()
                keys = values[::2]
                if not all(isinstance(key, str | int) for key in keys):
                    raise ValueError("it holds a key that is neither text nor a number")
                self.stack[-1].update(zip(keys, values[1::2], strict=True))
            case _:
                raise ValueError(f"it holds the instruction {name}")

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("it uses objects that it has not created")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def _remembered(self, place: int) -> Any:
        """Return an object again. Containers may not repeat: thirty nested lists of two could stand for a billion."""
        value = self.memo[place]
        if isinstance(value, dict | list | tuple):
            raise ValueError("it holds a container twice")
        return value

    def _storage(self, _: str, dtype: torch.dtype, key: str, device: str, count: int) -> Tensor:
        """Return a flat tensor without data that stands for a storage."""
        if key not in self.storages:
            member = self.member(key)
            if member.file_size != count * dtype.itemsize:
                raise ValueError(f"its storage {key} has the wrong size")
            if dtype is torch.bool and max(self.read(member), default=0) > 1:
                raise ValueError("it holds booleans that are neither true nor false")
            self.storages[key] = torch.empty(count, dtype=dtype, device="meta")
        return self.storages[key]


def _strided(
    storage: Tensor,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    hooks: object,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return a tensor without data that stands for a view of a storage, no larger than the storage."""
    flat = storage if dtype is None else storage.view(dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    count = math.prod(size, start=1)
    if len(size) > MOST_AXES or count > flat.numel() or (count and last >= flat.numel()):
        raise ValueError("it holds a tensor that is larger than its data")
    return flat.as_strided(size, stride, offset)  # raises for negative numbers


def _check(value: Any) -> None:
    """Raise ValueError for objects that are not data, and for containers that are nested too deeply."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for x in level:
            if type(x) in (dict, list, tuple):
                inner.extend(x.values() if type(x) is dict else x)
            elif type(x) not in PLAIN and not isinstance(x, Tensor):
                raise ValueError(f"it holds a {type(x).__name__}")
        level = inner
        if not level:
            return
    raise ValueError("its containers are nested too deeply")

"""Memory on the host that is copied to a GPU in the background, and back: page-locked, and in one block if possible.

An environment that is given `arrays_in_block` as its buffers keeps everything a policy needs in one block. One copy
then moves observations, rewards and flags together. On a machine without a GPU, this is ordinary memory.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

ALIGNMENT = 64  # bytes: a cache line, and more than any dtype needs


def host_memory(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return zeros in page-locked memory, or in ordinary memory if there is no GPU or the system refuses to lock it."""
    if torch.cuda.is_available():
        try:
            return torch.zeros(shape, dtype=dtype, pin_memory=True)
        except RuntimeError:  # copies from ordinary memory are slower, and otherwise the same
            pass
    return torch.zeros(shape, dtype=dtype)


def arrays_in_block(shapes: Mapping[str, tuple[tuple[int, ...], DTypeLike]]) -> dict[str, np.ndarray]:
    """Return arrays of zeros with these shapes and dtypes, all in one block of `host_memory`."""
    sizes = {name: math.prod(shape) * np.dtype(dtype).itemsize for name, (shape, dtype) in shapes.items()}
    places = np.cumsum([0, *(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes.values())])
    block = host_memory([int(places[-1])], torch.uint8).numpy()
    arrays = {}
    for first, (name, (shape, dtype)) in zip(places, shapes.items(), strict=False):
        arrays[name] = block[first : first + sizes[name]].view(dtype).reshape(shape)
    return arrays


def _block_of(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the block that all of these arrays are parts of, or None if there is none."""
    block = arrays[0].base
    if not isinstance(block, np.ndarray) or block.dtype != np.uint8 or block.ndim != 1 or not block.flags.carray:
        return None
    return block if all(x.base is block for x in arrays) else None


class DeviceCopy:
    """Arrays on a device that follow those of an environment.

    Args:
        arrays: of the environment, which are never replaced.
        device: where the copies are.

    Attributes:
        tensors: the copies, as of the last `fetch`.
    """

    def __init__(self, arrays: Sequence[np.ndarray], device: torch.device) -> None:
        self.sources = list(map(torch.from_numpy, arrays))
        block = _block_of(arrays)
        if block is None:
            self.tensors = [torch.empty_like(x, device=device) for x in self.sources]
            self.copies = list(zip(self.tensors, self.sources, strict=True))
            return
        memory = torch.from_numpy(block)
        there = torch.empty_like(memory, device=device)
        self.copies = [(there, memory)]
        self.tensors = []
        for array, source in zip(arrays, self.sources, strict=True):
            first = array.ctypes.data - block.ctypes.data
            self.tensors.append(there[first : first + array.nbytes].view(source.dtype).view(source.shape))

    def fetch(self) -> None:
        """Begin to copy the arrays. They must not change before the device has done so."""
        for there, here in self.copies:
            there.copy_(here, non_blocking=True)

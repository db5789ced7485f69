"""The memory that worlds need: the buffers that they are given, and whether there is enough for all of it."""

import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.sim.state import Shapes, state_shapes
from particle_grid.sim.world import World

GROUPS = Path("/sys/fs/cgroup")  # where Linux tells the limits of groups of processes


def buffer_shapes(world: World, action: type | np.dtype) -> Shapes:
    """The arrays that an environment shares with its caller. action: dtype of the actions."""
    n = world.worlds * world.agents
    return {
        "observations": ((n, world.row), np.uint8),
        "rewards": ((n,), np.float32),
        "terminals": ((n,), np.bool_),
        "truncations": ((n,), np.bool_),
        "masks": ((n,), np.bool_),
        "actions": ((n, 2), action),
    }


def check_buffers(buf: Any, wanted: Shapes) -> None:
    """Raises ValueError or TypeError for buffers that kernels would read or write beyond, misread, or mix up."""
    if not isinstance(buf, Mapping):
        raise TypeError(f"buf is a {type(buf).__name__}: give a dict of the arrays {', '.join(wanted)}.")
    if missing := [name for name in wanted if name not in buf]:
        raise ValueError(f"buf has no {', '.join(missing)}: give a dict of the arrays {', '.join(wanted)}.")
    for name, (shape, dtype) in wanted.items():
        array = buf[name]
        if type(array) not in (np.ndarray, np.memmap):
            raise TypeError(f"buf['{name}'] is a {type(array).__name__}: give a numpy.ndarray.")
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"buf['{name}'] is {array.dtype}{list(array.shape)}, but {shape[0]} agents need {np.dtype(dtype)}"
                f"{list(shape)}."
            )
        if not array.flags.c_contiguous:
            raise ValueError(f"buf['{name}'] is not contiguous: give a buffer whose rows follow one another.")
        if not array.flags.carray:
            raise ValueError(f"buf['{name}'] is read-only or not aligned: give a buffer that can be written.")
    for one, other in itertools.combinations(wanted, 2):
        if np.may_share_memory(buf[one], buf[other]):  # exact, since they are contiguous
            raise ValueError(f"buf['{one}'] and buf['{other}'] share memory: give each an array of its own.")


def needed(world: World) -> int:
    """Bytes of all arrays of an environment: its state and its buffers."""
    shapes = [*state_shapes(world).values(), *buffer_shapes(world, np.float32).values()]
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes)


def check_memory(world: World) -> None:
    """Raises ValueError, before anything is allocated, for worlds that need more memory than there is."""
    need, free = needed(world), available()
    if free is not None and need > free:
        raise ValueError(
            f"worlds={world.worlds} of agents={world.agents}, height={world.height} and width={world.width} need "
            f"{need / 2**30:.1f} GiB of memory, but only {free / 2**30:.1f} GiB are available: use fewer agents, or "
            f"fewer or smaller worlds."
        )


def available() -> int | None:
    """Bytes of memory that this process can still take, or may, where that is less; None where nothing tells."""
    return min([*_of_system(), *_of_groups()], default=None)


def _of_system() -> Iterator[int]:
    with suppress(OSError):  # Linux
        lines = re.findall(r"^(MemAvailable|SwapFree): +(\d+) kB", Path("/proc/meminfo").read_text("utf-8"), re.M)
        if any(name == "MemAvailable" for name, _ in lines):
            yield sum(int(kilobytes) for _, kilobytes in lines) << 10
            return
    with suppress(AttributeError, ValueError, OSError):  # macOS tells only how much is built in, Windows nothing
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_groups() -> Iterator[int]:
    """Limits of the control groups that this process is in, of either version, and of those around them."""
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = GROUPS / "memory" if controllers else GROUPS
        folder = root / place.lstrip("/")
        for group in (folder, *folder.parents):
            with suppress(OSError, ValueError):  # outside a container's view, or "max", which is no limit
                if group.is_relative_to(root):
                    yield int((group / ("memory.limit_in_bytes" if controllers else "memory.max")).read_text("utf-8"))

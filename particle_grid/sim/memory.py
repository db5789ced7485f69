"""Memory: the buffers an environment shares with its caller, and whether there is enough for all of its arrays."""

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
from particle_grid.support.errors import UserError, UserTypeError

GROUPS = Path("/sys/fs/cgroup")  # where Linux keeps the limits of control groups


def buffer_shapes(world: World, action: type | np.dtype) -> Shapes:
    """Return the shapes and dtypes of the arrays an environment shares with its caller.

    Args:
        world: the settings.
        action: dtype of the actions.
    """
    n = world.worlds * world.agents
    return {
        "observations": ((n, world.observation_size), np.uint8),
        "rewards": ((n,), np.float32),
        "terminals": ((n,), np.bool_),
        "truncations": ((n,), np.bool_),
        "masks": ((n,), np.bool_),
        "actions": ((n, 2), action),
    }


def check_buffers(buf: Any, wanted: Shapes) -> None:
    """Raise UserError for buffers that kernels could not use: of another shape or layout, read-only, or shared."""
    names = ", ".join(wanted)
    if not isinstance(buf, Mapping):
        raise UserTypeError(f"buf is a {type(buf).__name__}: give a dict of the arrays {names}.")
    if missing := [name for name in wanted if name not in buf]:
        raise UserError(f"buf has no {', '.join(missing)}: give a dict of the arrays {names}.")
    for name, (shape, dtype) in wanted.items():
        _check_buffer(f"buf['{name}']", buf[name], shape, np.dtype(dtype))
    for one, other in itertools.combinations(wanted, 2):
        if np.may_share_memory(buf[one], buf[other]):  # exact, because both are contiguous
            raise UserError(f"buf['{one}'] and buf['{other}'] share memory: give each an array of its own.")


def _check_buffer(name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if type(array) not in (np.ndarray, np.memmap):
        raise UserTypeError(f"{name} is a {type(array).__name__}: give a numpy.ndarray.")
    if array.shape != shape or array.dtype != dtype:
        raise UserError(f"{name} is {array.dtype}{list(array.shape)}, but {shape[0]} agents need {dtype}{list(shape)}.")
    if not array.flags.c_contiguous:
        raise UserError(f"{name} is not contiguous: give a C-contiguous buffer.")
    if not array.flags.carray:
        raise UserError(f"{name} is read-only or not aligned: give an aligned buffer that can be written.")


def needed(world: World) -> int:
    """Return the bytes of all arrays of an environment: its state and its buffers."""
    shapes = [*state_shapes(world).values(), *buffer_shapes(world, np.float32).values()]
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes)


def check_memory(world: World) -> None:
    """Raise UserError, before anything is allocated, for worlds that need more memory than is available."""
    need, free = needed(world), available()
    if free is not None and need > free:
        raise UserError(
            f"worlds={world.worlds} of agents={world.agents}, height={world.height} and width={world.width} need "
            f"{need / 2**30:.1f} GiB of memory, but only {free / 2**30:.1f} GiB are available: use fewer agents, or "
            f"fewer or smaller worlds."
        )


def available() -> int | None:
    """Return the bytes this process can still allocate within its limits, or None if the system does not say."""
    return min([*_system_memory(), *_group_limits()], default=None)


def _system_memory() -> Iterator[int]:
    with suppress(OSError):  # Linux
        lines = re.findall(r"^(MemAvailable|SwapFree): +(\d+) kB", Path("/proc/meminfo").read_text("utf-8"), re.M)
        if any(name == "MemAvailable" for name, _ in lines):
            yield sum(int(kilobytes) for _, kilobytes in lines) << 10
            return
    with suppress(AttributeError, ValueError, OSError):  # macOS reports only installed memory, Windows nothing
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _group_limits() -> Iterator[int]:
    """Yield the limits of the control groups (version 1 or 2) that contain this process."""
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
            with suppress(OSError, ValueError):  # hidden by a container, or "max", which means no limit
                if group.is_relative_to(root):
                    yield int((group / ("memory.limit_in_bytes" if controllers else "memory.max")).read_text("utf-8"))

"""How every kernel of the package is compiled, and where the compiled code is kept.

Numba's own cache looks at the file of the cached function only: it goes stale when a helper or a constant in another
file changes, and a cached kernel ignores `NUMBA_BOUNDSCHECK`. So the cache folder is named by a hash of all kernel
sources and of that flag: what changes the machine code changes the folder.

It also numbers the files of a function's versions, and writes the index before the file: a process that looks in
between, or two that compile at the same time, get what was compiled for *other* types, and run it. So each file gets a
name that nothing else ever had.
"""

import functools
import hashlib
import multiprocessing
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any
from uuid import uuid4
from weakref import WeakSet

import numba
import numba.core.caching
import numba.np.ufunc.parallel
from numba import prange

__all__ = ["kernel", "math_kernel", "parallel_kernel", "prange"]

PACKAGE = Path(__file__).parents[1]
FEW_AGENTS = 8192  # fewer are left to one thread


def _kernel_sources() -> list[Path]:
    """Files whose text decides machine code: the simulator, and whatever else compiles through this module."""
    files = sorted(PACKAGE.rglob("*.py"))
    return [
        file for file in files if file.parent.name == "sim" or "particle_grid.support.jit" in file.read_text("utf-8")
    ]


def _places() -> Iterator[Path]:
    """Where compiled kernels may be kept, the best place first: in NUMBA_CACHE_DIR if set, else in the user's cache, or
    in the temporary folder where nobody else can write to it: Numba runs what it finds."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen)
        return
    with suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "particle_grid"
    user = os.getuid() if hasattr(os, "getuid") else 0  # where there are none, each has a temporary folder
    folder = Path(tempfile.gettempdir()) / f"particle_grid-{user}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if os.name == "nt" or (status.st_uid == user and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            yield folder


def cache_folder() -> Path:
    """Folder for compiled kernels. Raises OSError where none can be written."""
    digest = hashlib.sha256(f"boundscheck={os.environ.get('NUMBA_BOUNDSCHECK', '')}".encode())
    for file in _kernel_sources():
        digest.update(file.read_bytes())
    for place in _places():
        folder = place / digest.hexdigest()[:16]
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    chosen = os.environ.get("NUMBA_CACHE_DIR", "in the user's cache or the temporary folder")
    raise OSError(f"No folder for compiled kernels can be written ({chosen}): set NUMBA_CACHE_DIR to one that can.")


def _tell(error: OSError, otherwise: Callable[..., Any], kind: type, value: BaseException, traceback: Any) -> None:
    """A `sys.excepthook` that needs one line for an error that no program can do anything about, and ends them all."""
    if value is error:
        print(f"error: {error}", file=sys.stderr)
    else:
        otherwise(kind, value, traceback)


try:
    numba.config.CACHE_DIR = str(cache_folder())
except OSError as error:  # here the commands are still being imported
    sys.excepthook = functools.partial(_tell, error, sys.excepthook)
    raise
numba.core.caching.IndexDataCacheFile._data_name = lambda self, number: (
    f"{self._index_name[:-4]}.{uuid4().hex[:16]}.nbc"
)

# error_model="numpy": Python's check for division by zero would keep loops from vectorising. _nrt=False: references to
# arrays are not counted, by atomic operations that cost more than most kernels do; so a kernel cannot make arrays.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
kernel = numba.njit(**_OPTIONS, forceinline=True, _nrt=False)
_parallel = numba.njit(**_OPTIONS, parallel=True)
# Of networks, whose sums may be made in any order, since no two processors agree on them anyway.
math_kernel = numba.njit(**_OPTIONS, fastmath=True)


def _twin(function: Callable[..., Any]) -> FunctionType:
    """A copy under another name: Numba's cache tells functions apart by name and line, not by their options."""
    name = function.__name__ + "_parallel"
    copy = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__qualname__, copy.__module__, copy.__doc__ = name, function.__module__, function.__doc__
    return copy


def _start_threads() -> None:
    """Start Numba's threads, and keep the number of threads that torch had.

    Where OpenMP runs them, torch may share it, and starting sets its number for both."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    numba.get_num_threads()
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


_start_threads()  # at import, so that nothing that runs later depends on who starts them
# The public function takes a lock each time, and with it as long as a hundred agents' step.
_get_num_threads: Callable[[], int] = getattr(numba.np.ufunc.parallel, "_get_num_threads", numba.get_num_threads)
_worker = [multiprocessing.parent_process() is not None]  # whether another process started this one
_pools: WeakSet["Pool"] = WeakSet()


class Pool(ThreadPoolExecutor):
    """Threads that begin with `initializer`. A forked process starts its own: it has none of its parent's, which it
    would wait for."""

    def __init__(self, count: int, initializer: Callable[..., object], *initargs: Any) -> None:
        self._settings: dict[str, Any] = {"max_workers": count, "initializer": initializer, "initargs": initargs}
        self.begin()
        _pools.add(self)

    def begin(self) -> None:
        """Forget the threads there were."""
        super().__init__(**self._settings)


def _after_fork() -> None:
    _worker[0] = True
    for pool in _pools:
        pool.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def threads(agents: int) -> int:
    """How many threads share the work on so many agents out.

    Several are taken only where there is enough to share: what one thread has in its cache, another has to fetch. A
    process that another one started keeps to one: it shares the machine with its siblings, and a thread pool that was
    already running when it was forked cannot be used in the child."""
    return 1 if agents < FEW_AGENTS or _worker[0] else _get_num_threads()


def similar_thread() -> Pool:
    """Return a thread whose kernels use as many threads as those of this one: Numba counts them for each thread."""
    return Pool(1, numba.set_num_threads, numba.get_num_threads())


class ParallelKernel:
    """A function with a `prange`, compiled when it is first needed for one thread, and for several.

    When called by itself its first argument is an array with an entry for each agent, which says how many there are."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.serial, self.parallel = kernel(function), _parallel(_twin(function))
        self.__name__, self.__doc__ = function.__name__, function.__doc__

    def __call__(self, first: Any, *rest: Any) -> Any:
        return (self.serial if threads(len(first)) == 1 else self.parallel)(first, *rest)


parallel_kernel = ParallelKernel


def entry(dispatcher: Any, *examples: Any) -> Callable[..., Any]:
    """The machine code of a kernel for arguments of the types of `examples`. Calling it costs 0.4 us where the kernel
    itself takes 4 us to look at a `State`, and *checks nothing*: it is for arguments whose types never change."""
    if not hasattr(dispatcher, "get_overload"):  # NUMBA_DISABLE_JIT
        return dispatcher
    signature = tuple(numba.typeof(example) for example in examples)
    dispatcher.compile(signature)
    return dispatcher.get_overload(signature)

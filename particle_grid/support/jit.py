"""How every kernel of the package is compiled, and where the compiled code is cached.

Numba's own cache checks only the file of the cached function. It goes stale when a helper or a constant in another file
changes, and cached kernels ignore `NUMBA_BOUNDSCHECK`. The cache folder is therefore named after a hash of all kernel
sources and of that flag.

Numba also numbers the files of a function's versions, and writes the index before the file. A process that reads in
between, or two that compile at the same time, would load and run code compiled for *other* types. Each file therefore
gets a unique name.
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
KERNEL_IMPORTS = ("particle_grid.support.jit", "particle_grid.tasks")  # modules that kernels are decorated with
FEW_AGENTS = 8192  # fewer are handled by one thread


def _kernel_sources() -> list[Path]:
    """Return the files whose text decides machine code: the simulator, and any file that defines kernels."""
    return [file for file in sorted(PACKAGE.rglob("*.py")) if _defines_kernels(file)]


def _defines_kernels(file: Path) -> bool:
    text = file.read_text("utf-8")
    return file.parent.name == "sim" or any(module in text for module in KERNEL_IMPORTS)


def _places() -> Iterator[Path]:
    """Yield where compiled kernels may be cached, best place first.

    That is NUMBA_CACHE_DIR if set, otherwise the user's cache, and then the temporary folder if no other user can
    write there, because Numba runs what it finds.
    """
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen)
        return
    with suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "particle_grid"
    user = os.getuid() if hasattr(os, "getuid") else 0  # without user ids, each user has a temporary folder
    folder = Path(tempfile.gettempdir()) / f"particle_grid-{user}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if os.name == "nt" or (status.st_uid == user and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            yield folder


def cache_folder() -> Path:
    """Return the folder for compiled kernels; raise OSError if none is writable."""
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
    """Print one line for `error`, which ends any program; other exceptions are shown as before (a `sys.excepthook`)."""
    if value is error:
        print(f"error: {error}", file=sys.stderr)
    else:
        otherwise(kind, value, traceback)


try:
    numba.config.CACHE_DIR = str(cache_folder())
except OSError as error:  # raised while a command is still being imported, before it could report it
    sys.excepthook = functools.partial(_tell, error, sys.excepthook)
    raise
numba.core.caching.IndexDataCacheFile._data_name = lambda self, number: (
    f"{self._index_name[:-4]}.{uuid4().hex[:16]}.nbc"
)

# error_model="numpy": Python's check for division by zero would prevent vectorisation. _nrt=False: references to arrays
# are not counted, because the atomic operations cost more than most kernels do; so kernels cannot allocate arrays.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
kernel = numba.njit(**_OPTIONS, forceinline=True, _nrt=False)
_parallel = numba.njit(**_OPTIONS, parallel=True)
# For networks, whose sums may be reordered: no two processors agree on them anyway. Without forceinline, a process that
# compiles would call other copies of helpers, with other orders of sums, than one that loads the result from the cache.
math_kernel = numba.njit(**_OPTIONS, fastmath=True, forceinline=True)


def _twin(function: Callable[..., Any]) -> FunctionType:
    """Return a copy under another name: Numba's cache tells functions apart by name and line, not by options."""
    name = function.__name__ + "_parallel"
    copy = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, function.__closure__)
    copy.__qualname__, copy.__doc__ = name, function.__doc__
    copy.__module__ = function.__module__
    return copy


def _start_threads() -> None:
    """Start Numba's threads without changing the number of threads of torch, with which it may share OpenMP."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    numba.get_num_threads()
    if torch and torch.get_num_threads() != before:
        torch.set_num_threads(before)


_start_threads()  # at import, so that nothing later depends on when they are started
# The public function takes a lock each time, which takes as long as the step of a hundred agents.
_get_num_threads: Callable[[], int] = getattr(numba.np.ufunc.parallel, "_get_num_threads", numba.get_num_threads)
_worker = [multiprocessing.parent_process() is not None]  # whether another process started this one
_pools: WeakSet["Pool"] = WeakSet()


class Pool(ThreadPoolExecutor):
    """Threads that call `initializer` first. A forked process starts its own, because it has none of its parent's."""

    def __init__(self, count: int, initializer: Callable[..., object], *initargs: Any) -> None:
        self._settings: dict[str, Any] = {"max_workers": count, "initializer": initializer, "initargs": initargs}
        self.begin()
        _pools.add(self)

    def begin(self) -> None:
        """Start over without threads."""
        super().__init__(**self._settings)


def _after_fork() -> None:
    _worker[0] = True
    for pool in _pools:
        pool.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def threads(agents: int) -> int:
    """Return how many threads share the work for that many agents.

    Several are used only if there is enough to share, because each has to fetch what another has in its cache. A child
    process uses one: it shares the machine with its siblings, and a thread pool that was running when it was forked
    cannot be used in the child.
    """
    return 1 if agents < FEW_AGENTS or _worker[0] else _get_num_threads()


def similar_thread() -> Pool:
    """Return a pool of one thread whose kernels use as many threads as this one's; Numba sets the number per thread."""
    return Pool(1, numba.set_num_threads, numba.get_num_threads())


class ParallelKernel:
    """A function with a `prange`, compiled on first use for one thread and for several.

    Called directly, its first argument must be an array with one entry per agent, whose length chooses between the two.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.serial, self.parallel = kernel(function), _parallel(_twin(function))
        self.__name__, self.__doc__ = function.__name__, function.__doc__

    def __call__(self, first: Any, *rest: Any) -> Any:
        return (self.serial if threads(len(first)) == 1 else self.parallel)(first, *rest)


parallel_kernel = ParallelKernel


def entry(dispatcher: Any, *examples: Any) -> Callable[..., Any]:
    """Return the machine code of a kernel for arguments of the types of `examples`.

    Calling it costs 0.4 us, where the kernel itself takes 4 us to unpack a `State`. It *checks nothing*, so it is for
    arguments whose types never change.
    """
    if not hasattr(dispatcher, "get_overload"):  # NUMBA_DISABLE_JIT
        return dispatcher
    signature = tuple(numba.typeof(example) for example in examples)
    dispatcher.compile(signature)
    return dispatcher.get_overload(signature)

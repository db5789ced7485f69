"""No process outlives the command that started it.

A command that starts processes does so inside `leading()`. Each process that imports the package calls `follow()`,
which does nothing unless a leader is named in its environment, or torchrun has started it. So:

- SIGTERM, SIGHUP and Ctrl-C raise KeyboardInterrupt in the leader, which sends SIGTERM to its processes, waits until
  they have saved their work, and lets the exception pass.
- If the leader is killed, each process notices within `PERIOD` and sends itself SIGTERM, and after `GRACE` SIGALRM,
  which nothing here handles.

A process polls process ids, since this also works for grandchildren and on systems without PR_SET_PDEATHSIG. It
watches the leader and its own parent, whose death shows even while its exit code has not been collected.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PARENT = "PARTICLE_GRID_PARENT"  # environment variable: process id of the leader
TORCHRUN = "TORCHELASTIC_RUN_ID"  # environment variable: torchrun sets it, and leaves its processes behind if killed
PERIOD = 0.5  # seconds between two looks at the leader
GRACE = 3  # seconds between SIGTERM and SIGALRM
DELAY = 0.01  # seconds until a signal that was postponed is sent again
CALLBACK = "_raw_object_cache_"  # start of the names of the functions that LLVM calls
UNCLAIMED = (signal.SIG_DFL, signal.default_int_handler)  # handlers that a process starts with
# Requests to terminate, and the end of the terminal. Windows lacks SIGHUP.
TERMINATING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def follow() -> None:
    """Start a thread that ends this process soon after its leader, if it has one. Windows has no parents to watch."""
    leader = os.environ.get(PARENT, "")
    if not leader and os.environ.get(TORCHRUN) and os.name == "posix":
        leader = str(os.getppid())
    if leader.isdecimal() and os.name == "posix":
        threading.Thread(target=_watch, args=(int(leader), os.getppid()), name="lifeline", daemon=True).start()


def _watch(leader: int, parent: int) -> None:
    while os.getppid() == parent and _exists(leader):
        time.sleep(PERIOD)
    signal.alarm(GRACE)  # ends this process even while it exits, when threads no longer run
    os.kill(os.getpid(), signal.SIGTERM)  # a trainer finishes its iteration and saves


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def leading() -> Iterator[None]:
    """Let processes that are started inside follow this one, and let SIGTERM and SIGHUP raise KeyboardInterrupt.

    Ctrl-C raises it, too. Its argument is the number of the signal.

    A signal that is ignored, as under nohup, stays ignored, except Ctrl-C, which trainers never ignore. Use it in the
    main thread only.
    """
    heeded = [number for number in TERMINATING if signal.getsignal(number) not in (None, signal.SIG_IGN)]
    outer = os.environ.get(PARENT)
    os.environ[PARENT] = str(os.getpid())
    try:
        with handling([*heeded, signal.SIGINT], interrupt):
            yield
    finally:
        if outer is None:
            del os.environ[PARENT]
        else:
            os.environ[PARENT] = outer


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt inside, unless they are handled or ignored."""
    in_main_thread = threading.current_thread() is threading.main_thread()  # others cannot handle signals
    numbers = [signal.SIGINT, *TERMINATING] if in_main_thread else []
    unclaimed = [number for number in numbers if signal.getsignal(number) in UNCLAIMED]
    with handling(unclaimed, interrupt):
        yield


@contextmanager
def handling(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a handler have some signals inside. Use it in the main thread only."""
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in previous:
            signal.signal(number, handler)
        yield
    finally:
        for number, own in previous.items():
            signal.signal(number, own)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt with the number of a signal, as soon as that is possible (a signal handler)."""
    if not postponed(number, frame):
        raise KeyboardInterrupt(number)


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code of a command that was interrupted, as shells count: 128 plus the number of the signal."""
    return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)


def postponed(number: int, frame: FrameType | None) -> bool:
    """Return whether an exception would be lost now. The signal is sent again in that case.

    While LLVM compiles, it calls functions of llvmlite through ctypes, which drops their exceptions: the compilation
    would fail, for a reason that nobody understands.
    """
    while frame and not frame.f_code.co_name.startswith(CALLBACK):
        frame = frame.f_back
    if frame:
        threading.Timer(DELAY, signal.raise_signal, [number]).start()
    return frame is not None

"""What Ctrl-C and requests to terminate do to a training run: they let it finish its iteration and save."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from particle_grid.support.lifeline import TERMINATING


class Interruptible(Protocol):
    """A run that stops after its current iteration once `interrupted` is set."""

    interrupted: bool


@contextmanager
def interrupted_by_signals(run: Interruptible) -> Iterator[None]:
    """Set `run.interrupted` on Ctrl-C, SIGTERM and SIGHUP, inside this context.

    A second Ctrl-C raises KeyboardInterrupt at once. SIGTERM and SIGHUP never do: they often follow each other or
    Ctrl-C, and do not mean that the user is impatient. If they are already handled or ignored, that does not change.
    Python allows signal handlers in the main thread only, so this context does nothing in other threads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if run.interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        run.interrupted = True

    unclaimed = [number for number in TERMINATING if signal.getsignal(number) is signal.SIG_DFL]
    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, *unclaimed)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

"""What Ctrl-C and requests to terminate do to a training run: they let it finish its iteration and save."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from particle_grid.support import lifeline


class Interruptible(Protocol):
    """A run that stops after its current iteration once `interrupted` is set.

    idle: whether it has learnt nothing yet that is not saved. Kernels may be compiling, which takes a minute.
    """

    interrupted: bool

    @property
    def idle(self) -> bool: ...


@contextmanager
def interrupted_by_signals(run: Interruptible) -> Iterator[list[int]]:
    """Set `run.interrupted` on Ctrl-C, SIGTERM and SIGHUP inside this context, and yield a list of their numbers.

    While the run is idle, the first of them raises KeyboardInterrupt at once, with the number of the signal, because
    there is nothing to wait for. Later, a second Ctrl-C does. A second SIGTERM or SIGHUP never does: they often follow
    each other or Ctrl-C, and do not mean that the user is impatient. Where others handle or ignore them, that does not
    change. Python allows signal handlers in the main thread only, so this context does nothing in other threads.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if lifeline.postponed(number, frame):
            return
        again = run.interrupted
        run.interrupted = True
        received.append(number)
        if number == signal.SIGINT if again else run.idle:
            raise KeyboardInterrupt(number)

    unsaved = (signal.SIG_DFL, lifeline.interrupt)  # what ends a process before it can save
    unclaimed = [number for number in lifeline.TERMINATING if signal.getsignal(number) in unsaved]
    with lifeline.handling([signal.SIGINT, *unclaimed], interrupt):
        yield received

"""End a command without a traceback if Ctrl-C arrives while it is still importing, which takes seconds."""

import signal
import sys
import threading
from pathlib import Path


def quiet() -> None:
    """Let Ctrl-C end this process at once, if it is about to become one of the package's commands.

    Once a command has started, `lifeline.interruptible` lets it report the interruption itself.
    """
    starting = sys.argv[:1] == ["-m"] or Path(sys.argv[0]).name.startswith("particle-grid-")
    ignored = signal.getsignal(signal.SIGINT) is not signal.default_int_handler  # as for processes in the background
    if starting and not ignored and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)

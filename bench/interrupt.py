"""The exit of benchmarks on Ctrl-C."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def until_interrupted(main: Callable[[], None]) -> None:
    """Run the main function of a benchmark. Ctrl-C ends it with one word and exit code 130, without a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended, as while a process starts that would be lost half-way."""
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending:
        raise KeyboardInterrupt

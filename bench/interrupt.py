"""How benchmarks end: on errors, on Ctrl-C, and on signals that a trainer handles."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from particle_grid.settings.errors import print_error
from particle_grid.support import lifeline


def until_interrupted(main: Callable[[], None]) -> None:
    """Run the main function of a benchmark.

    An error ends it as it ends a command, and an interruption with one word and its exit code, see `lifeline`.
    """
    try:
        main()
    except Exception as error:
        sys.exit(print_error(error))
    except KeyboardInterrupt as interrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(lifeline.exit_code(interrupt))


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

"""How a benchmark ends when it is asked to."""

import sys
from collections.abc import Callable


def until_interrupted(main: Callable[[], None]) -> None:
    """Runs the main function of a benchmark. Ctrl-C ends it in a word instead of a traceback, with exit code 130."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)

"""The exit of benchmarks on Ctrl-C."""

import sys
from collections.abc import Callable


def until_interrupted(main: Callable[[], None]) -> None:
    """Run the main function of a benchmark. Ctrl-C ends it with one word and exit code 130, without a traceback."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)

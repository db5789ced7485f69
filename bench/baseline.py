"""A baseline: the trainer of another checkout, in a process that runs one iteration whenever it is asked to."""

import atexit
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iterations import Iteration, Settings

BENCH = Path(__file__).parent


class Baseline:
    """A process with the package of another checkout.

    It waits for a line with settings, runs an iteration with them, and answers with its times; otherwise it is idle.

    Args:
        path: the root of the checkout.
    """

    def __init__(self, path: Path) -> None:
        paths = [str(path.resolve()), str(BENCH), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import baseline; baseline.serve()"],
            cwd=path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that Ctrl-C reaches only the parent, whose end closes the pipe
        )
        atexit.register(self.process.kill)

    def iterate(self, settings: "Settings") -> "Iteration":
        """Run an iteration of the other checkout's trainer. The first call makes the trainer."""
        from iterations import Iteration

        assert self.process.stdin
        assert self.process.stdout
        with suppress(BrokenPipeError):  # reported below
            print(json.dumps(asdict(settings)), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("error: The process of the baseline ended early, for the reason above.")
        return Iteration(**json.loads(answer))


def serve() -> None:
    """Answer each line of standard input until it is closed. What the trainers print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from iterations import Settings, iterate

    for line in sys.stdin:
        iteration = iterate(Settings(**json.loads(line)))
        print(json.dumps(asdict(iteration)), file=answers, flush=True)

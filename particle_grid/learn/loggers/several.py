"""What a logger of a training run does, and several loggers as one."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Protocol


class RunLogger(Protocol):
    """Writes what a run logs.

    essential: whether the run ends when this logger fails; otherwise training continues without it.
    """

    essential: bool

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write each scalar under its name, at `step` agent-steps."""
        ...

    def hyperparameters(self, values: Mapping[str, str | bool | float]) -> None:
        """Write the hyperparameters of the run. Called once, before any scalars."""
        ...

    def log_gif(self, name: str, gif: bytes, step: int) -> None:
        """Write an animation under a name."""
        ...

    def finished(self) -> None:
        """Mark the run as complete."""
        ...

    def close(self) -> None:
        """Write what is left. Nothing else is called afterwards."""
        ...


class Loggers:
    """Passes what a run logs to several loggers. A context manager: leaving it closes them.

    Args:
        say: prints a sentence about a logger that failed and that the run can do without.

    Raises:
        OSError: or another exception of an essential logger that failed, from every method.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._loggers: dict[str, RunLogger] = {}

    def add(self, name: str, logger: RunLogger) -> None:
        """Add a logger. The first one added is the first one called."""
        self._loggers[name] = logger

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write each scalar under its name, at `step` agent-steps."""
        self._each(lambda logger: logger.log(step, scalars))

    def hyperparameters(self, values: Mapping[str, str | bool | float]) -> None:
        """Write the hyperparameters of the run."""
        self._each(lambda logger: logger.hyperparameters(values))

    def log_gif(self, name: str, gif: bytes, step: int) -> None:
        """Write an animation under a name."""
        self._each(lambda logger: logger.log_gif(name, gif, step))

    def finished(self) -> None:
        """Mark the run as complete."""
        self._each(lambda logger: logger.finished())

    def _each(self, call: Callable[[RunLogger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                call(logger)
            except Exception as error:  # libraries that speak to a server fail in many ways
                if logger.essential:
                    raise
                del self._loggers[name]
                self._say(f"{name} failed and logs nothing more ({reason(error)}): the run continues without it.")

    def __enter__(self) -> "Loggers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError) if kind else nullcontext():  # the exception being raised says enough
            self._each(lambda logger: logger.close())


def reason(error: Exception) -> str:
    """Return what an exception says, in part of one line."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__

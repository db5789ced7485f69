"""The call of a command: what Hydra knows about it, as plain values."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

AUTO = "auto"  # resume=auto: resume the run in the folder if there is one
TRIAL = "hydra.job.env_set.PARTICLE_GRID_TRIAL"  # where a sweeper writes the number of a job's trial


@dataclass(frozen=True)
class Trial:
    """What makes a job a trial of an Optuna study: its number, and where the study is stored."""

    number: int
    folder: Path  # folder of the sweep
    storage: Any  # URL of a database, or None for a file in the folder
    pruner: Any  # Hydra's config of the pruner, or None


@dataclass(frozen=True)
class Invocation:
    """One call of a command.

    folder: where the run belongs. overrides: of the command line. swept: whether this is a job of a sweep (-m), and
    side_by_side: whether other jobs of it run at the same time. repeatable: whether the same command resumes the run
    (resume=auto). trial: of a search, if the job is one of its trials.
    """

    folder: Path
    overrides: tuple[str, ...] = ()
    swept: bool = False
    side_by_side: bool = False
    repeatable: bool = False
    trial: Trial | None = None

    def chosen(self) -> dict[str, str]:
        """Map each key of the command line to its last override, as Hydra does."""
        return by_key(self.overrides)


def by_key(overrides: Iterable[str]) -> dict[str, str]:
    """Map each key to its last override, as Hydra does. Leading + and ~ are dropped."""
    return {override.partition("=")[0]: override for override in (each.lstrip("+~") for each in overrides)}

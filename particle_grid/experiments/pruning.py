"""Searches with Optuna: where a study is stored, and runs that end early because they score too low."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate

from particle_grid.learn.trainer import Stop
from particle_grid.settings.invocation import Trial
from particle_grid.support import optional
from particle_grid.support.errors import UserError

STUDY = "study.log"  # file of a study in the folder of its sweep
PARTS = 10  # parts of the budget of agent-steps; a run is judged at the end of each


def load_study(folder: Path, storage: Any, pruner: Any) -> Any:
    """Return the Optuna study of a sweep, and create it if it is new.

    Args:
        folder: of the sweep.
        storage: URL of a database, in which the folder is the study's name, or None for a file in the folder.
        pruner: Hydra's config of a pruner, or None.

    Raises:
        UserError: if Optuna is not installed, or its file or database cannot be used.
    """
    optuna = optional.load("optuna", "sweep", "hydra/sweeper=optuna")
    journal = optional.load("optuna.storages.journal", "sweep", "hydra/sweeper=optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file = str(folder / STUDY)
    if not isinstance(storage, str | None):
        raise UserError(f"hydra.sweeper.storage={storage} is not a database: give a URL, as in sqlite:///search.db.")
    built = instantiate(pruner) if pruner else optuna.pruners.NopPruner()
    try:
        return optuna.create_study(
            study_name=str(folder) if storage else "sweep",  # a file stays valid when its folder is moved
            storage=storage or optuna.storages.JournalStorage(journal.JournalFileBackend(file)),
            pruner=built,
            direction="maximize",
            load_if_exists=True,
        )
    # Each kind of database has its own errors, and a damaged file fails anywhere in the reader.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        remedy = "correct hydra.sweeper.storage" if storage else "remove a last line that was cut off, or the file"
        raise UserError(f"The search in {storage or file} cannot be used ({reason}): {remedy}.") from error


def pruning(trial: Trial, total_steps: int) -> "Pruning":
    """Return the logger that judges a run of a search while it trains."""
    optuna = optional.load("optuna", "sweep", "hydra/sweeper=optuna")
    study = load_study(trial.folder, trial.storage, trial.pruner)
    return Pruning(optuna.trial.Trial(study, study.trials[trial.number]._trial_id), total_steps)


class Pruning:
    """Reports the mean normalised score of each tenth of the budget to an Optuna trial.

    It raises Stop if Optuna's pruner finds the score too low compared with other trials at the same tenth.
    """

    def __init__(self, trial: Any, total_steps: int) -> None:
        self.trial = trial
        self.total = total_steps
        self.part = 0
        self.scores: list[float] = []
        # A resumed run passes some tenths again, whose first reports remain valid.
        self.reported = set(trial.study.trials[trial.number].intermediate_values)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take the scalars of an iteration."""
        if math.isfinite(value := scalars.get("env/normalised_score", math.nan)):
            self.scores.append(value)
        part = PARTS * step // self.total
        if part == self.part or not self.scores:
            return
        mean = float(np.mean(self.scores))
        self.part = part
        self.scores = []
        if part not in self.reported:
            self.trial.report(mean, part)
        if part < PARTS and self.trial.should_prune():
            raise Stop(f"at {step} steps its normalised score of {mean:z.3f} is too low compared with other trials'")

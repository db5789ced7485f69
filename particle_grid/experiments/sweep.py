"""One run among the many of a sweep: its folder is its own, what has ended is not repeated, what is bad ends early."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from particle_grid.cli import HYDRA_NOTES, LOCK, OccupiedError
from particle_grid.experiments.pool import CHECKPOINT, CONFIG, OVERRIDES, REASON, REPAIR, RESULT, read_scores, resuming
from particle_grid.learn.trainer import Stop
from particle_grid.support import atomic, optional, records

PRUNED, STUDY = "pruned.txt", "study.log"
RUN_GROUPS = {"task", "action", "policy", "world", "trainer"}  # of a run's config
PARTS = 10  # of the budget of agent-steps; a run is judged at the end of each
HYPERPARAMETERS = [  # of every run, in TensorBoard's HParams tab, beside those that a command line names
    *("task.name", "action.name", "policy.name", "policy.hidden", "policy.head", "seed", "world.agents"),
    *(f"trainer.{key}" for key in ("total_steps", "learning_rate", "entropy_coef", "gamma", "gae_lambda")),
    *(f"trainer.{key}" for key in ("rollout_length", "minibatch", "epochs")),
]


class Announce(Callback):
    """Says where the runs of a sweep go, before the first of them. Removes links from where Hydra is about to write:
    it would follow them."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with suppress(OmegaConfBaseException):  # a name that makes no folder: Hydra meets it next, and it is said then
            unlink_links(Path(config.hydra.run.dir), config.hydra.output_subdir)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        folder = config.hydra.sweep.dir
        for run in Path(folder).glob("*"):
            unlink_links(run, config.hydra.output_subdir)
        logging.getLogger("hydra").info(  # as Hydra's own messages
            f"Runs go to {folder}. If interrupted: the same command with hydra.sweep.dir={folder} goes on. A table of "
            f"them, at any time: python -m particle_grid.report {folder}"
        )


def unlink_links(folder: Path, notes: str | None) -> None:
    """Remove links that stand where Hydra writes about a run."""
    if notes:
        for path in (folder / notes, *(folder / notes / name for name in HYDRA_NOTES)):
            if path.is_symlink():
                path.unlink()


def swept() -> bool:
    """Whether this is a job of a sweep (-m)."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


@contextmanager
def alone(folder: Path, resume: str | None) -> Iterator[None]:
    """The folder of a run that is no job of a sweep, for this process alone.

    Raises OccupiedError where another one trains there, or where there is a checkpoint that this run does not go on
    from, or results, and would overwrite it. What a run that died has left is taken away, see `clear`."""
    own = folder / CHECKPOINT
    with held(folder, "trains there: choose another hydra.run.dir, or wait for it."):
        if own.exists() and not (resume and Path(resume).exists() and own.samefile(resume)):
            raise OccupiedError(
                f"{folder} holds a run, whose checkpoint this one would overwrite: go on with {resuming(own)}, or "
                f"choose another hydra.run.dir."
            )
        if not own.exists() and ended(folder):
            raise OccupiedError(
                f"{folder} holds the end of a run, which this one would overwrite: choose another hydra.run.dir."
            )
        refuse_foreign(folder)
        clear(folder)
        yield


@contextmanager
def held(folder: Path, doing: str) -> Iterator[None]:
    """A folder for this process alone. Raise OccupiedError where another one has it, with what that one does there and
    what to do about it."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OccupiedError(f"{folder} is in use by another process that {doing}") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def turn(folder: Path, config: dict[str, Any]) -> Iterator[None]:
    """The folder of a run for this process alone, which waits until another one has done with it.

    Raises OccupiedError where the folder holds a run of another config. What a run that died has left is taken away,
    see `clear`."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder.name}: waiting for another process that trains there")
        lock.acquire()
    try:
        refuse_foreign(folder)
        refuse_another(folder, config)
        atomic.write(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(config)).encode())
        (folder / REASON).unlink(missing_ok=True)
        clear(folder)
        yield
    finally:
        lock.release()


def clear(folder: Path) -> None:
    """Takes away events and overrides of a run that died before its first checkpoint: whatever begins here, at the
    start or from a checkpoint of elsewhere, is another run."""
    if not (folder / CHECKPOINT).exists() and not ended(folder):
        for path in [*folder.glob("events.out.tfevents.*"), folder / OVERRIDES]:
            path.unlink(missing_ok=True)


def refuse_foreign(folder: Path) -> None:
    """Raise OccupiedError where a folder holds files that a run would replace, and that no run has left: one that
    begins writes its config first."""
    theirs = [path for path in (folder / CONFIG, folder / OVERRIDES) if path.exists()]
    theirs += folder.glob("events.out.tfevents.*")
    if theirs and not _groups(folder / CONFIG) >= RUN_GROUPS:
        raise OccupiedError(
            f"{folder} holds {theirs[0].name}, which no run of this program has left, or which is damaged, and this "
            f"run would replace it: choose another folder."
        )


def _groups(path: Path) -> set[str]:
    """Return the groups of a run's config, none for a file that is none."""
    try:
        return {str(key) for key in records.read_yaml(path, DictConfig, "")}
    except (OSError, ValueError):
        return set()


def refuse_another(folder: Path, config: dict[str, Any]) -> None:
    """Raises OccupiedError where a folder holds a run of another config than this."""
    if not (folder / CONFIG).exists():
        return
    there = flat(OmegaConf.to_container(records.read_yaml(folder / CONFIG, DictConfig, REPAIR)))
    here = flat(config)
    if differ := sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key)):
        key = differ[0]
        raise OccupiedError(
            f"{folder} holds a run with {key}={there.get(key)}, and this one has {key}={here.get(key)}: choose another "
            f"hydra.sweep.dir, or leave hydra.sweep.subdir as it is."
        )


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """A nested config as one level of keys such as `trainer.rollout_length`."""
    if not isinstance(config, dict):
        return {prefix: config}
    return {k: v for key, value in config.items() for k, v in flat(value, f"{prefix}.{key!s}".lstrip(".")).items()}


def ended(folder: Path) -> bool:
    """Whether a run needs no more: it is finished, or was pruned."""
    return (folder / RESULT).exists() or (folder / PRUNED).exists()


def score(folder: Path, kind: str = "sampled") -> float | None:
    """The final normalised score of a run, the mean over evaluation seeds; None for one without results, or whose
    results hold no evaluation. Raises ValueError, in one sentence, for results that are none."""
    path = folder / RESULT
    if not path.exists() or records.read_json(path, REPAIR) == {}:
        return None
    return float(np.mean(read_scores(folder, f"policy, {kind}", "normalised_scores")))


def ending(result: float | Exception | None, folder: Path) -> str:
    """Return how the run in a folder ended, by its score, its error, or None if it has no score."""
    match result:
        case None:
            return "pruned" if (folder / PRUNED).exists() else "not evaluated"
        case Exception():
            return f"failed: {result}"
    return f"normalised score {result:.3f}"


def side_by_side() -> bool:
    """Whether other runs of a sweep take place at the same time."""
    return swept() and HydraConfig.get().runtime.choices["hydra/launcher"] != "basic"


@contextmanager
def console_for(folder: Path) -> Iterator[Console]:
    """Where a run talks: the terminal, or output.txt where others talk at the same time. Names and paths may look like
    rich's markup, so there is none."""
    if not side_by_side():
        yield Console(markup=False)
        return
    with (folder / "output.txt").open("a", encoding="utf-8") as file:
        yield Console(file=file, width=120, markup=False)


def hyperparameters(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, str | bool | float]:
    """What HParams shows of a run: the usual ones, and those that its command line names."""
    values = flat(config)
    named = [override.lstrip("+").partition("=")[0] for override in overrides]
    keys = [*HYPERPARAMETERS, *(key for key in named if key in values and key not in HYPERPARAMETERS)]
    shown = {key: values[key] for key in keys if key in values}
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in shown.items()}


def load_study(hydra: Any) -> Any:
    """The Optuna study of a sweep, in a file in its folder or in a database, where the folder is its name.

    Raises ValueError where Optuna is not installed, or its file or database cannot be used."""
    optuna = optional.load("optuna", "sweep", "hydra/sweeper=optuna")
    journal = optional.load("optuna.storages.journal", "sweep", "hydra/sweeper=optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(hydra.sweep.dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file, database = str(folder / STUDY), hydra.sweeper.storage
    if not isinstance(database, str | None):
        raise ValueError(f"hydra.sweeper.storage={database} is not a database: give a URL, as in sqlite:///search.db.")
    pruner = instantiate(hydra.sweeper.pruner) if hydra.sweeper.pruner else optuna.pruners.NopPruner()
    try:
        return optuna.create_study(
            study_name=str(folder) if database else "sweep",  # a file stays good when its folder is moved
            storage=database or optuna.storages.JournalStorage(journal.JournalFileBackend(file)),
            pruner=pruner,
            direction="maximize",
            load_if_exists=True,
        )
    except Exception as error:  # each kind of database has its own; a damaged file fails in any part of the reader
        reason = str(error).partition("\n")[0] or type(error).__name__
        remedy = "correct hydra.sweeper.storage" if database else "remove a last line that was cut off, or the file"
        raise ValueError(f"The search in {database or file} cannot be used ({reason}): {remedy}.") from error


def is_trial() -> bool:
    """Whether a sweeper has made this run a trial of an Optuna study."""
    return swept() and OmegaConf.select(HydraConfig.get(), "sweeper.trial") is not None  # type: ignore[arg-type]


def pruning(total_steps: int) -> "list[Pruning]":
    """Who judges this run while it goes on: nobody, unless a sweeper has made it a trial."""
    if not is_trial():
        return []
    import optuna

    hydra: Any = HydraConfig.get()
    study = load_study(hydra)
    return [Pruning(optuna.trial.Trial(study, study.trials[hydra.sweeper.trial]._trial_id), total_steps)]


class Pruning:
    """Reports the mean normalised score of each tenth of the budget to an Optuna trial, and raises Stop where Optuna's
    pruner finds it too low beside other trials at the same tenth."""

    def __init__(self, trial: Any, total_steps: int) -> None:
        self.trial, self.total = trial, total_steps
        self.part, self.scores = 0, list[float]()
        # A run that goes on from its checkpoint comes by some tenths again; what was said of them stands.
        self.reported = set(trial.study.trials[trial.number].intermediate_values)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Takes the scalars of an iteration."""
        if math.isfinite(value := scalars.get("normalised_score", math.nan)):
            self.scores.append(value)
        part = PARTS * step // self.total
        if part == self.part or not self.scores:
            return
        mean, self.part, self.scores = float(np.mean(self.scores)), part, []
        if part not in self.reported:
            self.trial.report(mean, part)
        if part < PARTS and self.trial.should_prune():
            raise Stop(f"at {step} steps its normalised score of {mean:.3f} is too low beside other trials'")

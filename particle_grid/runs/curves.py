"""Learning curves, read from TensorBoard's files."""

from dataclasses import dataclass

import numpy as np
from omegaconf import DictConfig, OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from particle_grid.runs.folder import REPAIR, RunFolder
from particle_grid.support import records
from particle_grid.support.errors import UserError

SPEED = "perf/steps_per_second"  # logged in each iteration of every run


@dataclass(frozen=True)
class Curve:
    """A scalar over a run's training.

    steps: i64[iterations], agent-steps. values: f64[iterations], without gaps, or NaN if the run never logged it.
    minutes: of training, for all steps at the median speed.
    """

    steps: np.ndarray
    values: np.ndarray
    minutes: float


def read_events(folder: RunFolder) -> EventAccumulator:
    """Return what a run has logged.

    Raises:
        UserError: if TensorBoard's files are missing or damaged.
    """
    damaged = UserError(
        f"{folder.path} has no complete learning curve: its events.out.tfevents files are missing or damaged.", REPAIR
    )
    try:
        events = EventAccumulator(str(folder.path), size_guidance={"scalars": 0}).Reload()
    except Exception as error:  # any part of TensorBoard's reader may fail
        raise damaged from error
    if SPEED not in events.Tags()["scalars"]:
        raise damaged
    last = events.Scalars(SPEED)[-1].step
    if last < _budget(folder):  # TensorBoard reads up to the first damaged record, and does not say so
        raise damaged
    return events


def read_curve(folder: RunFolder, name: str = "normalised_score") -> Curve:
    """Return a scalar of a run. Raise UserError as `read_events` does."""
    return curve_of(read_events(folder), name)


def curve_of(events: EventAccumulator, name: str) -> Curve:
    """Return a scalar of a run that has been read."""
    speed = events.Scalars(SPEED)
    steps = np.array([event.step for event in speed])
    minutes = float(steps[-1] / np.median([event.value for event in speed]) / 60)
    if name not in events.Tags()["scalars"]:
        return Curve(steps, np.full(len(steps), np.nan), minutes)
    scored = events.Scalars(name)
    values = np.interp(steps, [event.step for event in scored], [event.value for event in scored])
    return Curve(steps, values, minutes)


def has_trained(folder: RunFolder) -> bool:
    """Return whether a run got far enough to log something about its training."""
    return any(SPEED.encode() in path.read_bytes() for path in folder.events() if path.is_file())


def _budget(folder: RunFolder) -> float:
    """Return the agent-steps that a finished run has made at least; 0 for any other, or one without a config."""
    if not folder.results.exists() or not folder.config.exists():
        return 0
    steps = OmegaConf.select(records.read_yaml(folder.config, DictConfig, REPAIR), "trainer.total_steps")
    return steps if isinstance(steps, int | float) else 0

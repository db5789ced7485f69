"""Learning curves, read from TensorBoard's files and from those of logger=csv."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from omegaconf import DictConfig, OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from particle_grid.learn.loggers.csv_file import read_rows
from particle_grid.runs.folder import REPAIR, SPEED, RunFolder
from particle_grid.support import records
from particle_grid.support.errors import UserError
from particle_grid.support.renamed import SCALARS

Scalars = dict[str, dict[int, float]]  # name -> agent-steps -> value


@dataclass(frozen=True)
class Curve:
    """A scalar over a run's training.

    steps: i64[iterations], agent-steps. values: f64[iterations], without gaps, or NaN if the run never logged it.
    minutes: of training, for all steps at the median speed.
    """

    steps: np.ndarray
    values: np.ndarray
    minutes: float


def read_scalars(folder: RunFolder) -> Scalars:
    """Return what a run has logged to its folder, under current names.

    Raises:
        UserError: if its files are missing or damaged.
    """
    damaged = UserError(
        f"{folder.path} has no complete learning curve: its events.out.tfevents files, or {folder.scalars.name} of "
        f"logger=csv, are missing or damaged.",
        REPAIR,
    )
    try:
        points = list(_events(folder)) if folder.events() else []
    except Exception as error:  # any part of TensorBoard's reader may fail
        raise damaged from error
    rows = list(read_rows(folder.scalars, REPAIR)) if folder.scalars.exists() else []
    scalars: Scalars = defaultdict(dict)
    for step, name, value in rows + points:  # a run may have changed its loggers when it was resumed
        scalars[SCALARS.get(name, name)][step] = value
    last = max(scalars[SPEED], default=-1)
    if last < _budget(folder):  # TensorBoard reads up to the first damaged record, and does not say so
        raise damaged
    return scalars


def _events(folder: RunFolder) -> Iterator[tuple[int, str, float]]:
    """Yield the step, name and value of each scalar in TensorBoard's files."""
    events = EventAccumulator(str(folder.path), size_guidance={"scalars": 0}).Reload()
    for name in events.Tags()["scalars"]:
        yield from ((event.step, name, event.value) for event in events.Scalars(name))


def read_curve(folder: RunFolder, name: str = "env/normalised_score") -> Curve:
    """Return a scalar of a run. Raise UserError as `read_scalars` does."""
    return curve_of(read_scalars(folder), name)


def curve_of(scalars: Scalars, name: str) -> Curve:
    """Return a scalar of a run that has been read."""
    steps = np.array(sorted(scalars[SPEED]))
    minutes = float(steps[-1] / np.median(list(scalars[SPEED].values())) / 60)
    points = scalars.get(name)
    if not points:
        return Curve(steps, np.full(len(steps), np.nan), minutes)
    known = sorted(points)
    return Curve(steps, np.interp(steps, known, [points[step] for step in known]), minutes)


def _budget(folder: RunFolder) -> float:
    """Return the agent-steps that a finished run has made at least; 0 for any other, or one without a config."""
    if not folder.results.exists() or not folder.config.exists():
        return 0
    steps = OmegaConf.select(records.read_yaml(folder.config, DictConfig, REPAIR), "trainer.total_steps")
    return steps if isinstance(steps, int | float) else 0

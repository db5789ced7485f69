"""Many trainings side by side, one on each core: what is finished is not repeated, what was begun goes on."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, ListConfig, OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from particle_grid.learn.fast import cores
from particle_grid.support import atomic, lifeline, records, registry

TRAIN = [sys.executable, "-m", "particle_grid.train"]
ALONE = "trainer.threads=1"  # on its core
# What a run leaves in its folder: among it the overrides that it was begun with, which are not those of going on.
RESULT, CHECKPOINT, REASON, OVERRIDES = "results.json", "checkpoint.pt", "error.txt", "overrides.yaml"
CONFIG = "config.yaml"
REPAIR = "Remove this run's folder, and run the same command again to make it again."


@dataclass(frozen=True)
class Job:
    """One run of `python -m particle_grid.train`: the folder it leaves, and its overrides."""

    folder: Path
    overrides: tuple[str, ...]

    @property
    def done(self) -> bool:
        return (self.folder / RESULT).exists()

    @property
    def failed(self) -> bool:
        """Whether it failed when it was last run to its end."""
        return not self.done and (self.folder / REASON).exists()

    @property
    def arguments(self) -> list[str]:
        """What train is called with. A run that has a checkpoint goes on from there."""
        checkpoint = self.folder / CHECKPOINT
        what = self._resumed(checkpoint) if checkpoint.exists() else list(self.overrides)
        return [*what, ALONE, f"hydra.run.dir={quoted(self.folder)}"]

    def _resumed(self, checkpoint: Path) -> list[str]:
        """What resumes it. Classes of the user's own, which it was begun with, may be imported again."""
        values = [override.partition("=")[2] for override in self.overrides]
        places = ",".join(value for value in values if registry.is_place(value))
        return [f"resume={quoted(checkpoint)}", *([f"allow=[{places}]"] if places else [])]

    def check(self) -> None:
        """Raises ValueError where its folder holds a run that was begun with other overrides. One that ended before it
        had a checkpoint starts anew and may have others; a folder that says nothing of overrides is an older one."""
        begun, path = self.done or (self.folder / CHECKPOINT).exists(), self.folder / OVERRIDES
        if not begun or not path.exists():
            return
        there = by_key(read_overrides(path))
        here = by_key([*self.overrides, ALONE])
        for key in sorted(there.keys() | here.keys()):
            old, new = there.get(key, f"no {key}"), here.get(key, f"no {key}")
            if old != new:
                raise ValueError(
                    f"{self.folder} holds a run that was begun with {old}, and this one has {new}: choose another "
                    f"--out, or take that folder away."
                )


def by_key(overrides: Iterable[str]) -> dict[str, str]:
    """Overrides by their keys. Of several for one key the last counts, as for Hydra; a leading + train takes away."""
    return {override.partition("=")[0]: override for override in (each.lstrip("+") for each in overrides)}


def read_overrides(path: Path) -> list[str]:
    """Return the overrides in a file. Raise ValueError for a file that is damaged."""
    overrides: Any = OmegaConf.to_container(records.read_yaml(path, ListConfig, REPAIR))  # a list; nothing is resolved
    return [str(override) for override in overrides]


def quoted(path: Path) -> str:
    """A path as a value on Hydra's command line, where brackets, commas and the like mean something."""
    return QuotedString(str(path), Quote.single).with_quotes()


def resuming(checkpoint: Path) -> str:
    """Return the word that resumes a run, as one types it."""
    plain = re.fullmatch(r"[\w./-]+", str(checkpoint))
    return f"resume={checkpoint}" if plain else shlex.quote(f"resume={quoted(checkpoint)}")


def run_all(jobs: Sequence[Job], ended: Callable[[Job, str], None], count: int = 0) -> list[Job]:
    """Run jobs, as many at a time as there are cores (or `count`), and call `ended` with each that has ended and the
    reason why it failed, empty if it did not. Return those that failed; the reason stays in error.txt in its folder.

    Only in the main thread. No run outlives this process, see `lifeline`.

    Raises:
        ValueError: before any run is started, where a folder holds a run that was begun with other overrides.
        KeyboardInterrupt: for Ctrl-C, SIGTERM or SIGHUP, when the runs have saved. A second one kills them."""
    for job in jobs:
        job.check()
    free = _free_cores(count)
    failed, processes, stopped = list[Job](), set[subprocess.Popen[str]](), threading.Event()

    def run(job: Job) -> None:
        if stopped.is_set():
            return
        core, reason = free.get(), ""
        try:
            if not job.done:
                reason = _train(job, core, processes, stopped)
        finally:
            free.put(core)
        if stopped.is_set():
            return
        if reason:
            failed.append(job)
        ended(job, reason)

    pool = ThreadPoolExecutor(free.qsize())
    with lifeline.leading():
        try:
            for future in as_completed([pool.submit(run, job) for job in jobs]):
                future.result()
        except BaseException:
            stopped.set()
            _stop(processes, pool)
            raise
        pool.shutdown()
    return failed


def _free_cores(count: int) -> "SimpleQueue[int]":
    """Return the numbers of the cores that this process may use, as many as `count` at most; 0 for all."""
    free: SimpleQueue[int] = SimpleQueue()
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))
    for core in available[: count or None]:
        free.put(core)
    return free


def _stop(processes: set[subprocess.Popen[str]], pool: ThreadPoolExecutor) -> None:
    """Let runs save what they have and wait for them, or kill them if another signal comes."""
    try:
        for process in list(processes):
            process.terminate()
        pool.shutdown(cancel_futures=True)
    except KeyboardInterrupt:
        for process in list(processes):
            process.kill()
        raise


def _train(job: Job, core: int, processes: set[subprocess.Popen[str]], stopped: threading.Event) -> str:
    """One run, on one core. Returns why it failed, or nothing."""
    job.folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [*TRAIN, *job.arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=os.environ | dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"), "1"),
        start_new_session=True,  # what a terminal sends reaches it once, from `run_all`
    )
    processes.add(process)
    if stopped.is_set():  # in between
        process.terminate()
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # it may have ended
            os.sched_setaffinity(process.pid, {core})
    said, _ = process.communicate()
    processes.discard(process)
    reason = job.folder / REASON
    if process.returncode == 0:
        reason.unlink(missing_ok=True)
    if process.returncode == 0 or stopped.is_set():
        return ""
    last = said.strip().splitlines()[-1] if said.strip() else f"it ended with code {process.returncode}"
    atomic.write(reason, f"{said}\n".encode())
    return last


def read_scores(folder: Path, label: str, key: str = "scores") -> np.ndarray:
    """Return the scores that a run's results have for a label, such as "policy, sampled".

    Raises:
        ValueError: for results that are damaged."""
    path = folder / RESULT
    results = records.read_json(path, REPAIR)
    try:
        scores = np.array(results[label][key], float)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        scores = np.zeros(0)
    raw = key == "scores"  # [seeds][teams], where normalised ones are [seeds], and NaN where nothing can be normalised
    if not scores.size or scores.ndim != 1 + raw or np.isinf(scores).any() or (raw and np.isnan(scores).any()):
        raise ValueError(f"{path} is not a run's results: its {key} of {label!r} are not finite numbers. {REPAIR}")
    return scores


def _budget(folder: Path) -> float:
    """Return the agent-steps that a finished run has made at least; 0 for any other, or one without a config."""
    path = folder / CONFIG
    if not (folder / RESULT).exists() or not path.exists():
        return 0
    steps = OmegaConf.select(records.read_yaml(path, DictConfig, REPAIR), "trainer.total_steps")
    return steps if isinstance(steps, int | float) else 0


def curve(folder: Path, name: str = "normalised_score") -> tuple[np.ndarray, np.ndarray, float]:
    """Return steps and values of a scalar over a run's training, without gaps (NaN where there is none at all), and
    minutes: those of all steps at the median speed.

    Raises:
        ValueError: where TensorBoard's events are missing or damaged."""
    damaged = f"{folder} has no whole learning curve: its events.out.tfevents files are missing or damaged. {REPAIR}"
    try:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    except Exception as error:  # of any part of TensorBoard's reader
        raise ValueError(damaged) from error
    if "perf/steps_per_second" not in events.Tags()["scalars"]:
        raise ValueError(damaged)
    speed = events.Scalars("perf/steps_per_second")
    steps = np.array([event.step for event in speed])
    if steps[-1] < _budget(folder):  # TensorBoard reads up to the first damaged record, without a word
        raise ValueError(damaged)
    minutes = float(steps[-1] / np.median([event.value for event in speed]) / 60)
    if name not in events.Tags()["scalars"]:
        return steps, np.full(len(steps), np.nan), minutes
    scored = events.Scalars(name)
    return steps, np.interp(steps, [e.step for e in scored], [e.value for e in scored]), minutes

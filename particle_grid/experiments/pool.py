"""Many training runs at the same time, one on each core or on a cluster.

Finished runs are not repeated, and others are resumed.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from particle_grid.learn.distributed import gpu_for
from particle_grid.learn.fast import cores
from particle_grid.runs.folder import FAILED, RunFolder, quoted
from particle_grid.settings.invocation import by_key
from particle_grid.support import atomic, lifeline, registry
from particle_grid.support.errors import UserError, UserRuntimeError

TRAIN = [sys.executable, "-m", "particle_grid.train"]
ONE_THREAD = "trainer.threads=1"  # since each run has one core
PERIOD = 1.0  # seconds between two looks at the results of runs on other machines
ATTEMPTS = 3  # of a run whose process is killed, for example because memory ran out for a while


@dataclass(frozen=True)
class Job:
    """One run of `python -m particle_grid.train`: its folder, and the overrides that it is called with."""

    folder: RunFolder
    overrides: tuple[str, ...]

    @property
    def done(self) -> bool:
        return self.folder.results.exists()

    @property
    def failed(self) -> bool:
        """Whether the run failed the last time it ended."""
        return self.folder.status() == FAILED

    @property
    def arguments(self) -> list[str]:
        """The command line of train. A run that has a checkpoint is resumed."""
        what = self._resumed() if self.folder.checkpoint.exists() else list(self.overrides)
        return [*what, ONE_THREAD, f"hydra.run.dir={quoted(self.folder.path)}"]

    def _resumed(self) -> list[str]:
        """Return the overrides that resume the run, and may again import the user's classes it was started with."""
        values = [override.partition("=")[2] for override in self.overrides]
        places = ",".join(value for value in values if registry.is_place(value))
        allow = [f"allow=[{places}]"] if places else []
        return [f"resume={quoted(self.folder.checkpoint)}", *allow]

    def check(self) -> None:
        """Refuse a folder with a run that was started with other overrides.

        A run that ended before its first checkpoint starts again and may have others; a folder without overrides is of
        an earlier version.

        Raises:
            UserError: naming the first override that differs.
        """
        if not self.folder.started or not self.folder.overrides.exists():
            return
        there = by_key(self.folder.read_overrides())
        here = by_key([*self.overrides, ONE_THREAD])
        for key in sorted(there.keys() | here.keys()):
            old, new = there.get(key, f"no {key}"), here.get(key, f"no {key}")
            if old != new:
                raise UserError(
                    f"{self.folder.path} holds a run that was started with {old}, and this one has {new}: choose "
                    f"another --out, or remove that folder."
                )


class Place(NamedTuple):
    """Where a run may run: on a core, and with the environment variable that shows it a GPU, if there is one."""

    core: int
    gpu: dict[str, str]


def is_killed(code: int | None) -> bool:
    """Return whether a process that ended with this code was killed, so that its run is resumed."""
    return code is not None and code < 0


def why_ended(code: int | None) -> str:
    """Say how a process ended that gave no reason."""
    if is_killed(code):
        return f"its process was killed {ATTEMPTS} times, by signal {-(code or 0)} (9: is there enough memory?)"
    return f"its process ended with code {code}"


class Running:
    """The running processes, the free places, and whether the processes were asked to stop."""

    def __init__(self, free: "SimpleQueue[Place]") -> None:
        self.free = free
        self.processes: set[subprocess.Popen[str]] = set()
        self.stopped = threading.Event()

    def run(self, job: Job) -> str:
        """Run a job that is not done in a place, once one is free. Return why it failed, or nothing."""
        if self.stopped.is_set():
            return ""
        place = self.free.get()
        try:
            return "" if job.done else self._train(job, place)
        finally:
            self.free.put(place)

    def _train(self, job: Job, place: Place) -> str:
        job.folder.path.mkdir(parents=True, exist_ok=True)
        for _ in range(ATTEMPTS):
            code, said = self._attempt(job, place)
            if code == 0:
                job.folder.error.unlink(missing_ok=True)
            if code == 0 or self.stopped.is_set():
                return ""
            if not is_killed(code):
                break
        lines = said.strip().splitlines()
        reason = lines[-1] if lines and not is_killed(code) else why_ended(code)
        atomic.write(job.folder.error, "\n".join([*lines, reason, ""]).encode())
        return reason

    def _attempt(self, job: Job, place: Place) -> tuple[int, str]:
        """Start or resume the run of a job. Return the code with which it ended, and its output."""
        process = self._start([*TRAIN, *job.arguments], place.gpu)
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):  # it may have ended already
                os.sched_setaffinity(process.pid, {place.core})
        said, _ = process.communicate()
        self.processes.discard(process)
        return process.returncode, said

    def _start(self, command: Sequence[str], gpu: dict[str, str]) -> "subprocess.Popen[str]":
        """Start a process with one thread and a GPU, if there is one, whose output is collected."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=os.environ | dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"), "1") | gpu,
            start_new_session=True,  # signals of the terminal reach it only once, through `run_all`
        )
        self.processes.add(process)
        if self.stopped.is_set():  # stopped while the process was started
            process.terminate()
        return process

    def stop(self, pool: ThreadPoolExecutor) -> None:
        """Let runs save and wait for them, or kill them if another signal comes."""
        self.stopped.set()
        try:
            for process in list(self.processes):
                process.terminate()
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            for process in list(self.processes):
                process.kill()
            raise


def run_all(jobs: Sequence[Job], ended: Callable[[Job, str], None], count: int = 0) -> list[Job]:
    """Run jobs. No run outlives this process, see `lifeline`. Call it in the main thread only.

    Args:
        jobs: those that are done are not repeated.
        ended: called with each job that has ended, and the reason why it failed, empty if it did not.
        count: jobs at a time; 0 for as many as there are cores. GPUs are handed out to them in turn.

    Returns:
        The jobs that failed. The reason stays in error.txt in their folders.

    Raises:
        UserError: before any run is started, if a folder holds a run that was started with other overrides.
        KeyboardInterrupt: for Ctrl-C, SIGTERM or SIGHUP, once the runs have saved. A second one kills them.
    """
    for job in jobs:
        job.check()
    running = Running(_free_places(count))
    failed: list[Job] = []

    def run(job: Job) -> None:
        reason = running.run(job)
        if running.stopped.is_set():
            return
        if reason:
            failed.append(job)
        ended(job, reason)

    pool = ThreadPoolExecutor(running.free.qsize())
    with lifeline.leading():
        try:
            for future in as_completed([pool.submit(run, job) for job in jobs]):
                future.result()
        except BaseException:
            running.stop(pool)
            raise
        pool.shutdown()
    return failed


@dataclass(frozen=True)
class Launched:
    """Runs jobs through one of Hydra's launchers, for example on a cluster.

    launcher: its name, followed by its settings as KEY=VALUE. out: folder that holds those of the jobs, which all
    machines see under the same path.
    """

    launcher: Sequence[str]
    out: Path

    @property
    def output(self) -> Path:
        """Where the output of the launcher goes."""
        return self.out / "launcher.txt"

    def run_all(self, jobs: Sequence[Job], ended: Callable[[Job, str], None]) -> list[Job]:
        """Run jobs that are not done, see `run_all` of this module.

        Raises:
            UserRuntimeError: if the launcher could not start them.
        """
        for job in jobs:
            job.check()
        left = [job for job in jobs if not job.done]
        if not left:
            return []
        atomic.write(self.out / "jobs.json", json.dumps([self._overrides(job) for job in left]).encode())
        code = self._run(set(left), ended)
        failed = [job for job in left if not job.done]
        if code and not any(job.folder.path.exists() for job in left):
            said = self.output.read_text("utf-8", errors="replace").strip().splitlines() or [f"code {code}"]
            raise UserRuntimeError(f"{self.launcher[0]} started no run ({said[-1]}): see {self.output}.")
        for job in failed:
            ended(job, job.folder.reason() or f"see {self.output}")
        return failed

    def _run(self, left: set[Job], ended: Callable[[Job, str], None]) -> int:
        """Start the launcher, report the jobs that are done while it runs, and return its exit code."""
        with lifeline.leading(), self.output.open("wb") as output:
            process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            try:
                while process.poll() is None:
                    _tell(left, ended)
                    time.sleep(PERIOD)
            except BaseException:
                _end(process)
                raise
        _tell(left, ended)
        return process.returncode

    def _overrides(self, job: Job) -> list[str]:
        place = job.folder.path.resolve().relative_to(self.out)
        return [*job.overrides, ONE_THREAD, f"hydra.sweep.subdir={quoted(place)}"]

    def _command(self) -> list[str]:
        name, *settings = self.launcher
        sweep = ["hydra/sweeper=listed", f"hydra.sweeper.file={quoted(self.out / 'jobs.json')}"]
        launcher = [f"hydra/launcher={name}", *(f"hydra.launcher.{setting}" for setting in settings)]
        return [*TRAIN, "-m", *sweep, *launcher, f"hydra.sweep.dir={quoted(self.out)}"]


def _tell(left: set[Job], ended: Callable[[Job, str], None]) -> None:
    """Report the jobs that are done by now, and remove them."""
    for job in [job for job in left if job.done]:
        left.remove(job)
        ended(job, "")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Let a launcher end its jobs, which save, and wait for it, or kill it if another signal comes."""
    process.terminate()
    try:
        process.wait()
    except KeyboardInterrupt:
        process.kill()
        raise


def _free_places(count: int) -> "SimpleQueue[Place]":
    """Return the cores that this process may use, as many as `count` at most, each with a GPU in turn; 0 for all."""
    free: SimpleQueue[Place] = SimpleQueue()
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(cores()))
    for number, core in enumerate(available[: count or None]):
        free.put(Place(core, gpu_for(number)))
    return free

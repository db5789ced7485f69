"""However a command ends, its child processes end too, and at most one checkpoint interval is lost.

The environment variable SIGNALS scales how many signals a release test sends: SIGNALS=0.1 for a tenth.
"""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from particle_grid.learn import checkpoint
from particle_grid.support import lifeline
from tests.test_train import BATCH, ROOT, TINY

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes in /proc")
MARK = "PARTICLE_GRID_TEST"  # environment variable that marks a command and its child processes
EVERY = 4 * BATCH  # agent-steps between checkpoints
SLACK = 5  # seconds that child processes may outlive a command
SCALE = float(os.environ.get("SIGNALS", "1"))
KINDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
COUNTS = {  # number of signals of each kind, by command; Ray starts slowly
    "train": (20, 8, 8),
    "joblib": (20, 8, 8),
    "submitit_local": (6, 2, 2),
    "ray": (4, 2, 2),
}
SMALL = [each for each in TINY if not each.startswith(("trainer.threads", "evaluations"))]
SMALL += ["task=center", "clips=0", "evaluations=1", f"trainer.checkpoint_every={EVERY}"]


def start(arguments: list[str], folder: Path) -> subprocess.Popen:
    """Start a command in its own session, as a terminal does, with its output in output.txt."""
    # A process started in the background ignores Ctrl-C, and so do its children.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    mark = uuid.uuid4().hex
    with (folder / "output.txt").open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            # The command ends when this process does.
            env=os.environ | {"PYTHONPATH": str(ROOT), MARK: mark, lifeline.PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    signal.signal(signal.SIGINT, handler)
    process.mark = f"{MARK}={mark}".encode()
    return process


def left(process: subprocess.Popen) -> list[int]:
    """Return the processes that a command has started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if process.mark in path.read_bytes().split(b"\0") and int(path.parent.name) != process.pid:
                found.append(int(path.parent.name))
    return found


def wait_for(condition: Callable[[], object], process: subprocess.Popen, patience: float = 180) -> None:
    """Wait until a condition holds or a command has ended, at most for some seconds."""
    end = time.monotonic() + patience
    while process.poll() is None and not condition():
        assert time.monotonic() < end, "nothing has happened for a long time"
        time.sleep(0.05)


def strike(process: subprocess.Popen, number: signal.Signals) -> None:
    """Send a signal to a command, or Ctrl-C to its terminal, and wait until its child processes have ended."""
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    process.wait(60)  # on a busy machine a process that uses PyTorch takes seconds to exit
    end = time.monotonic() + SLACK
    while orphans := left(process):
        assert time.monotonic() < end, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in orphans]
        time.sleep(0.05)


def clean_up(process: subprocess.Popen) -> None:
    """End all processes of a command after a failed test."""
    for pid in [process.pid, *left(process)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(10)


def events(folder: Path, since: float) -> dict[Path, Path]:
    """Return the event file of each run that has trained since a time."""
    files = [path for path in folder.glob("**/events.out.tfevents.*") if path.stat().st_mtime >= since]
    return {path.parent: path for path in files if b"perf/steps_per_second" in path.read_bytes()}


def check(folder: Path, number: signal.Signals, since: float) -> None:
    """Read every file, and compare the last step of each run with its checkpoint."""
    for path in folder.glob("**/results.json"):
        assert json.loads(path.read_text("utf-8"))
    saved = {path.parent: checkpoint.load(path)["steps"] for path in folder.glob("**/checkpoint.pt")}
    for run, path in events(folder, since).items():
        curve = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload().Scalars("perf/steps_per_second")
        lost = curve[-1].step - saved.get(run, 0)
        assert lost <= (EVERY if number == signal.SIGKILL else 0), run


def withstand(command: Callable[[Path], list[str]], numbers: list[signal.Signals], root: Path) -> None:
    """Start a command repeatedly, end it by one signal after another, and finally let it complete."""
    generator, lives = random.Random(0), 0
    folder = root / "0"
    folder.mkdir()
    for number in numbers:
        process, since = start(command(folder), folder), time.time()
        try:
            if generator.random() < 0.8:  # otherwise the signal may come before training starts
                wait_for(partial(events, folder, since), process)
            time.sleep(generator.uniform(0, 2))
            assert process.poll() in (None, 0), (folder / "output.txt").read_text()
            strike(process, number)
            check(folder, number, since)
        finally:
            clean_up(process)
        if process.returncode == 0:  # it had already completed
            lives += 1
            folder = root / str(lives)
            folder.mkdir()
    process = start(command(folder), folder)
    try:
        assert process.wait(300) == 0, (folder / "output.txt").read_text()
    finally:
        clean_up(process)
    assert list(folder.glob("**/results.json"))


def training(launcher: str, total_steps: int, seeds: str) -> Callable[[Path], list[str]]:
    """Return the command of a run, single (train) or a sweep with a launcher, which resumes what its folder holds."""

    def command(folder: Path) -> list[str]:
        small = [*SMALL, f"trainer.total_steps={total_steps}"]
        if launcher == "train":
            return ["particle_grid.train", *small, "name=run", "resume=auto"]
        return [
            "particle_grid.train",
            "-m",
            f"hydra/launcher={launcher}",
            *small,
            f"seed={seeds}",
            "hydra.sweep.dir=run",
        ]

    return command


@pytest.mark.slow
def test_a_run_survives_being_killed_and_terminated(tmp_path):
    withstand(training("train", 400 * BATCH, "0"), [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL], tmp_path)


@pytest.mark.slow
def test_a_parallel_sweep_survives_being_killed_and_ctrl_c(tmp_path):
    withstand(training("joblib", 200 * BATCH, "0,1"), [signal.SIGKILL, signal.SIGINT], tmp_path)


@pytest.mark.release
@pytest.mark.parametrize("launcher", COUNTS)
def test_a_training_survives_many_signals_at_random_moments(tmp_path, launcher):
    if not find_spec({"submitit_local": "submitit", "ray": "ray"}.get(launcher, "particle_grid")):
        pytest.skip(f"{launcher} is not installed")
    counts = [math.ceil(SCALE * count) for count in COUNTS[launcher]]
    numbers = [number for number, count in zip(KINDS, counts, strict=True) for _ in range(count)]
    random.Random(1).shuffle(numbers)
    withstand(training(launcher, 2000 * BATCH, "0,1,2"), numbers, tmp_path)

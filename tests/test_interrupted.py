"""What an interrupted run leaves, and what it says about it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from particle_grid import train
from particle_grid.learn import checkpoint
from particle_grid.learn.trainer import Trainer
from particle_grid.support import lifeline
from tests.test_train import FEW, ROOT, TINY

ENDING = [signal.SIGINT, *lifeline.TERMINATING]


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_saves_a_checkpoint_that_can_be_resumed_and_has_its_own_exit_code(number, tmp_path):
    arguments = [*TINY, "trainer.total_steps=1e9", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "particle_grid.train", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        for _ in range(600):  # a minute: until training has started and written events
            if any(b"perf/steps_per_second" in file.read_bytes() for file in tmp_path.glob("run/events*")):
                break
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(1.0)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (128 + number, b"interrupted\n")
    assert b"resume=" in out
    assert checkpoint.load(tmp_path / "run" / "checkpoint.pt")["steps"] > 0


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", ENDING)
def test_a_run_interrupted_in_its_first_iteration_says_so_and_leaves_no_folder(call, monkeypatch, number):
    monkeypatch.setattr(Trainer, "rollout", lambda trainer: signal.raise_signal(number))
    code, out, err = call(train.main, *TINY, "logger=[tensorboard,csv]")
    assert (code, err) == (128 + number, "interrupted\n")
    assert re.search(r"^Nothing was learnt yet, so \S+/outputs/\S+ is removed\.$", out, re.MULTILINE)
    assert not list(Path("outputs").iterdir())


def test_an_interrupted_run_keeps_its_curves_and_the_files_of_others(call, monkeypatch):
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "rollout", lambda trainer: signal.raise_signal(signal.SIGINT))
        assert (
            f"No checkpoint was saved in {Path('mine').absolute()}," in call(train.main, *TINY, "hydra.run.dir=mine")[1]
        )
    assert {path.name for path in Path("mine").iterdir()} <= {"notes.txt", ".hydra", ".lock"}
    learn = Trainer.update

    def twice(trainer):
        if trainer.steps:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return learn(trainer)

    monkeypatch.setattr(Trainer, "update", twice)
    assert (
        f"No checkpoint was saved in {Path('run').absolute()},"
        in call(train.main, *TINY, "hydra.run.dir=run", "logger=csv")[1]
    )
    assert len(Path("run/scalars.csv").read_text().splitlines()) > 1
    assert call(train.main, *TINY, FEW, "clips=0", "evaluations=0", "hydra.run.dir=run")[0] == 130
    assert Path("run/config.yaml").exists()

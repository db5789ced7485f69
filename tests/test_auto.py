"""With resume=auto, a run may be started again and again: it continues, and ends once."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from particle_grid import train
from particle_grid.learn import checkpoint
from particle_grid.learn.trainer import Trainer
from tests.test_processes import run_all, srun, start_all
from tests.test_train import BATCH, FEW, TINY

AUTO = [*TINY, "task=center", "clips=0", "name=mine", "resume=auto"]
FOLDER = Path("outputs/mine")


def content(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_left_alone(call):
    code, out, err = call(train.main, *AUTO, FEW)
    assert (code, err) == (0, "")
    assert f"Saved: {FOLDER.absolute()}/results.json\n" in out
    before = content(FOLDER)
    code, out, err = call(train.main, *AUTO, FEW)
    assert (code, out, err) == (0, f"{FOLDER.absolute()}: ended earlier, nothing to train\n", "")
    now = content(FOLDER)
    assert {path.name for path in before.keys() | now.keys() if now.get(path) != before.get(path)} <= {".lock"}


def test_a_run_that_was_interrupted_continues_and_says_how(call, monkeypatch):
    many = [*AUTO, f"trainer.total_steps={4 * BATCH}"]
    update = Trainer.update

    def interrupted(trainer):
        signal.raise_signal(signal.SIGTERM)
        return update(trainer)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update", interrupted)
        code, out, _ = call(train.main, *many)
        assert code == 143  # in the first iteration
        assert not FOLDER.exists()
        patched.setattr(Trainer, "update", lambda trainer: (interrupted if trainer.steps else update)(trainer))
        code, out, _ = call(train.main, *many)
    assert code == 143
    assert "To resume: the same command\n" in out
    assert checkpoint.load(FOLDER / "checkpoint.pt")["steps"] == 2 * BATCH
    starts = []
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda trainer: (starts.append(trainer.steps), run(trainer))[1])
    assert call(train.main, *many)[0] == 0
    assert starts == [2 * BATCH]
    assert checkpoint.load(FOLDER / "checkpoint.pt")["steps"] == 4 * BATCH


def test_a_run_with_other_settings_is_refused_and_the_folder_unchanged(call):
    assert call(train.main, *AUTO, FEW)[0] == 0
    before = (FOLDER / "checkpoint.pt").read_bytes()
    code, _, err = call(train.main, *AUTO, FEW, "trainer.clip=0.1")
    assert code == 1
    assert "outputs/mine holds a run with trainer.clip=0.2, and this one has trainer.clip=0.1: choose another na" in err
    assert "continue it with resume=" in err
    assert err.count("\n") == 1
    assert (FOLDER / "checkpoint.pt").read_bytes() == before


def test_settings_that_are_refused_leave_nothing_and_may_be_corrected(call):
    code, _, err = call(train.main, *AUTO, FEW, "world.agents=2000")
    assert code == 1
    assert "agents=2000 do not fit" in err
    assert not FOLDER.exists()
    assert call(train.main, *AUTO, FEW, "world.agents=32")[0] == 0


def test_a_run_in_a_folder_of_any_name_starts_and_ends_once(call):
    assert call(train.main, *AUTO, FEW, "hydra.run.dir=here")[0] == 0
    assert "ended earlier" in call(train.main, *AUTO, FEW, "hydra.run.dir=here")[1]
    assert not FOLDER.exists()


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [1, 2])
def test_a_run_killed_at_a_random_moment_and_started_again_ends_like_an_uninterrupted_one(tmp_path, tasks):
    many = ["-m", "particle_grid.train", *AUTO, f"trainer.total_steps={300 * BATCH}"]
    many += [f"trainer.checkpoint_every={20 * BATCH}"]
    whole = run_all(srun(tasks), tmp_path / "whole", *many)
    assert [process.returncode for process, _ in whole] == [0] * tasks, whole
    parts = tmp_path / "parts"
    for _ in range(2):
        processes = start_all(srun(tasks), parts, *many)
        saved = parts / FOLDER / "checkpoint.pt"
        before = saved.stat().st_mtime_ns if saved.exists() else 0
        while processes[0].poll() is None and not (saved.exists() and saved.stat().st_mtime_ns > before):
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.5))
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    for _ in range(2):  # the second time, nothing is left to do
        ended = run_all(srun(tasks), parts, *many)
        assert [process.returncode for process, _ in ended] == [0] * tasks, ended
    assert "ended earlier, nothing to train" in ended[0][1]
    expected = tmp_path / "whole" / FOLDER / "checkpoint.pt"
    assert (parts / FOLDER / "checkpoint.pt").read_bytes() == expected.read_bytes()


def test_a_damaged_checkpoint_is_kept_and_the_run_starts_again_once_it_is_removed(call):
    assert call(train.main, *AUTO, FEW)[0] == 0
    (FOLDER / "results.json").unlink()
    saved = FOLDER / "checkpoint.pt"
    saved.write_bytes(saved.read_bytes()[:-100])
    damaged = saved.read_bytes()
    code, _, err = call(train.main, *AUTO, FEW)
    assert code == 1
    assert err.endswith("use another one, or remove it to train again.\n")
    assert err.count("\n") == 1
    assert saved.read_bytes() == damaged
    saved.unlink()
    assert call(train.main, *AUTO, FEW)[0] == 0

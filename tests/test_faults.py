"""Machine failures during real runs: nothing that was saved is lost, and the reason is reported."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from particle_grid import eval as evaluation
from particle_grid import train
from particle_grid.learn import checkpoint
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from particle_grid.runs.load import load_checkpoint
from particle_grid.runs.results import Results
from particle_grid.support import atomic
from tests.cases import small
from tests.support.test_atomic import no_file_beyond
from tests.test_train import BATCH, ROOT, TINY

KILLS, EVERY = 50, 2 * BATCH  # a checkpoint every two iterations
# The imports of a command that training does not need are left out, since they would double the time.
RUN = f"""
import os
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.trainer import Trainer
from particle_grid.runs.build import build_env, build_policy
from particle_grid.runs.load import load_checkpoint
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.world import World

world = World(agents=32, height=32, width=40, lifespan=20)
config = RunConfig("center", "continuous", "conv_lstm", policy_options={{"hidden": 16}}, world=world, name="killed")
reached = os.open("reached", os.O_RDWR | os.O_CREAT)


class Reached:
    def log(self, step, scalars):
        os.pwrite(reached, step.to_bytes(8, "little"), 0)


env = build_env(config)
settings = TrainerConfig(
    total_steps=10**9, rollout_length=8, minibatch=64, threads=1, device="cpu", fast="off", checkpoint_every={EVERY}
)
trainer = Trainer(env, build_policy(config), settings, [Reached()], "checkpoint.pt", config.to_dict())
if os.path.exists("checkpoint.pt"):
    trainer.load_state_dict(load_checkpoint("checkpoint.pt", resume=True).trainer)
trainer.run()
"""


def run(call, folder="run", *arguments):
    """Start a short run that saves checkpoints."""
    return call(train.main, *TINY, f"trainer.total_steps={2 * BATCH}", "clips=0", f"hydra.run.dir={folder}", *arguments)


@pytest.mark.release
def test_a_run_killed_fifty_times_keeps_a_whole_checkpoint_and_loses_at_most_one_interval(tmp_path):
    generator = random.Random(0)
    path = tmp_path / "checkpoint.pt"
    reached = tmp_path / "reached"
    before = 0
    for kill in range(KILLS):
        reached.write_bytes(bytes(8))
        process = subprocess.Popen(
            [sys.executable, "-c", RUN], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        for _ in range(3000 * (kill % 10 > 0)):  # one kill in ten may come before training has started
            if any(reached.read_bytes()):
                break
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.3))
        process.kill()
        process.wait()
        saved = load_checkpoint(path).steps if path.exists() else 0  # raises for an incomplete file
        assert before <= saved
        assert int.from_bytes(reached.read_bytes(), "little") - saved <= EVERY
        before = saved
    assert before >= 10 * EVERY  # the run advances nevertheless
    unfinished = set(os.listdir(tmp_path)) - {"checkpoint.pt", "reached"}
    assert all(name.startswith(atomic.TEMPORARY) for name in unfinished)  # left by interrupted writes


@pytest.mark.slow
def test_a_killed_command_resumes_from_its_last_checkpoint_in_its_own_folder(tmp_path):
    arguments = [*TINY, "trainer.total_steps=1e9", f"trainer.checkpoint_every={BATCH}", "clips=0", "hydra.run.dir=run"]
    command, path = [sys.executable, "-m", "particle_grid.train"], tmp_path / "run" / "checkpoint.pt"
    steps = [0]
    for _ in range(2):
        process = subprocess.Popen(
            [*command, *arguments], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
        )
        try:
            for _ in range(600):  # a minute
                assert process.poll() is None
                with contextlib.suppress(ValueError):  # none yet
                    if checkpoint.load(path)["steps"] > steps[-1]:
                        break
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
        steps.append(load_checkpoint(path).steps)
        arguments = ["resume=run/checkpoint.pt", "hydra.run.dir=run"]
    assert 0 < steps[1] < steps[2]


@pytest.mark.slow
def test_a_full_disk_ends_a_run_in_one_sentence_and_keeps_the_last_checkpoint(call):
    assert run(call)[0] == 0
    whole = Path("run/checkpoint.pt").read_bytes()
    more = ["resume=run/checkpoint.pt", "hydra.run.dir=run", f"trainer.total_steps={6 * BATCH}"]
    with no_file_beyond(len(whole) // 2):
        code, _, err = call(train.main, *more, f"trainer.checkpoint_every={BATCH}")
    assert code == 1
    assert "run/checkpoint.pt could not be written (File too large); any earlier content is untouched" in err
    assert err.count("\n") == 1
    assert Path("run/checkpoint.pt").read_bytes() == whole
    assert call(train.main, *more)[0] == 0
    assert checkpoint.load("run/checkpoint.pt")["steps"] == 6 * BATCH


def test_removing_the_folder_of_a_run_ends_it_in_one_sentence(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    env = small("center", "discrete")

    class Remover:
        def log(self, step, scalars):
            shutil.rmtree(folder, ignore_errors=True)

    config = TrainerConfig(total_steps=1920, rollout_length=8, minibatch=480, device="cpu")
    trainer = Trainer(
        env, make_policy("mlp", env.vision, env.single_action_space), config, [Remover()], folder / "c.pt"
    )
    with pytest.raises(OSError, match=r"c.pt could not be written \(No such file or directory\)"):
        trainer.run()


@pytest.mark.parametrize("place", ["/proc/run", "file/run"])
def test_a_folder_that_cannot_be_written_is_reported_in_one_sentence(call, tmp_path, place):
    (tmp_path / "file").write_text("")
    code, _, err = run(call, place)
    assert code == 1
    assert f"{place} cannot be used" in err or "file cannot be used" in err
    assert err.count("\n") == 1


def test_a_folder_in_which_another_process_trains_is_refused(call):
    Path("run").mkdir()
    with FileLock("run/.lock"):
        code, _, err = run(call)
    assert code == 1
    assert "run is in use by another process that trains there: choose another folder (hydra.run.dir=PATH)" in err
    assert not Path("run/checkpoint.pt").exists()
    assert run(call)[0] == 0


def test_another_run_does_not_overwrite_a_finished_one(call):
    assert run(call)[0] == 0
    whole = Path("run/checkpoint.pt").read_bytes()
    assert run(call, "other", "seed=1")[0] == 0
    for arguments in ((), ("resume=other/checkpoint.pt",)):
        code, _, err = call(train.main, *arguments, "hydra.run.dir=run")
        assert code == 1
        assert "run holds a run, whose checkpoint this one would overwrite: continue it with resume=" in err
    assert Path("run/checkpoint.pt").read_bytes() == whole


def test_results_reach_the_disk_before_they_replace_the_old_file(tmp_path, monkeypatch):
    """Otherwise a power failure could leave an empty file, and with it a run that counts as finished."""
    done, path = [], tmp_path / "results.json"
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: (done.append(name), real(*args))[1])
    Results({"sampled": np.ones((2, 1))}, {"sampled": np.array([0.5, 0.5])}).write(path)
    assert done == ["fsync", "replace", "fsync"]  # of the file, then of the folder that lists it
    assert json.loads(path.read_text())["sampled"]["normalised_scores"] == [0.5, 0.5]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a small checkpoint of a trainer with every part that one can have."""
    path = tmp_path_factory.mktemp("saved") / "c.pt"
    env = small("center", "discrete", worlds=1, agents=8, height=16, width=16)
    torch.manual_seed(0)
    policy = make_policy("mlp", env.vision, env.single_action_space, hidden=4)
    Trainer(env, policy, TrainerConfig(total_steps=64, rollout_length=8, minibatch=64, device="cpu"), path=path).run()
    return path


def same(a, b):
    """Return whether two nested states are equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(saved, place, bit):
    whole = bytearray(saved.read_bytes())
    whole[int(place * len(whole))] ^= 1 << bit
    damaged = saved.with_name("damaged.pt")
    damaged.write_bytes(whole)
    with contextlib.suppress(ValueError):  # any other exception would show users a traceback
        assert same(checkpoint.load(damaged), checkpoint.load(saved))


@given(keep=st.floats(0, 1, exclude_max=True))
def test_a_checkpoint_cut_off_anywhere_is_refused(saved, keep):
    whole = saved.read_bytes()
    damaged = saved.with_name("damaged.pt")
    damaged.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ValueError, match="is not a checkpoint or is damaged"):
        checkpoint.load(damaged)


def test_a_policy_for_another_window_size_is_refused_in_one_sentence(call):
    assert run(call)[0] == 0
    code, _, err = call(evaluation.main, "checkpoint=run/checkpoint.pt", "world.vision=3", "steps=2")
    assert code == 1
    assert err.count("\n") == 1
    assert "vision" in err


@pytest.mark.slow
def test_when_one_process_of_a_run_dies_the_others_end_within_seconds(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command += ["particle_grid.train", *TINY, "task=center", "trainer.total_steps=1e9", "clips=0", "hydra.run.dir=run"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for _ in range(900):
            if any(b"perf/steps_per_second" in file.read_bytes() for file in tmp_path.glob("**/events*")):
                break
            assert process.poll() is None
            time.sleep(0.1)
        workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        workers = [pid for pid in workers if b"particle_grid" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        os.kill(random.Random(0).choice(workers), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "SIGKILL" in err or "-9" in err
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

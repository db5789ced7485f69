"""Training is repeatable, resumable, fully reported, and stops cleanly."""

import math
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from particle_grid.learn import checkpoint
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from particle_grid.support.errors import UserRuntimeError
from tests.learn.toy import SPACES, Toy
from tests.learn.training import SMALL, Record, make, weights


@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("name", ["conv_lstm", "mlp"])
@pytest.mark.parametrize("splits", [1, 2])
def test_a_resumed_run_ends_with_the_same_weights(name, form, splits, tmp_path):
    whole = make(name, form, splits=splits)
    whole.run()

    first = make(name, form, splits=splits, path=tmp_path / "checkpoint.pt")
    first.loggers = [Record(lambda step: setattr(first, "interrupted", step == 128))]
    assert first.run().interrupted
    second = make(name, form, seed=7, config=replace(SMALL, seed=9), splits=splits)
    second.load_state_dict(checkpoint.load(tmp_path / "checkpoint.pt"))
    assert second.steps == 128
    assert torch.equal(weights(first), weights(second))
    result = second.run()
    assert (result.steps, result.interrupted) == (256, False)
    assert torch.equal(weights(whole), weights(second))
    assert not torch.equal(weights(first), weights(second))
    for a, b in zip(whole.collector.state, second.collector.state, strict=True):
        assert torch.equal(a, b)


def test_a_resumed_run_uses_its_own_settings():
    first = make()
    first.run()
    second = make(config=replace(SMALL, total_steps=512, learning_rate=3e-3, adam_eps=1e-3, anneal=False))
    second.load_state_dict(first.state_dict())
    second.run()
    optimiser = second.updater.optimiser
    assert (optimiser.learning_rate, optimiser.config.adam_eps) == (3e-3, 1e-3)


ROOT = Path(__file__).parents[2]


FIRST = """
import torch
torch.set_num_threads(1)
from tests.learn.training import make, weights
assert torch.get_num_threads() == 1, "an import has changed how many threads torch has"
ends = []
for _ in range(2):
    run = make(splits=2)
    run.run()
    ends.append(weights(run))
assert torch.equal(*ends), (ends[0] - ends[1]).abs().max()
"""


def test_the_first_trainer_of_a_process_learns_like_later_ones():
    process = subprocess.run([sys.executable, "-c", FIRST], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    def trained(seed, config_seed):
        run = make(seed=seed, config=replace(SMALL, seed=config_seed))
        run.run()
        return weights(run)

    assert torch.equal(trained(1, 1), trained(1, 1))
    assert not torch.equal(trained(1, 1), trained(2, 1))
    assert not torch.equal(trained(1, 1), trained(1, 2))


def test_steps_are_counted_in_agent_steps_and_overshoot_by_less_than_a_batch():
    record = Record()
    result = make(config=replace(SMALL, total_steps=130), loggers=[record]).run()
    assert record.steps == [64, 128, 192]
    assert result.steps == 192


NAMES = {
    "loss": ("policy", "value", "total"),
    "policy": ("moved", "entropy", "kl", "clip_fraction"),
    "value": ("explained_variance",),
    "optim": ("grad_norm", "weight_norm", "learning_rate"),
    "perf": ("steps_per_second", "simulate", "infer", "learn"),
    "episode": ("reward",),
}


@pytest.mark.parametrize("form", SPACES)
def test_every_iteration_reports_every_scalar(form):
    record = Record()
    env = Toy(space=SPACES[form], ends=0.1)
    policy = make_policy("conv_lstm", 1, SPACES[form], hidden=16, head="gaussian" if form == "continuous" else "auto")
    Trainer(env, policy, SMALL, [record], normalise=lambda score: 2 * score + 1).run()
    wanted = {"env/score", "env/normalised_score", *(["policy/log_std"] if form == "continuous" else [])}
    for folder, names in NAMES.items():
        wanted |= {f"{folder}/{name}" for name in names}
    for scalars in record.scalars:
        assert set(scalars) == wanted
        assert all(type(x) is float and math.isfinite(x) for x in scalars.values())
        assert scalars["env/normalised_score"] == 2 * scalars["env/score"] + 1
        assert 0.5 < sum(scalars[f"perf/{k}"] for k in ("simulate", "infer", "learn")) <= 1.001


def test_checkpoints_are_saved_at_intervals_and_at_the_end(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda path, state: saved.append(state["steps"]))
    make(config=replace(SMALL, total_steps=320, checkpoint_every=100), path=tmp_path / "c").run()
    make(path=tmp_path / "c").run()
    make(config=replace(SMALL, checkpoint_every=64)).run()
    assert saved == [128, 256, 320, 256]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_non_finite_reward_stops_the_run_and_keeps_the_last_good_checkpoint(bad, tmp_path):
    env = Toy()
    env.reward = lambda obs, actions: np.full(8, bad if env.ticks > 20 else 1.0, np.float32)
    run = make(env=env, config=replace(SMALL, checkpoint_every=64), path=tmp_path / "c")
    with pytest.raises(RuntimeError, match=r"between steps 128 and 192: episode/reward became NaN or infinite"):
        run.run()
    good = checkpoint.load(tmp_path / "c")
    assert good["steps"] == 128
    assert all(x.isfinite().all() for x in good["policy"].values())


def test_non_finite_weights_stop_the_run():
    run = make("mlp")
    run.policy.critic.bias.data[:] = math.nan
    with pytest.raises(RuntimeError, match=r"between steps 0 and 64: .*loss/value.*became NaN"):
        run.run()


def test_a_checkpoint_holds_the_config_of_the_run(tmp_path):
    run = make(path=tmp_path / "c", run_config={"task": {"name": "toy"}, "seed": 3})
    run.save()
    assert checkpoint.load(tmp_path / "c")["config"] == {"task": {"name": "toy"}, "seed": 3}


def test_a_checkpoint_of_another_policy_or_run_size_is_refused():
    saved = make("conv_lstm").state_dict()
    with pytest.raises(ValueError, match="policy or device differs"):
        make("mlp").load_state_dict(saved)
    with pytest.raises(ValueError, match="checkpoint has agents=8 and this run has agents=4"):
        make(env=Toy(n=4)).load_state_dict(saved)
    with pytest.raises(ValueError, match="checkpoint has env_splits=1 and this run has env_splits=2"):
        make(splits=2).load_state_dict(saved)


@pytest.mark.parametrize("path", [".", "", "missing/c.pt"])
def test_a_path_that_cannot_be_written_is_refused_before_training(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be written: (it is a folder|there is no folder)"):
        make(path=path)


def test_a_trainer_refuses_to_run_twice_at_once_but_can_run_again():
    refused = []

    def run_again():
        with pytest.raises(UserRuntimeError, match="This trainer is already running"):
            run.run()
        refused.append(threading.current_thread())

    def in_both_threads(step):
        run_again()
        thread = threading.Thread(target=run_again)
        thread.start()
        thread.join()

    run = make(loggers=[Record(in_both_threads)])
    assert run.run().steps == 256
    assert len(refused) == 2 * 4
    run.config = replace(SMALL, total_steps=320)
    run.loggers = []
    assert run.run().steps == 320

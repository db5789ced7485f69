import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from particle_grid.learn import checkpoint, trainer
from particle_grid.learn.policy import POLICIES, make_policy
from particle_grid.learn.trainer import Trainer, TrainerConfig
from tests.learn.toy import SPACES, Toy

SMALL = TrainerConfig(
    total_steps=256,
    rollout_length=8,
    minibatch=32,
    epochs=2,
    learning_rate=1e-2,
    device="cpu",
    threads=1,
    checkpoint_every=0,
)


class Record:
    """A logger that keeps what it is given, and may do something at every iteration."""

    def __init__(self, then=lambda step: None):
        self.steps, self.scalars, self.then = [], [], then

    def log(self, step, scalars):
        self.steps.append(step)
        self.scalars.append(dict(scalars))
        self.then(step)


def make(name="conv_lstm", form="discrete", config=SMALL, env=None, seed=0, splits=1, **kwargs):
    torch.manual_seed(seed)
    policy = make_policy(name, 1, env.single_action_space if env else SPACES[form], hidden=16)
    envs = [Toy(8 // splits, SPACES[form], ends=0.1) for _ in range(splits)]
    return Trainer(env or (envs if splits > 1 else envs[0]), policy, config, **kwargs)


def weights(run):
    return torch.nn.utils.parameters_to_vector(run.policy.parameters()).detach().clone()


def stir(run):
    """Weights with which memory and every input matter."""
    with torch.no_grad():
        for p in run.policy.parameters():
            p.add_(0.3 * torch.randn_like(p))


def capture_ratios(monkeypatch):
    """A list to which every minibatch adds its log-ratios of the valid steps."""
    seen, real = [], trainer.ppo_loss

    def spy(logp, entropy, value, old_logp, advantage, returns, valid, **kwargs):
        seen.append((logp - old_logp).detach()[valid])
        return real(logp, entropy, value, old_logp, advantage, returns, valid, **kwargs)

    monkeypatch.setattr(trainer, "ppo_loss", spy)
    return seen


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("splits", [1, 2])
def test_without_learning_every_ratio_is_one_in_every_segment(name, form, terminal, splits, monkeypatch):
    ratios = capture_ratios(monkeypatch)
    run = make(name, form, replace(SMALL, learning_rate=0.0), splits=splits)
    for split in run.splits:
        split.env.terminal = terminal
    stir(run)
    before = weights(run)
    run.run()
    assert len(ratios) == 4 * 2 * 2  # segments, epochs, minibatches
    assert max(x.abs().max() for x in ratios) < 1e-5
    assert torch.equal(weights(run), before)
    if name == "conv_lstm":
        assert run.state[0].abs().mean() > 0.05


def test_the_ratios_tell_when_a_segment_is_replayed_from_another_state(monkeypatch):
    """Holds the test above to account: the mistake it is there for is seen."""
    ratios = capture_ratios(monkeypatch)
    run = make(config=replace(SMALL, learning_rate=0.0))
    stir(run)
    run.rollout()
    run.rollout()
    run.buffer.state = run.policy.initial_state(8)
    run.update()
    assert max(x.abs().max() for x in ratios) > 1e-3


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("name", POLICIES)
def test_the_bootstrap_of_a_segment_is_the_first_value_of_the_next(name, splits):
    run = make(name, splits=splits)
    stir(run)
    for _ in range(3):
        run.rollout()
        bootstrap = run.buffer.values[-1].clone()
        assert bootstrap.abs().min() > 0
        run.rollout()
        torch.testing.assert_close(bootstrap, run.buffer.values[0])


@pytest.mark.parametrize("sizes", [[6], [4, 2]])
def test_the_buffer_holds_what_the_environments_gave(sizes):
    envs = [Toy(n, ends=0.3, reward=lambda obs, actions: obs[:, 0] + actions[:, 1].astype(np.float32)) for n in sizes]
    run, steps = Trainer(envs, make().policy, SMALL), []

    def watch(env):
        real, seen = env.step, []
        steps.append(seen)

        def step(actions):
            before = env.observations.copy()
            after = real(actions)
            seen.append((before, actions.copy(), *(x.copy() for x in after[1:4])))
            return after

        env.step = step

    for env in envs:
        watch(env)
    run.rollout()
    over = torch.from_numpy(np.concatenate([env.terminals | env.truncations for env in envs]))
    state = run.state
    for seen in steps:
        seen.clear()
    run.rollout()
    r = run.buffer
    for t in range(SMALL.rollout_length):
        obs, actions, rewards, terminals, truncations = map(
            np.concatenate, zip(*(seen[t] for seen in steps), strict=True)
        )
        pairs = [(r.obs, obs), (r.actions, actions), (r.rewards, rewards), (r.terminals, terminals)]
        for ours, theirs in (*pairs, (r.truncations, truncations)):
            np.testing.assert_array_equal(ours[t].numpy(), theirs)
        np.testing.assert_array_equal(r.starts[t + 1].numpy(), terminals | truncations)
    assert torch.equal(r.starts[0], over)
    assert all(a is b for a, b in zip(r.state, state, strict=True))
    assert r.truncations.any()


def test_a_truncated_step_leaves_no_trace_in_the_weights():
    """What the policy happened to draw, and what is in the reward buffer there, is of no account."""

    def learn(noise):
        run = make(config=replace(SMALL, gae_lambda=0.95))
        run.rollout()
        where = run.buffer.truncations
        assert where.any()
        run.buffer.rewards[where] = noise
        run.buffer.logp[where] -= noise
        run.buffer.actions[where] = 2 if noise else 0
        run.update()
        return weights(run)

    assert torch.equal(learn(0.0), learn(50.0))


def constant_reward_value(env, config):
    """The values learnt in an environment that pays 1 for each decision, and the buffer they are of."""
    run = make("mlp", config=config, env=env)
    run.run()
    run.rollout()
    return run.buffer.values[:-1], run.buffer


ONES = replace(
    SMALL, total_steps=16 * 8 * 120, minibatch=128, epochs=4, learning_rate=2e-2, gamma=0.9, reward_scale=1.0,
    max_grad_norm=10.0, entropy_coef=0.0,
)  # fmt: skip


def pay(obs, actions):
    return np.ones(len(obs), np.float32)


class Fixed:
    """Opponents that always do the same."""

    def __init__(self, agents, action):
        self.agents, self.action = np.array(agents, bool), np.array(action, np.int32)

    def act(self, moment):
        return np.broadcast_to(self.action, (len(self.agents), 2))

    def state_dict(self):
        return {}


def test_what_opponents_do_and_get_leaves_no_trace_in_the_weights():
    theirs = [True, False, False, True, False, False, False, False]

    def train(action, reward):
        env = Toy(reward=lambda obs, actions: np.where(theirs, reward, actions[:, 0]).astype(np.float32))
        run = make(env=env, opponents=lambda env: Fixed(theirs, action))
        played, real = [], env.step
        env.step = lambda actions: (played.append(actions.copy()), real(actions))[1]
        run.run()
        assert run.batch == 6 * 8
        assert all((actions[theirs] == action).all() for actions in played)
        return weights(run), run.scalars["env/reward"]

    one, reward = train([0, 0], 0.0)
    other, same = train([2, 1], 0.5)
    assert torch.equal(one, other)
    assert reward == same


def test_with_truncations_alone_the_value_is_that_of_going_on_for_ever():
    values, _ = constant_reward_value(Toy(n=16, period=4, reward=pay), replace(ONES, reward_scale=0.5))
    assert values.mean() / 0.5 == pytest.approx(10, abs=0.3)  # 1 / (1 - gamma): as if no episode ever ended


def test_with_terminal_steps_the_value_is_the_sum_to_the_end():
    """Episodes of three decisions, told apart by a feature: 1 + 0.9 + 0.81, 1 + 0.9, 1."""
    env = Toy(n=16, period=3, terminal=True, reward=pay)
    observe = env._observe

    def with_age():
        observe()
        env.observations[:] = 0
        env.observations[np.arange(16), env.age] = 1

    env._observe = with_age
    values, buffer = constant_reward_value(env, ONES)
    age = buffer.obs[:, :, :3].argmax(-1)
    for k, expected in enumerate((2.71, 1.9, 1.0)):
        assert values[age == k].mean() == pytest.approx(expected, abs=0.15)


def toward(target):
    """Pays by nearness to a target, or for one choice."""

    def reward(obs, actions):
        if actions.dtype == np.int32:
            return (actions == target).all(1).astype(np.float32)
        return np.exp(-4 * ((np.clip(actions, -1, 1) - target) ** 2).sum(1)).astype(np.float32)

    return reward


@pytest.mark.parametrize(("form", "target"), [("discrete", [2, 0]), ("continuous", [0.5, -0.5])])
@pytest.mark.parametrize("name", POLICIES)
def test_a_simple_task_is_learnt(name, form, target):
    env = Toy(n=32, space=SPACES[form], ends=0.05, reward=toward(np.array(target)))
    config = replace(
        SMALL, total_steps=32 * 8 * 60, minibatch=64, epochs=1, learning_rate=1e-2, gamma=0.5, reward_scale=1.0
    )
    record = Record()
    make(name, form, config, env, loggers=[record]).run()
    rewards = [x["env/reward"] for x in record.scalars]
    assert rewards[0] < 0.4
    assert np.mean(rewards[-5:]) > 0.75


@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("name", ["conv_lstm", "mlp"])
@pytest.mark.parametrize("splits", [1, 2])
def test_a_resumed_run_ends_with_the_very_same_weights(name, form, splits, tmp_path):
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
    for a, b in zip(whole.state, second.state, strict=True):
        assert torch.equal(a, b)


def test_a_resumed_run_learns_with_its_own_settings():
    first = make()
    first.run()
    second = make(config=replace(SMALL, total_steps=512, learning_rate=3e-3, adam_eps=1e-3, anneal=False))
    second.load_state_dict(first.state_dict())
    second.run()
    assert [(group["lr"], group["eps"]) for group in second.optimiser.param_groups] == [(3e-3, 1e-3)]


def test_lanes_are_simulated_with_as_many_threads_as_their_trainer_has(monkeypatch):
    before, seen = numba.get_num_threads(), set()
    step = Toy.step
    monkeypatch.setattr(Toy, "step", lambda *args: seen.add(numba.get_num_threads()) or step(*args))
    try:
        numba.set_num_threads(1)
        make(splits=2).run()
    finally:
        numba.set_num_threads(before)
    assert seen == {1}


ROOT = Path(__file__).parents[2]
FIRST = """
import torch
torch.set_num_threads(1)
from tests.learn.test_trainer import make, weights
assert torch.get_num_threads() == 1, "an import has changed how many threads torch has"
ends = []
for _ in range(2):
    run = make(splits=2)
    run.run()
    ends.append(weights(run))
assert torch.equal(*ends), (ends[0] - ends[1]).abs().max()
"""


def test_the_first_trainer_of_a_process_learns_as_later_ones_do():
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


def test_learning_rate_and_entropy_bonus_fall_linearly_or_stay(monkeypatch):
    real, bonuses = trainer.ppo_loss, []

    def spy(*args, entropy_coef, **kwargs):
        bonuses.append(entropy_coef)
        return real(*args, entropy_coef=entropy_coef, **kwargs)

    monkeypatch.setattr(trainer, "ppo_loss", spy)
    for anneal, shares in ((True, [1, 0.75, 0.5, 0.25]), (False, [1] * 4)):
        record = Record()
        bonuses.clear()
        make(config=replace(SMALL, anneal=anneal, entropy_coef=0.1), loggers=[record]).run()
        assert [x["optim/learning_rate"] for x in record.scalars] == pytest.approx([1e-2 * share for share in shares])
        assert bonuses[::4] == pytest.approx([0.1 * share for share in shares])  # 2 epochs of 2 minibatches


def test_a_minibatch_larger_than_the_batch_is_the_batch_and_parts_are_nearly_equal(monkeypatch):
    sizes, real = [], Trainer._minibatch

    def spy(self, agents, *rest):
        sizes.append(len(agents))
        return real(self, agents, *rest)

    monkeypatch.setattr(Trainer, "_minibatch", spy)
    make(config=replace(SMALL, minibatch=800, epochs=1, total_steps=1)).run()
    make(config=replace(SMALL, minibatch=24, epochs=1, total_steps=1)).run()
    assert sizes == [8, 3, 3, 2]


NAMES = {
    "env": ("moved", "reward"),
    "loss": ("policy", "value", "total"),
    "policy": ("entropy", "kl", "clip_fraction"),
    "value": ("explained_variance",),
    "optim": ("grad_norm", "weight_norm", "learning_rate"),
    "perf": ("steps_per_second", "simulate", "infer", "learn"),
}


@pytest.mark.parametrize("form", SPACES)
def test_every_name_a_run_reports_is_there(form):
    record, env = Record(), Toy(space=SPACES[form], ends=0.1)
    policy = make_policy("conv_lstm", 1, SPACES[form], hidden=16, head="gaussian" if form == "continuous" else "auto")
    Trainer(env, policy, SMALL, [record], normalise=lambda score: 2 * score + 1).run()
    wanted = {"score", "normalised_score", *(["policy/log_std"] if form == "continuous" else [])}
    for folder, names in NAMES.items():
        wanted |= {f"{folder}/{name}" for name in names}
    for scalars in record.scalars:
        assert set(scalars) == wanted
        assert all(type(x) is float and math.isfinite(x) for x in scalars.values())
        assert scalars["normalised_score"] == 2 * scalars["score"] + 1
        assert 0.5 < sum(scalars[f"perf/{k}"] for k in ("simulate", "infer", "learn")) <= 1.001


def test_checkpoints_come_as_often_as_asked_and_at_the_end(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda path, state: saved.append(state["steps"]))
    make(config=replace(SMALL, total_steps=320, checkpoint_every=100), path=tmp_path / "c").run()
    make(path=tmp_path / "c").run()
    make(config=replace(SMALL, checkpoint_every=64)).run()
    assert saved == [128, 256, 320, 256]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(bad, tmp_path):
    env = Toy()
    env.reward = lambda obs, actions: np.full(8, bad if env.ticks > 20 else 1.0, np.float32)
    run = make(env=env, config=replace(SMALL, checkpoint_every=64), path=tmp_path / "c")
    with pytest.raises(RuntimeError, match=r"between steps 128 and 192: env/reward became NaN or infinite"):
        run.run()
    good = checkpoint.load(tmp_path / "c")
    assert good["steps"] == 128
    assert all(x.isfinite().all() for x in good["policy"].values())


def test_weights_that_are_no_numbers_stop_the_run():
    run = make("mlp")
    run.policy.critic.bias.data[:] = math.nan
    with pytest.raises(RuntimeError, match=r"between steps 0 and 64: .*loss/value.*became NaN"):
        run.run()


def test_a_checkpoint_holds_the_config_of_the_run(tmp_path):
    run = make(path=tmp_path / "c", run_config={"task": {"name": "toy"}, "seed": 3})
    run.save()
    assert checkpoint.load(tmp_path / "c")["config"] == {"task": {"name": "toy"}, "seed": 3}


def test_a_checkpoint_of_another_policy_or_size_is_refused_in_a_sentence():
    saved = make("conv_lstm").state_dict()
    with pytest.raises(ValueError, match="policy or device differs"):
        make("mlp").load_state_dict(saved)
    with pytest.raises(ValueError, match="has 8 agents and this run 4"):
        make(env=Toy(n=4)).load_state_dict(saved)
    with pytest.raises(ValueError, match=r"has 1 env split\(s\) and this run 2"):
        make(splits=2).load_state_dict(saved)

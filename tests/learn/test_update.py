"""An update learns only from the decisions of the learning agents."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from particle_grid.learn import ppo
from particle_grid.learn.policy import POLICIES
from particle_grid.learn.update import Updater
from tests.learn.toy import SPACES, Toy
from tests.learn.training import SMALL, Record, make, stir, weights


def capture_ratios(monkeypatch):
    """Return a list to which every minibatch appends the log-ratios of its valid steps."""
    seen = []
    real = ppo.ppo_loss

    def spy(logp, entropy, value, old_logp, advantage, returns, valid, **kwargs):
        seen.append((logp - old_logp).detach()[valid])
        return real(logp, entropy, value, old_logp, advantage, returns, valid, **kwargs)

    monkeypatch.setattr(ppo, "ppo_loss", spy)
    return seen


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("splits", [1, 2])
def test_without_learning_every_ratio_is_one_in_every_rollout(name, form, terminal, splits, monkeypatch):
    ratios = capture_ratios(monkeypatch)
    run = make(name, form, replace(SMALL, learning_rate=0.0, fast="off"), splits=splits)
    for split in run.collector.splits:
        split.env.terminal = terminal
    stir(run)
    before = weights(run)
    run.run()
    assert len(ratios) == 4 * 2 * 2  # rollouts, epochs, minibatches
    assert max(x.abs().max() for x in ratios) < 1e-5
    assert torch.equal(weights(run), before)
    if name == "conv_lstm":
        assert run.collector.state[0].abs().mean() > 0.05


def test_a_rollout_replayed_from_another_state_has_other_ratios(monkeypatch):
    """The previous test would detect the mistake that it is meant to detect."""
    ratios = capture_ratios(monkeypatch)
    run = make(config=replace(SMALL, learning_rate=0.0))
    stir(run)
    run.rollout()
    run.rollout()
    run.buffer.state = run.policy.initial_state(8)
    run.update()
    assert max(x.abs().max() for x in ratios) > 1e-3


def test_a_truncated_step_has_no_effect_on_the_weights():
    """Neither the sampled action nor the reward of such a step matters."""

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


class Fixed:
    """Opponents that always choose the same action."""

    def __init__(self, agents, action):
        self.agents = np.array(agents, bool)
        self.action = np.array(action, np.int32)

    def act(self, moment):
        return np.broadcast_to(self.action, (len(self.agents), 2))

    def state_dict(self):
        return {}


def test_actions_and_rewards_of_opponents_have_no_effect_on_the_weights():
    theirs = [True, False, False, True, False, False, False, False]

    def train(action, reward):
        env = Toy(reward=lambda obs, actions: np.where(theirs, reward, actions[:, 0]).astype(np.float32))
        run = make(env=env, opponents=lambda env: Fixed(theirs, action))
        played = []
        real = env.step
        env.step = lambda actions: (played.append(actions.copy()), real(actions))[1]
        run.run()
        assert run.batch == 6 * 8
        assert all((actions[theirs] == action).all() for actions in played)
        return weights(run), run.scalars["episode/reward"]

    one, reward = train([0, 0], 0.0)
    other, same = train([2, 1], 0.5)
    assert torch.equal(one, other)
    assert reward == same


def test_the_second_team_learns_with_its_weight(monkeypatch):
    seen = []
    real = ppo.ppo_loss

    def spy(logp, entropy, value, old_logp, advantage, *rest, **kwargs):
        seen.append(advantage)
        return real(logp, entropy, value, old_logp, advantage, *rest, **kwargs)

    monkeypatch.setattr(ppo, "ppo_loss", spy)
    second = np.arange(8) % 2 == 1
    whole = replace(SMALL, minibatch=64, epochs=1, fast="off", second_team_weight=3.0)
    env = Toy(reward=lambda obs, actions: np.where(second, 50, 1) * actions[:, 0].astype(np.float32))
    run = make(env=env, config=whole, second_team=lambda env: second)
    monkeypatch.setattr(torch, "randperm", lambda n, **kwargs: torch.arange(n))  # the columns stay in order
    run.run()
    for advantage in seen:
        assert advantage[:, second].std() / advantage[:, ~second].std() == pytest.approx(3, rel=0.1)


ONES = replace(
    SMALL, total_steps=16 * 8 * 120, minibatch=128, epochs=4, learning_rate=2e-2, gamma=0.9, reward_scale=1.0,
    max_grad_norm=10.0, entropy_coef=0.0, optimiser="adam",
)  # fmt: skip


def pay(obs, actions):
    return np.ones(len(obs), np.float32)


def constant_reward_value(env, config):
    """Return the values learnt in an environment that pays 1 for each decision, and the buffer they belong to."""
    run = make("mlp", config=config, env=env)
    run.run()
    run.rollout()
    return run.buffer.values[:-1], run.buffer


def test_with_truncations_the_value_is_that_of_an_endless_episode():
    values, _ = constant_reward_value(Toy(n=16, period=4, reward=pay), replace(ONES, reward_scale=0.5))
    assert values.mean() / 0.5 == pytest.approx(10, abs=0.3)  # 1 / (1 - gamma), as if episodes never ended


def test_with_terminal_steps_the_value_is_the_sum_to_the_end():
    """Episodes have three decisions that the agent can tell apart: 1 + 0.9 + 0.81, 1 + 0.9, 1."""
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
    """Return a reward for being close to a target, or for one choice."""

    def reward(obs, actions):
        if actions.dtype == np.int32:
            return (actions == target).all(1).astype(np.float32)
        return np.exp(-4 * ((np.clip(actions, -1, 1) - target) ** 2).sum(1)).astype(np.float32)

    return reward


@pytest.mark.parametrize(
    ("name", "form", "objective"),
    [
        *(("conv_lstm", "discrete", "ppo"), ("conv_lstm", "continuous", "ppo"), ("conv", "discrete", "ppo")),
        *(("mlp", "continuous", "ppo"), ("mlp", "discrete", "awr"), ("conv_lstm", "continuous", "awr")),
    ],
)
def test_a_simple_task_is_learnt(name, form, objective):
    target = [2, 0] if form == "discrete" else [0.5, -0.5]
    env = Toy(n=32, space=SPACES[form], ends=0.05, reward=toward(np.array(target)))
    config = replace(
        SMALL, total_steps=32 * 8 * 60, minibatch=64, epochs=1, learning_rate=1e-2, gamma=0.5, reward_scale=1.0
    )
    config = replace(config, objective=objective, epochs=4 if objective == "awr" else 1)
    record = Record()
    trainer = make(name, form, config, env, loggers=[record])
    assert ("trainer.objective=awr" in trainer.how) == (name == "mlp" and objective == "awr")  # beside kernels
    trainer.run()
    rewards = [x["episode/reward"] for x in record.scalars]
    assert rewards[0] < 0.4
    assert np.mean(rewards[-5:]) > 0.75


def test_learning_rate_and_entropy_bonus_decay_with_a_power_of_what_is_left_or_stay_constant(monkeypatch):
    real = ppo.ppo_loss
    bonuses = []

    def spy(*args, entropy_coef, **kwargs):
        bonuses.append(entropy_coef)
        return real(*args, entropy_coef=entropy_coef, **kwargs)

    monkeypatch.setattr(ppo, "ppo_loss", spy)
    for anneal, power, shares in (
        (True, 1.0, [1, 0.75, 0.5, 0.25]),
        (True, 2.0, [1, 0.5625, 0.25, 0.0625]),
        (False, 2.0, [1] * 4),
    ):
        record = Record()
        bonuses.clear()
        make(config=replace(SMALL, anneal=anneal, anneal_power=power, entropy_coef=0.1), loggers=[record]).run()
        assert [x["optim/learning_rate"] for x in record.scalars] == pytest.approx([1e-2 * share for share in shares])
        assert bonuses[::4] == pytest.approx([0.1 * share for share in shares])  # 2 epochs of 2 minibatches


def test_minibatches_have_nearly_equal_size_and_never_exceed_the_batch(monkeypatch):
    sizes = []
    real = Updater._minibatch

    def spy(self, agents, *rest):
        sizes.append(len(agents))
        return real(self, agents, *rest)

    monkeypatch.setattr(Updater, "_minibatch", spy)
    make(config=replace(SMALL, minibatch=800, epochs=1, total_steps=1)).run()
    make(config=replace(SMALL, minibatch=24, epochs=1, total_steps=1)).run()
    assert sizes == [8, 3, 3, 2]


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
@pytest.mark.parametrize("threads", [1, 2])
def test_running_means_of_vanished_gradients_become_zero_instead_of_denormal(optimiser, threads):
    """A processor computes with denormal numbers many times more slowly."""
    run = make("mlp", config=replace(SMALL, optimiser=optimiser, threads=threads, entropy_coef=0.0, value_coef=0.0))
    run.rollout()
    means = [x for slot in run.updater.optimiser.slots for name, x in slot.moments.items() if name != "step"]
    for x in means:
        x.fill_(2e-38)
    run.buffer.values.zero_()  # no advantage, and so no gradient
    for _ in range(3):
        run.update()
    smallest = torch.finfo(torch.float32).tiny
    assert all(((x == 0) | (x.abs() >= smallest)).all() for x in means)
    assert any((x == 0).all() for x in means)

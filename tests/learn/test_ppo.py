import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from particle_grid.learn.ppo import advantages, explained_variance, masked_mean, normalised_by_team, ppo_loss

SETTINGS = {"clip": 0.2, "value_coef": 0.5, "entropy_coef": 0.01}


def oracle(rewards, values, terminals, truncations, gamma, lam):
    """Return advantages computed agent by agent as sums of the discounted errors of an episode."""
    steps, n = rewards.shape
    result = np.zeros((steps, n))
    for agent in range(n):
        for start in range(steps):
            if truncations[start, agent]:
                continue
            weight = 1.0
            for t in range(start, steps):
                if truncations[t, agent]:
                    break
                following = 0.0 if terminals[t, agent] else values[t + 1, agent]
                error = rewards[t, agent] + gamma * following - values[t, agent]
                result[start, agent] += weight * error
                if terminals[t, agent]:
                    break
                weight *= gamma * lam
    return result


@given(
    seed=st.integers(0, 2**31),
    steps=st.integers(1, 9),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    often=st.sampled_from([0.0, 0.2, 0.7]),
)
@settings(max_examples=60)
def test_advantages_equal_a_slow_oracle(seed, steps, gamma, lam, often):
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=(steps, 4))
    values = rng.normal(size=(steps + 1, 4))
    terminals = rng.random((steps, 4)) < often
    truncations = rng.random((steps, 4)) < often
    got = advantages(*(torch.from_numpy(x) for x in (rewards, values, terminals, truncations)), gamma, lam)
    np.testing.assert_allclose(got.numpy(), oracle(rewards, values, terminals, truncations, gamma, lam), atol=1e-10)


def test_the_return_before_a_truncation_is_the_reward_plus_the_bootstrap():
    rewards = torch.tensor([[1.0], [2.0], [40.0], [3.0]])
    values = torch.tensor([[5.0], [6.0], [7.0], [8.0], [9.0]])
    none = torch.zeros(4, 1, dtype=torch.bool)
    truncations = torch.tensor([[False], [False], [True], [False]])
    got = advantages(rewards, values, none, truncations, 0.9, 0.8)[:, 0]
    second = 2 + 0.9 * 7 - 6  # 7 is the value of the last observation; 40 and 8 do not count
    torch.testing.assert_close(got, torch.tensor([1 + 0.9 * 6 - 5 + 0.72 * second, second, 0.0, 3 + 0.9 * 9 - 8]))


def test_nothing_after_a_terminal_step_counts():
    rewards = torch.ones(3, 1)
    values = torch.randn(4, 1)
    terminals = torch.tensor([[False], [True], [False]])
    none = torch.zeros(3, 1, dtype=torch.bool)
    a = advantages(rewards, values, terminals, none, 0.9, 0.8)
    values[2:] += 100
    rewards[2] += 100
    b = advantages(rewards, values, terminals, none, 0.9, 0.8)
    assert torch.equal(a[:2], b[:2])
    assert not torch.equal(a[2:], b[2:])


@given(seed=st.integers(0, 2**31), weight=st.floats(0.1, 10), size=st.floats(0.01, 100), shift=st.floats(-9, 9))
@settings(max_examples=30)
def test_each_team_has_normalised_advantages_times_its_weight_whatever_its_rewards(seed, weight, size, shift):
    rng = np.random.default_rng(seed)
    advantage = rng.normal(size=(7, 9))
    valid = rng.random((7, 9)) < 0.7
    valid[0] = True
    second = np.arange(9) % 3 == 1
    advantage[:, second] = advantage[:, second] * size + shift
    arguments = (torch.from_numpy(x) for x in (advantage, valid, second))
    got = normalised_by_team(*arguments, weight, lambda x: x).numpy()
    for team, expected in ((~second, 1), (second, weight)):
        mine = valid & team
        centred = advantage[mine] - advantage[mine].mean()
        np.testing.assert_allclose(got[mine], expected * centred / advantage[mine].std(), rtol=1e-5, atol=1e-5)
    assert (got[~valid] == 0).all()


def batch(seed=0, shape=(5, 6)):
    """Return arguments of ppo_loss with ratios inside and outside the clip; the first three require gradients."""
    torch.manual_seed(seed)
    differentiable = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    old_logp = differentiable[0].detach() + 0.3 * torch.randn(shape)
    return [*differentiable, old_logp, torch.randn(shape), torch.randn(shape), torch.rand(shape) < 0.7]


def loss_and_gradients(arguments, **options):
    for x in arguments[:3]:
        x.grad = None
    loss, statistics = ppo_loss(*arguments, **SETTINGS, **options)
    loss.backward()
    return loss.detach(), statistics, [x.grad for x in arguments[:3]]


@given(seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_the_loss_equals_the_textbook_loss_of_the_valid_steps(seed):
    arguments = batch(seed)
    logp, entropy, value, old_logp, advantage, returns, valid = arguments
    loss, statistics, gradients = loss_and_gradients(arguments)
    select = [x[valid] for x in arguments[:6]]
    logp, entropy, value, old_logp, advantage, returns = select
    ratio = (logp - old_logp).exp()
    advantage = (advantage - advantage.mean()) / (advantage.std(unbiased=False) + 1e-8)
    policy_loss = torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)).mean()
    value_loss = 0.5 * (value - returns).square().mean()
    expected = policy_loss + 0.5 * value_loss - 0.01 * entropy.mean()
    torch.testing.assert_close(loss, expected.detach())
    for x, gradient in zip(arguments[:3], gradients, strict=True):
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, x, retain_graph=True)[0])
    names = ("loss/policy", "loss/value", "policy/entropy", "policy/kl", "policy/clip_fraction")
    assert set(statistics) == set(names)
    torch.testing.assert_close(statistics["policy/kl"], ((ratio - 1) - ratio.log()).mean().detach())
    torch.testing.assert_close(statistics["policy/clip_fraction"], ((ratio - 1).abs() > 0.2).float().mean())


@given(seed=st.integers(0, 1000), temperature=st.sampled_from([0.2, 1.0, 5.0]))
@settings(max_examples=25)
def test_advantage_weighted_regression_raises_the_likelihood_of_actions_by_their_weight(seed, temperature):
    arguments = batch(seed)
    logp, *_, advantage, _, valid = arguments
    _, expected, others = loss_and_gradients(arguments)
    _, statistics, gradients = loss_and_gradients(arguments, objective="awr", awr_temperature=temperature)
    standard = (advantage - advantage[valid].mean()) / (advantage[valid].std(unbiased=False) + 1e-8)
    weights = (standard / temperature).exp().clamp(max=20)
    torch.testing.assert_close(statistics["loss/policy"], -(weights * logp.detach())[valid].mean())
    torch.testing.assert_close(gradients[0], (-weights / valid.sum()).masked_fill(~valid, 0.0))
    torch.testing.assert_close(gradients[1:], others[1:])  # the other terms do not depend on the objective
    for name in expected.keys() - {"loss/policy"}:
        torch.testing.assert_close(statistics[name], expected[name])


@given(seed=st.integers(0, 1000), noise=st.sampled_from([1.0, 1e6, float("inf"), float("nan")]))
@settings(max_examples=25)
def test_a_truncated_step_never_affects_the_loss_or_its_gradients(seed, noise):
    arguments = batch(seed)
    before = loss_and_gradients(arguments)
    valid = arguments[-1]
    for x in arguments[3:6]:  # the values of these steps in the rollout
        x[~valid] += noise
    with torch.no_grad():
        for x in arguments[:3]:
            x[~valid] += 7.0
    after = loss_and_gradients(arguments)
    assert torch.equal(before[0], after[0])
    for a, b in zip(before[2], after[2], strict=True):
        assert torch.equal(a, b)
        assert (a[~valid] == 0).all()
        assert (a[valid] != 0).any()


def test_the_loss_stays_finite_when_policies_differ_greatly():
    arguments = batch()
    arguments[3] = arguments[0].detach() + 1000 * torch.randn(5, 6)
    loss, statistics, gradients = loss_and_gradients(arguments)
    assert all(x.isfinite().all() for x in (loss, *statistics.values(), *gradients))


def test_a_minibatch_without_a_valid_step_changes_nothing():
    arguments = batch()
    arguments[-1][:] = False
    loss, _, gradients = loss_and_gradients(arguments)
    assert loss == 0
    assert all((x == 0).all() for x in gradients)


def test_equal_advantages_give_no_policy_gradient():
    arguments = batch()
    arguments[4][:] = 3.0
    _, _, (d_logp, _, _) = loss_and_gradients(arguments)
    assert d_logp.abs().max() < 1e-6


def test_explained_variance_of_the_truth_is_one_of_a_constant_zero_over_valid_steps():
    returns = torch.randn(50, 4)
    valid = torch.rand(50, 4) < 0.8
    values = returns.where(valid, torch.tensor(1e9))
    assert explained_variance(values, returns, valid) == pytest.approx(1)
    assert explained_variance(torch.full_like(returns, 3.0), returns, valid) == pytest.approx(0, abs=1e-5)
    assert explained_variance(values, torch.ones_like(returns), valid) == 0


def test_the_masked_mean_of_nothing_is_zero():
    assert masked_mean(torch.tensor([1.0, float("nan")]), torch.tensor([False, False])) == 0
    assert masked_mean(torch.tensor([1.0, float("nan"), 2.0]), torch.tensor([True, False, True])) == 1.5

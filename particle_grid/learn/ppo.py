"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347): advantages and loss, as pure functions.

A truncated step is not a decision: the environment ignored the action and moved the agent to its next episode. Such
steps are excluded everywhere below. The observation before one was the last of its old episode, so its value is the
exact bootstrap of the step before.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST_WEIGHT = 20.0  # of an action with objective=awr, as its authors chose
LOG_RATIO_LIMIT = 20.0  # exp(20) = 5e8 is finite in float32, as is its square; ratios are clipped far below


def advantages(
    rewards: Tensor, values: Tensor, terminals: Tensor, truncations: Tensor, gamma: float, lam: float
) -> Tensor:
    """Return generalised advantage estimates (Schulman et al. 2016, arXiv:1506.02438).

    Args:
        rewards: f32[T, N].
        values: f32[T + 1, N]; the last row is of the observation after the last step.
        terminals: bool[T, N]. Nothing is bootstrapped after a terminal step.
        truncations: bool[T, N].
        gamma: discount per step.
        lam: 0 for one-step estimates, 1 for Monte Carlo returns.

    Returns:
        f32[T, N], 0 in truncated steps.
    """
    discount = gamma * (~terminals).to(rewards.dtype)
    delta = (rewards + discount * values[1:] - values[:-1]).masked_fill(truncations, 0.0)
    trace = (lam * discount).masked_fill(truncations, 0.0)
    result = torch.empty_like(rewards)
    following = torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        following = delta[t] + trace[t] * following
        result[t] = following
    return result


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of the valid elements of x, or 0 if none is valid."""
    return x.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1)


def explained_variance(values: Tensor, returns: Tensor, valid: Tensor) -> Tensor:
    """Return the share of the returns' variance that the values predict: at most 1, and 0 if returns do not vary."""

    def variance(x: Tensor) -> Tensor:
        return masked_mean((x - masked_mean(x, valid)).square(), valid)

    total = variance(returns)
    return torch.where(total > 0, 1 - variance(returns - values) / total.clamp(min=1e-12), 0.0)


def over_processes(own: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the moments of the numbers of all processes, which exchange them in one call (Chan et al. 1983).

    Args:
        own: f64[3], of the numbers of this process: how many they are, their sum, and the sum of their squared
            distances from their mean.
        total: sums a tensor over the processes, in place, and returns it.

    Returns:
        f64[3], the same of all numbers. For a single process these are `own`, bit for bit.
    """
    count, whole, _ = own
    sums = total(torch.cat([own, (whole * whole / count.clamp(min=1))[None]]))
    count, whole, squares, product = sums
    between = product - whole * whole / count.clamp(min=1)  # squared distances of the means from the common one
    return torch.stack([count, whole, squares + between])


def moments(advantage: Tensor, valid: Tensor, total: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean and standard deviation of the advantages of valid steps, and the number of these, at least 1.

    They are those of all processes that share a minibatch.
    """
    masked = advantage.masked_fill(~valid, 0.0)
    distance = (advantage - masked.sum() / valid.sum().clamp(min=1)).masked_fill(~valid, 0.0)
    own = torch.stack([valid.sum().double(), masked.sum().double(), distance.square().sum().double()])
    count, whole, squares = over_processes(own, total)
    count = count.clamp(min=1)
    mean = (whole / count).to(advantage.dtype)
    return mean, (squares / count).to(advantage.dtype).sqrt(), count.long()


def normalised(advantage: Tensor, valid: Tensor, centre: Tensor, std: Tensor) -> Tensor:
    """Return the distance of advantages from a centre in standard deviations, and 0 where they are not valid."""
    return ((advantage - centre) / (std + 1e-8)).masked_fill(~valid, 0.0)


def normalised_by_team(
    advantage: Tensor, valid: Tensor, second: Tensor, weight: float, total: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return advantages normalised over each of two teams by themselves, those of the second team times a weight.

    Args:
        advantage: f32[T, N].
        valid: bool[T, N], the steps that count.
        second: bool[N], the agents of the second team.
        weight: of their advantages.
        total: sums a tensor over processes, in place, and returns it.
    """
    result = torch.zeros_like(advantage)
    for team, factor in ((~second, 1.0), (second, weight)):
        mine = valid & team
        result += factor * normalised(advantage, mine, *moments(advantage, mine, total)[:2])
    return result


@torch.no_grad()
def ratio_statistics(
    log_ratio: Tensor, ratio: Tensor, clip: float, mean: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return how far the policy has moved. The KL divergence is the k3 estimate of joschu.net/blog/kl-approx.html."""
    return {
        "policy/kl": mean(ratio - 1 - log_ratio),
        "policy/clip_fraction": mean(((ratio - 1).abs() > clip).to(ratio.dtype)),
    }


def policy_terms(
    objective: str, logp: Tensor, ratio: Tensor, advantage: Tensor, clip: float, temperature: float
) -> Tensor:
    """Return the loss of the policy in each step, f32[T, n].

    Args:
        objective: `ppo` for the clipped surrogate; `awr` for advantage-weighted regression (Peng et al. 2019,
            arXiv:1910.00177), which has no probability ratios: each action becomes more likely in proportion to
            exp(advantage / temperature).
        logp, ratio, advantage: f32[T, n]; advantages are normalised.
        clip: of `ppo`, the distance from 1 beyond which probability ratios are clipped.
        temperature: of `awr`.
    """
    if objective == "awr":
        return -logp * (advantage / temperature).exp().clamp(max=LARGEST_WEIGHT)
    return -torch.min(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip))


def ppo_loss(
    logp: Tensor,
    entropy: Tensor,
    value: Tensor,
    old_logp: Tensor,
    advantage: Tensor,
    returns: Tensor,
    valid: Tensor,
    *,
    clip: float,
    value_coef: float,
    entropy_coef: float | Tensor,
    objective: str = "ppo",
    awr_temperature: float = 1.0,
    total: Callable[[Tensor], Tensor] = lambda x: x,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of the policy with value and entropy terms, and statistics of it.

    Args:
        logp, entropy, value: f32[T, n], of the policy now, with gradient.
        old_logp: f32[T, n], log-probability of the action when it was taken.
        advantage, returns: f32[T, n]. Advantages are normalised here.
        valid: bool[T, n], the steps that are not truncated. All means are over these.
        clip, objective, awr_temperature: of the policy's term, see `policy_terms`.
        value_coef, entropy_coef: weights of the other terms.
        total: sums a tensor over the processes that share a minibatch, whose results then add up to the whole.
    """
    centre, std, count = moments(advantage, valid, total)
    advantage = normalised(advantage, valid, centre, std)

    def mean(x: Tensor) -> Tensor:  # the share of this process in it
        return x.masked_fill(~valid, 0.0).sum() / count

    log_ratio = (logp - old_logp).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    policy = policy_terms(objective, logp, ratio, advantage, clip, awr_temperature)
    error = (value - returns).masked_fill(~valid, 0.0)  # before squaring: the gradient of NaN, masked later, is NaN
    terms = {"loss/policy": mean(policy), "loss/value": 0.5 * mean(error.square()), "policy/entropy": mean(entropy)}
    loss = terms["loss/policy"] + value_coef * terms["loss/value"] - entropy_coef * terms["policy/entropy"]
    return loss, {name: x.detach() for name, x in terms.items()} | ratio_statistics(log_ratio, ratio, clip, mean)

"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347): advantages and loss, as pure functions.

A truncated step is no decision: the environment ignored the action, and put the agent into its next episode. It is
excluded everywhere below. What the agent saw before it was the last of its old episode, and the value of that is the
exact bootstrap for the step before.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0  # exp(20) = 5e8 is still finite in float32, squared too; a ratio is clipped far below


def advantages(
    rewards: Tensor, values: Tensor, terminals: Tensor, truncations: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438).

    rewards f32[T, N]; values f32[T + 1, N], the last row of the observation behind the last step; terminals and
    truncations bool[T, N] -> f32[T, N], 0 in truncated steps. Nothing is bootstrapped behind a terminal step.
    """
    discount = gamma * (~terminals).to(rewards.dtype)
    delta = (rewards + discount * values[1:] - values[:-1]).masked_fill(truncations, 0.0)
    trace = (lam * discount).masked_fill(truncations, 0.0)
    result, following = torch.empty_like(rewards), torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        following = result[t] = delta[t] + trace[t] * following
    return result


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of x over the elements that are valid; 0 where none is."""
    return x.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1)


def explained_variance(values: Tensor, returns: Tensor, valid: Tensor) -> Tensor:
    """Share of the returns' variance that the values predict, at most 1; 0 if returns do not vary."""

    def variance(x: Tensor) -> Tensor:
        return masked_mean((x - masked_mean(x, valid)).square(), valid)

    total = variance(returns)
    return torch.where(total > 0, 1 - variance(returns - values) / total.clamp(min=1e-12), 0.0)


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
    entropy_coef: float,
    total: Callable[[Tensor], Tensor] = lambda x: x,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped surrogate loss with value and entropy terms, and statistics of it. All arguments are [T, n].

    logp, entropy, value: of the policy now, with gradient. old_logp: when it acted. valid bool: not truncated; means
    are over these, and the advantages are normalised over them. total: sums a number over the processes that share a
    minibatch; loss and statistics are then this one's shares, which add up to the whole. policy/kl is the k3 estimator
    of http://joschu.net/blog/kl-approx.html.
    """
    count = total(valid.sum()).clamp(min=1)

    def mean(x: Tensor) -> Tensor:
        return x.masked_fill(~valid, 0.0).sum() / count

    middle = total(mean(advantage))
    std = total(mean((advantage - middle).square())).sqrt()
    advantage = ((advantage - middle) / (std + 1e-8)).masked_fill(~valid, 0.0)
    log_ratio = (logp - old_logp).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    surrogate = torch.min(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip))
    policy_loss = -mean(surrogate)
    error = (value - returns).masked_fill(~valid, 0.0)  # before squaring: the gradient of NaN, masked later, is NaN
    value_loss = 0.5 * mean(error.square())
    mean_entropy = mean(entropy)
    loss = policy_loss + value_coef * value_loss - entropy_coef * mean_entropy
    with torch.no_grad():
        statistics = {
            "loss/policy": policy_loss.detach(),
            "loss/value": value_loss.detach(),
            "policy/entropy": mean_entropy.detach(),
            "policy/kl": mean(ratio - 1 - log_ratio),
            "policy/clip_fraction": mean(((ratio - 1).abs() > clip).to(ratio.dtype)),
        }
    return loss, statistics

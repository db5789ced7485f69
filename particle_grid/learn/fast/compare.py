"""Compare a network with the policy that it computes: outputs, recurrent state and the gradient of every parameter."""

from typing import NamedTuple

import torch
from torch import Tensor

from particle_grid.learn.policy import CELLS, FEATURES, Network, Policy


class Results(NamedTuple):
    """What a network computes: outputs, values and the next recurrent state; and the gradients of the parameters."""

    outputs: list[Tensor]
    gradients: list[Tensor]


@torch.enable_grad()  # even if called in the middle of a rollout
def results(policy: Policy, network: Network, steps: int = 3, agents: int = 16) -> Results:
    """Return what a network computes for random observations, starts and states, which are always the same.

    Afterwards the parameters have no gradients.

    Args:
        policy: holds the parameters, whose device and dtype the inputs have.
        network: computes the policy; or the policy itself.
        steps, agents: the size of the inputs.
    """
    generator = torch.Generator().manual_seed(0)
    like = next(policy.parameters())
    cells = torch.randint(0, CELLS, (steps, agents, policy.side**2), generator=generator)
    features = torch.randint(0, 256, (steps, agents, FEATURES), generator=generator)
    obs = torch.cat([cells, features], -1).to(like.device, torch.uint8)
    starts = (torch.rand(steps, agents, generator=generator) < 0.3).to(like.device)
    state = tuple((torch.rand(x.shape, generator=generator) - 0.5).to(like) for x in policy.initial_state(agents))
    weights = torch.randn(steps, agents, policy.head.outputs + 1, generator=generator).to(like)
    policy.zero_grad()
    out, value, after = network(obs, starts, state)
    ((out * weights[..., :-1]).sum() + (value * weights[..., -1]).sum()).backward()
    gradients = [x.grad.clone() for x in policy.parameters() if x.grad is not None]
    policy.zero_grad()
    return Results([x.detach().clone() for x in (out, value, *after)], gradients)


def largest_difference(got: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference of a tensor, relative to its norm, or infinity if their shapes differ."""
    if [x.shape for x in got] != [x.shape for x in expected]:
        return float("inf")
    differences = [(a - b).norm() / b.norm().clamp(min=1e-12) for a, b in zip(got, expected, strict=True)]
    return float(torch.stack(differences).max())  # NaN if any is


def compare(policy: Policy, network: Network, steps: int = 3, agents: int = 16) -> float:
    """Return the largest relative difference between a policy and a fast implementation of it, as in `results`."""
    expected = results(policy, policy, steps, agents)
    got = results(policy, network, steps, agents)
    return largest_difference([*got.outputs, *got.gradients], [*expected.outputs, *expected.gradients])

"""Policies and inputs that reach every path of a network."""

import numpy as np
import torch

from particle_grid.learn.policy import make_policy
from tests.learn.toy import SPACES


def lively(vision=5, form="discrete", hidden=128, kind="conv_lstm"):
    """Return a policy with weights for which every path carries gradient."""
    policy = make_policy(kind.removeprefix("torch_"), vision, SPACES[form], hidden=hidden)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy


def inputs(policy, steps, n, density=0.1, ends=0.2, seed=0):
    """Return observations with this density of occupied cells, starts of episodes, and a state."""
    generator = np.random.default_rng(seed)
    cells = generator.integers(1, 7, (steps, n, policy.side**2)) * (generator.random((steps, n, 1)) < density)
    obs = np.concatenate([cells, generator.integers(0, 256, (steps, n, 7))], -1).astype(np.uint8)
    state = tuple(
        torch.from_numpy(generator.normal(0, 0.5, x.shape).astype(np.float32)) for x in policy.initial_state(n)
    )
    return torch.from_numpy(obs), torch.from_numpy(generator.random((steps, n)) < ends), state

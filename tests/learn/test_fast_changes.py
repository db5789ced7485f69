"""Fast networks respect what a user changed about a policy: frozen weights, layouts in memory, replaced layers."""

from dataclasses import replace

import pytest
import torch

from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from tests.cases import needs_jit
from tests.learn.networks import inputs, lively
from tests.learn.test_fast import NETWORKS
from tests.learn.toy import SPACES, Toy
from tests.learn.training import SMALL

pytestmark = needs_jit("the kernels use machine instructions")
each_kind = pytest.mark.parametrize("kind", NETWORKS)


def weigh(out, agents, d_out):
    """Return the sum of all outputs, as a loss."""
    d_out[:, : len(agents)] = 1
    return out[:, : len(agents)].sum()


def train(policy, form="discrete", iterations=2):
    """Return a trainer with kernels after some iterations."""
    env = Toy(12, SPACES[form], vision=5, ends=0.1)
    trainer = Trainer(env, policy, replace(SMALL, fast="fp32"))
    assert "fp32 kernels" in trainer.how
    for _ in range(iterations):
        trainer.rollout()
        trainer.update()
    return trainer


@pytest.mark.parametrize("kind", ["conv_lstm", "conv", "mlp"])
def test_frozen_weights_do_not_change_and_all_others_do(kind):
    policy = make_policy(kind, 5, SPACES["continuous"], hidden=16, head="gaussian")
    frozen = {"actor.weight", "critic.bias", "head.raw_log_std", "linear1.bias", "encoder.conv1.weight"}
    for name, x in policy.named_parameters():
        x.requires_grad_(name not in frozen)
    before = {name: x.detach().clone() for name, x in policy.named_parameters()}
    train(policy, "continuous")
    changed = {name for name, x in policy.named_parameters() if not torch.equal(x, before[name])}
    assert changed == before.keys() - frozen


@each_kind
@pytest.mark.parametrize("hidden", [32, 20])
def test_gradients_are_the_same_for_any_layout_of_the_weights(kind, hidden):
    policy = lively(kind=kind, hidden=hidden)
    network = NETWORKS[kind](policy, torch.float32, 1)
    batch = *inputs(policy, 3, 20), torch.arange(20)
    network.learn(*batch, weigh)
    expected = {name: x.grad.clone() for name, x in policy.named_parameters()}
    policy.to(memory_format=torch.channels_last)
    for x in policy.parameters():
        if x.ndim == 2:
            x.data = x.data.t().contiguous().t()
        x.grad = torch.empty_like(x)  # laid out like the weights, as the optimiser's memory is
    network.learn(*batch, weigh)
    for name, x in policy.named_parameters():
        assert torch.equal(x.grad, expected[name]), name

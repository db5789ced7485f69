"""Fast networks respect what a user changed about a policy: frozen weights, layouts in memory, replaced layers."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from particle_grid.learn import ppo
from particle_grid.learn.fast import accelerate
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from particle_grid.support.errors import UserError, UserRuntimeError
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
    batch = network.arrays_of(*inputs(policy, 3, 20)), torch.arange(20)
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


@pytest.mark.parametrize("kind", ["conv_lstm", "mlp"])
def test_learning_resumes_from_good_weights_after_nan(kind):
    run = train(make_policy(kind, 5, SPACES["discrete"], hidden=16))  # 4 agents in a minibatch, padded to 8
    saved = copy.deepcopy(run.state_dict())
    with torch.no_grad():
        for x in run.policy.parameters():
            x.fill_(torch.nan)
    run.rollout()
    with pytest.raises(UserRuntimeError, match="broke down"):
        run.update()
    run.load_state_dict(saved)
    run.rollout()
    run.update()


REPLACEMENTS = {
    "actor": lambda policy: nn.Linear(policy.hidden, 3),
    "critic": lambda policy: nn.Linear(2 * policy.hidden, 1),
    "linear": lambda policy: nn.Linear(39, 4 * policy.hidden),
    "lstm": lambda policy: nn.LSTMCell(2 * policy.hidden, 2 * policy.hidden),
    "encoder": lambda policy: policy.encoder.double(),
}


@pytest.mark.parametrize("acting", [True, False])
@pytest.mark.parametrize("name", REPLACEMENTS)
def test_layers_of_another_shape_or_dtype_are_refused(name, acting):
    run = train(make_policy("conv_lstm", 5, SPACES["discrete"], hidden=16))
    setattr(run.policy, name, REPLACEMENTS[name](run.policy))
    with pytest.raises(UserError, match="has another shape or dtype"):
        run.rollout() if acting else run.update()


def share(policy):
    policy.lstm.bias_hh = policy.lstm.bias_ih


def without_bias(policy):
    policy.actor = nn.Linear(policy.hidden, policy.head.outputs, bias=False)


CHANGES = {
    "computed": (lambda policy: parametrizations.spectral_norm(policy.critic), "its weights are not those of ConvLSTM"),
    "pruned": (lambda policy: prune.random_unstructured(policy.linear, "weight", 0.5), "its weights are not those"),
    "shared": (share, "or some of them are shared"),
    "missing": (without_bias, "its weights are not those"),
    "nested": (lambda policy: setattr(policy, "actor", nn.Sequential(policy.actor)), "its weights are not those"),
    "hook": (lambda policy: policy.linear.weight.register_hook(lambda gradient: 0 * gradient), "have hooks"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_weights_whose_gradients_go_elsewhere_have_no_kernels(name):
    change, why = CHANGES[name]
    policy = make_policy("conv_lstm", 5, SPACES["discrete"], hidden=16)
    change(policy)
    random = torch.get_rng_state()
    network, how = accelerate(policy, "fp32", torch.device("cpu"), 1)
    assert network is policy
    assert why in how
    assert torch.equal(torch.get_rng_state(), random)


def test_an_edited_loss_is_what_a_trainer_with_kernels_learns_from(monkeypatch):
    original = ppo.ppo_loss

    def nothing(*args, **options):
        loss, statistics = original(*args, **options)
        return 0 * loss, statistics

    monkeypatch.setattr(ppo, "ppo_loss", nothing)
    policy = make_policy("mlp", 5, SPACES["discrete"], hidden=16)
    before = nn.utils.parameters_to_vector(policy.parameters()).detach().clone()
    assert "ppo_loss or" in train(policy).how
    assert torch.equal(nn.utils.parameters_to_vector(policy.parameters()), before)

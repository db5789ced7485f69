"""A fast implementation computes the same as its module, up to rounding, or it is not used."""

import copy
from unittest import mock

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from particle_grid.learn import fast
from particle_grid.learn.fast import accelerate, compare, compiled
from particle_grid.learn.fast.conv_lstm import FastConvLSTM
from particle_grid.learn.fast.gpu import Compiled
from particle_grid.learn.policy import POLICIES, ConvLSTM, make_policy
from tests.cases import needs_jit
from tests.learn.toy import SPACES

pytestmark = needs_jit("the kernels use machine instructions")
CPU = torch.device("cpu")
KINK = 1e-6  # a unit this close to the kink of its ReLU may round to either side, which changes its slope
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 5e-2}  # relative differences; bf16 has 8 bits


def lively(vision=5, form="discrete", hidden=128, kind="conv_lstm"):
    """Return a policy with weights for which every path carries gradient."""
    policy = make_policy(kind, vision, SPACES[form], hidden=hidden)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy


def inputs(policy, steps, n, density=0.1, ends=0.2, seed=0):
    """Return observations with this density of occupied cells, starts of episodes, and a state."""
    generator = np.random.default_rng(seed)
    cells = generator.integers(1, 7, (steps, n, policy.side**2)) * (generator.random((steps, n, 1)) < density)
    obs = np.concatenate([cells, generator.integers(0, 256, (steps, n, 7))], -1).astype(np.uint8)
    state = tuple(torch.from_numpy(generator.normal(0, 0.5, (n, policy.hidden)).astype(np.float32)) for _ in range(2))
    return torch.from_numpy(obs), torch.from_numpy(generator.random((steps, n)) < ends), state


def results(network, policy, obs, starts, state):
    """Return outputs, state, and the gradients of a random weighted sum of the outputs."""
    policy.zero_grad()
    out, value, after = network(obs, starts, state)
    outputs = torch.cat([out, value[..., None]], -1)
    (outputs * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    gradients = {name: x.grad.clone() for name, x in policy.named_parameters() if x.grad is not None}
    return {"outputs": outputs.detach(), "h": after[0], "c": after[1]} | gradients


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("form", SPACES)
@settings(max_examples=15)
@given(
    vision=st.sampled_from([2, 5, 5, 8]),
    hidden=st.sampled_from([7, 48, 128]),
    steps=st.integers(1, 6),
    n=st.sampled_from([5, 130, 300]),
    density=st.sampled_from([0.0, 0.05, 1.0]),
    ends=st.sampled_from([0.0, 0.2, 1.0]),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 1000),
)
def test_outputs_state_and_gradients_equal_the_plain_modules(
    form, dtype, vision, hidden, steps, n, density, ends, threads, seed
):
    torch.manual_seed(seed)
    policy = lively(vision, form, hidden)
    obs, starts, state = inputs(policy, steps, n, density, ends, seed)
    exact = copy.deepcopy(policy).double()
    nearest = []
    exact.encoder.conv1.register_forward_hook(lambda _, __, out: nearest.append(out.abs().min()))
    expected = results(exact, exact, obs, starts, tuple(x.double() for x in state))
    got = results(FastConvLSTM(policy, dtype, threads), policy, obs, starts, state)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        yardstick = results(policy, policy, obs, starts, state)
    assert expected.keys() == got.keys()
    for name, right in expected.items():
        scale = right.norm().clamp(min=1e-30)  # the correct gradient is 0 where every step starts an episode
        error = (got[name] - right).norm() / scale
        torchs = (yardstick[name] - right).norm() / scale
        # Where the sum of a few units cancels, every implementation exceeds the bound; in bf16 the error may reach
        # 100%.
        bound = max(BOUNDS[dtype], 5 * torchs)
        if name.startswith("encoder.conv1") and min(nearest) < KINK:
            bound = max(bound, 3e-2)
        assert error <= bound, f"{name}: {error:.1e}, and torch's own {torchs:.1e}"


def test_in_bf16_over_many_agents_everything_is_within_one_percent():
    policy = lively()
    expected, got = (
        results(net, policy, *inputs(policy, 16, 300)) for net in (policy, FastConvLSTM(policy, torch.bfloat16, 2))
    )
    assert all((got[name] - right).norm() <= 1e-2 * right.norm() for name, right in expected.items())


@pytest.mark.parametrize("dtype", BOUNDS)
def test_a_replay_repeats_the_rollout_bit_for_bit_with_any_other_agents(dtype):
    policy = lively()
    network = FastConvLSTM(policy, dtype, 2)
    obs, starts, state = inputs(policy, 8, 2100)
    steps = []
    now = state
    with torch.no_grad():
        for t in range(len(obs)):
            out, value, now = network(obs[t : t + 1], starts[t : t + 1], now)
            steps.append(torch.cat([out, value[..., None]], -1))
    acted = torch.cat(steps)
    for agents in (torch.arange(2100), torch.randperm(2100)[:256], torch.tensor([5])):
        out, value, _ = network(obs[:, agents], starts[:, agents], tuple(x[agents] for x in state))
        replayed = torch.cat([out, value[..., None]], -1).detach()
        if dtype == torch.bfloat16:
            assert torch.equal(replayed, acted[:, agents])
        else:  # BLAS may order its sums depending on the number of rows
            torch.testing.assert_close(replayed, acted[:, agents], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_the_result_is_the_same_for_any_number_of_threads(dtype):
    policy = lively()
    batch = inputs(policy, 4, 700)
    one, three = (results(FastConvLSTM(policy, dtype, threads), policy, *batch) for threads in (1, 3))
    assert all(torch.equal(one[name], three[name]) for name in one)


def test_every_way_of_changing_the_weights_is_noticed():
    policy = lively()
    network = FastConvLSTM(policy, torch.float32, 1)
    obs, starts, state = inputs(policy, 1, 20)
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.1, fused=True)
    saved = {name: x.clone() for name, x in policy.state_dict().items()}
    for change in (
        lambda: (network(obs, starts, state)[0].sum().backward(), optimiser.step()),
        lambda: policy.load_state_dict(saved),
        lambda: torch.nn.init.zeros_(policy.actor.weight),
    ):
        with torch.no_grad():
            before = network(obs, starts, state)[0]
        change()
        with torch.no_grad():
            after = network(obs, starts, state)[0]
            torch.testing.assert_close(after, policy(obs, starts, state)[0], rtol=1e-5, atol=1e-5)
        assert (before != after).any()


def test_a_frozen_policy_is_accelerated_and_keeps_its_gradients():
    policy = lively().requires_grad_(False)
    network, _ = accelerate(policy, "fp32", torch.device("cpu"), 1)
    assert isinstance(network, FastConvLSTM)
    assert not any(x.requires_grad for x in policy.parameters())
    policy.requires_grad_(True)
    policy(*inputs(policy, 1, 4))[0].sum().backward()
    before = [None if x.grad is None else x.grad.clone() for x in policy.parameters()]
    accelerate(policy, "fp32", torch.device("cpu"), 1)
    torch.testing.assert_close([x.grad for x in policy.parameters()], before, rtol=0, atol=0)


@pytest.mark.parametrize("gradients", [True, False])
def test_another_call_before_the_backward_pass_is_refused(gradients):
    policy = lively()
    network = FastConvLSTM(policy, torch.float32, 1)
    batch = inputs(policy, 2, 5)
    first = network(*batch)[0].sum()
    with torch.set_grad_enabled(gradients):
        network(*batch)
    with pytest.raises(RuntimeError, match="called again before this backward pass"):
        first.backward()


class Edited(ConvLSTM):
    """A policy defined by a user."""


def edit_forward(self, obs, starts, state):
    out, value, state = ConvLSTM_forward(self, obs, starts, state)
    return out.tanh(), value, state


ConvLSTM_forward = ConvLSTM.forward


def test_kernels_are_used_where_they_apply_and_reported():
    policy = lively()
    network, how = accelerate(policy, "fp32", CPU, 2)
    assert isinstance(network, FastConvLSTM)
    assert how == "The policy runs in fp32 kernels on up to 2 threads."
    assert all(x.grad is None for x in policy.parameters())


def test_a_modified_module_is_not_replaced_by_kernels_that_differ(monkeypatch):
    monkeypatch.setattr(ConvLSTM, "forward", edit_forward)
    policy = lively()
    torch.set_num_threads(2)
    network, how = accelerate(policy, "auto", CPU, 1)
    assert network is policy
    assert "the kernels in learn/fast were not" in how
    assert torch.get_num_threads() == 2  # plain torch needs them


@pytest.mark.parametrize(
    ("policy", "mode", "why"),
    [
        (lambda: Edited(5, lively().head, 16), "auto", "no kernels for Edited"),
        (lambda: lively(kind="mlp"), "auto", "no kernels for MLP"),
        (lambda: lively(vision=3), "auto", "7 x 7, which need padding"),
        (lively, "off", "in plain torch on cpu"),
    ],
)
def test_without_kernels_the_policy_itself_runs_and_the_reason_is_reported(policy, mode, why):
    policy = policy()
    network, how = accelerate(policy, mode, CPU, 1)
    assert network is policy
    assert why in how


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda policy: policy.double(), "there are no kernels for weights in torch.float64"),
        (lambda policy: policy.actor.bias.data.fill_(torch.nan), "some of its weights are NaN or infinite"),
    ],
)
def test_weights_that_kernels_do_not_accept_are_the_reported_reason(change, why):
    policy = lively()
    change(policy)
    network, how = accelerate(policy, "fp32", CPU, 1)
    assert network is policy
    assert why in how


def test_an_unknown_mode_is_refused_by_name():
    with pytest.raises(ValueError, match="fast=quick is not known: choose auto, off, fp32, bf16"):
        accelerate(lively(), "quick", CPU, 1)


@pytest.mark.parametrize(("has", "name"), [(True, "bf16"), (False, "fp32")])
def test_auto_selects_bf16_if_the_processor_supports_it(monkeypatch, has, name):
    monkeypatch.setattr(fast, "has_bf16", lambda: has)
    assert f"in {name} kernels" in accelerate(lively(), "auto", CPU, 1)[1]


def test_a_difference_only_in_a_gradient_is_detected():
    policy = lively()
    network = FastConvLSTM(policy, torch.float32, 1)
    assert compare(policy, network) < 1e-5
    policy.linear.bias.register_hook(lambda gradient: gradient * getattr(policy, "factor", 1))
    doubled = iter([1, 2])
    with mock.patch.object(policy, "zero_grad", side_effect=lambda: setattr(policy, "factor", next(doubled, 1))):
        assert compare(policy, network) > 0.1


def test_nan_weights_give_nan_outputs():
    policy = lively()
    with torch.no_grad():
        policy.lstm.weight_hh[0, 0] = float("nan")
    network = FastConvLSTM(policy, torch.bfloat16, 1)
    batch = inputs(policy, 3, 10, ends=0)
    got = results(network, policy, *batch)
    assert not all(x.isfinite().all() for x in got.values())


@pytest.mark.parametrize("kind", POLICIES)
def test_every_policy_compiles_for_gpus_to_one_graph_with_the_same_results(kind):
    """Run on the CPU: the policy is traced and differentiated as for a GPU, but executed by torch."""
    policy = lively(kind=kind)
    options = {"backend": "aot_eager"}
    network, how = compiled(policy, "fp32", CPU, options)
    assert isinstance(network, Compiled)
    assert "compiled for cpu, in fp32" in how
    assert compare(policy, network) < 1e-5
    network, _ = compiled(policy, "bf16", CPU, options)
    assert isinstance(network, Compiled)
    assert 1e-4 < compare(policy, network) < 0.1  # the largest error, of one parameter's gradient
    with torch.no_grad():
        out, value, state = network(*inputs(policy, 1, 8)[:2], policy.initial_state(8))
    assert {x.dtype for x in (out, value, *state)} == {torch.float32}


def test_a_policy_that_cannot_be_compiled_runs_in_plain_torch_with_the_reason():
    def broken(graph, examples):
        raise RuntimeError("no compiler here.\nAnd much more.")

    policy = lively(kind="mlp")
    network, how = compiled(policy, "fp32", CPU, {"backend": broken})
    assert network is policy
    assert "cannot be compiled" in how
    assert how.count("\n") == 0
    assert all(x.grad is None for x in policy.parameters())


def test_without_numbas_compiler_the_policy_runs_in_plain_torch(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    policy = lively()
    network, how = accelerate(policy, "auto", CPU, 1)
    assert network is policy
    assert "NUMBA_DISABLE_JIT" in how


def test_kernels_refuse_inputs_of_the_wrong_shape_or_dtype():
    policy = lively(hidden=16)
    network = FastConvLSTM(policy, torch.float32, 1)
    obs = torch.zeros(2, 8, policy.observation_size, dtype=torch.uint8)
    starts = torch.ones(2, 8, dtype=torch.bool)
    h = torch.zeros(8, 16)
    c = torch.zeros(8, 16)
    network(obs, starts, (h, c))
    for wrong in (
        (obs[..., :50], starts, (h, c)),
        (obs.float(), starts, (h, c)),
        (obs, starts[:1], (h, c)),
        (obs, starts[:, :3], (h, c)),
        (obs, starts.to(torch.uint8), (h, c)),
        (obs, starts, (h[1:], c[1:])),
        (obs, starts, (h, c[:, :3])),
        (obs, starts, (h.double(), c)),
    ):
        with pytest.raises(ValueError, match=r"takes \(obs, starts, h, c\) as"):
            network(*wrong)

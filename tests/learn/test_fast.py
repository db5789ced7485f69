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
from particle_grid.learn.fast import accelerate
from particle_grid.learn.fast.compare import compare
from particle_grid.learn.fast.conv import FastConv
from particle_grid.learn.fast.conv_lstm import FastConvLSTM
from particle_grid.learn.fast.kernels.tiles import HAS_BF16
from particle_grid.learn.fast.mlp import FastMLP
from particle_grid.learn.fast.torch_conv_lstm import TorchConvLSTM
from particle_grid.learn.policy import POLICIES, ConvLSTM
from tests.cases import needs_jit
from tests.learn.networks import inputs, lively
from tests.learn.toy import SPACES

pytestmark = needs_jit("the kernels use machine instructions")
CPU = torch.device("cpu")
KINK = 1e-6  # a unit this close to the kink of its ReLU may round to either side, which changes its slope
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 5e-2}  # relative differences; bf16 has 8 bits
NETWORKS = {"conv_lstm": FastConvLSTM, "torch_conv_lstm": TorchConvLSTM, "conv": FastConv, "mlp": FastMLP}
CASES = [
    (kind, dtype)
    for kind in NETWORKS
    for dtype in BOUNDS
    if dtype == torch.float32 or HAS_BF16 or kind == "torch_conv_lstm"  # tiles need the instruction
]
everywhere = pytest.mark.parametrize(
    ("kind", "dtype"), CASES, ids=[f"{kind}-{str(dtype).removeprefix('torch.')}" for kind, dtype in CASES]
)
each_kind = pytest.mark.parametrize("kind", NETWORKS)


def results(network, policy, obs, starts, state):
    """Return outputs, state, and the gradients of a random weighted sum of the outputs."""
    policy.zero_grad()
    out, value, after = network(obs, starts, state)
    outputs = torch.cat([out, value[..., None]], -1)
    (outputs * torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    gradients = {name: x.grad.clone() for name, x in policy.named_parameters() if x.grad is not None}
    return {"outputs": outputs.detach()} | dict(zip("hc", after, strict=False)) | gradients


def watch_kinks(policy):
    """Return a list to which the policy appends how close each layer's units come to the kink of a ReLU."""
    nearest = []
    layers = [policy.encoder.conv1, policy.encoder] if hasattr(policy, "encoder") else [policy.linear1, policy.linear2]
    if not hasattr(policy, "lstm"):
        layers += [layer for name, layer in policy.named_modules() if name == "linear"]
    for layer in layers:
        layer.register_forward_hook(lambda _, __, out: nearest.append(out.detach().abs().min()))
    return nearest


@everywhere
@settings(max_examples=12)
@given(
    form=st.sampled_from(list(SPACES)),
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
    kind, dtype, form, vision, hidden, steps, n, density, ends, threads, seed
):
    torch.manual_seed(seed)
    policy = lively(vision, form, hidden, kind)
    obs, starts, state = inputs(policy, steps, n, density, ends, seed)
    exact = copy.deepcopy(policy).double()
    nearest = watch_kinks(exact)
    expected = results(exact, exact, obs, starts, tuple(x.double() for x in state))
    got = results(NETWORKS[kind](policy, dtype, threads), policy, obs, starts, state)
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
        if name in policy.state_dict() and min(nearest) < KINK:
            bound = max(bound, 3e-2)
        if name in policy.state_dict() and dtype == torch.bfloat16 and not state:
            bound = max(bound, 0.5)  # many units round to the other side; the next test has more of them
        assert error <= bound, f"{name}: {error:.1e}, and torch's own {torchs:.1e}"


@pytest.mark.parametrize("kind", [kind for kind, dtype in CASES if dtype == torch.bfloat16])
def test_in_bf16_over_many_agents_everything_is_as_close_as_in_torch(kind):
    torch.manual_seed(0)
    policy = lively(kind=kind)
    batch = inputs(policy, 16, 300)
    expected = results(policy, policy, *batch)
    got = results(NETWORKS[kind](policy, torch.bfloat16, 2), policy, *batch)
    with torch.autocast("cpu", torch.bfloat16):
        yardstick = results(policy, policy, *batch)
    for name, right in expected.items():
        error = (got[name] - right).norm() / right.norm()
        torchs = (yardstick[name] - right).norm() / right.norm()
        assert error <= max(1e-2, 1.5 * torchs), f"{name}: {error:.1e}, and torch's own {torchs:.1e}"


@everywhere
def test_a_replay_repeats_the_rollout_bit_for_bit_with_any_other_agents(kind, dtype):
    policy = lively(kind=kind)
    network = NETWORKS[kind](policy, dtype, 2)
    obs, starts, state = inputs(policy, 8, 1100)
    steps = []
    now = state
    with torch.no_grad():
        for t in range(len(obs)):
            out, value, now = network(obs[t : t + 1], starts[t : t + 1], now)
            steps.append(torch.cat([out, value[..., None]], -1))
    acted = torch.cat(steps)
    for agents in (torch.arange(1100), torch.randperm(1100)[:256], torch.tensor([5])):
        out, value, _ = network(obs[:, agents], starts[:, agents], tuple(x[agents] for x in state))
        replayed = torch.cat([out, value[..., None]], -1).detach()
        if kind != "torch_conv_lstm" or dtype == torch.bfloat16:
            assert torch.equal(replayed, acted[:, agents])
        else:  # BLAS may order its sums depending on the number of rows
            torch.testing.assert_close(replayed, acted[:, agents], rtol=1e-5, atol=1e-5)


@everywhere
def test_learning_from_some_agents_equals_autograd_on_their_data(kind, dtype):
    policy = lively(kind=kind, hidden=48)
    network = NETWORKS[kind](policy, dtype, 2)
    obs, starts, state = inputs(policy, 3, 60)
    agents = torch.randperm(60)[:37]
    weights = torch.randn(3, 60, policy.head.outputs + 1)

    def loss(out, chosen, d_out):
        d_out[:, : len(chosen)] = weights[:, chosen]
        return (out[:, : len(chosen)] * weights[:, chosen].numpy()).sum()

    sums = network.learn(network.arrays_of(obs, starts, state), agents, loss)
    learned = {name: x.grad.clone() for name, x in policy.named_parameters()}
    policy.zero_grad()
    out, value, _ = network(obs[:, agents], starts[:, agents], tuple(x[agents] for x in state))
    total = (torch.cat([out, value[..., None]], -1) * weights[:, agents]).sum()
    total.backward()
    torch.testing.assert_close(float(np.sum(sums)), total.item(), rtol=1e-3, atol=1e-3)
    for name, x in policy.named_parameters():
        assert torch.equal(learned[name], x.grad), name


@pytest.mark.parametrize("padded", [False, True])
def test_rows_padded_for_amx_change_only_the_rounding(monkeypatch, padded):
    monkeypatch.setattr("particle_grid.learn.fast.torch_conv_lstm.HAS_AMX", padded)
    policy = lively(hidden=48)
    network = TorchConvLSTM(policy, torch.bfloat16, 1)
    assert network.padding == (24 if padded else 0)
    batch = inputs(policy, 16, 100)
    got = results(network, policy, *batch)
    for name, right in results(policy, policy, *batch).items():
        assert (got[name] - right).norm() <= 3e-2 * right.norm(), name


@everywhere
def test_the_result_is_the_same_for_any_number_of_threads(kind, dtype):
    policy = lively(kind=kind)
    batch = inputs(policy, 4, 700)
    one, three = (results(NETWORKS[kind](policy, dtype, threads), policy, *batch) for threads in (1, 3))
    assert all(torch.equal(one[name], three[name]) for name in one)


@pytest.mark.parametrize("flushed", [False, True])
def test_whether_denormal_numbers_count_as_0_is_as_before(flushed):
    network = FastMLP(lively(kind="mlp"), torch.float32, 2)
    torch.set_flush_denormal(flushed)
    try:
        with torch.no_grad():
            network(*inputs(network.policy, 1, 200))
        assert (torch.tensor(1e-40) * 1 == 0) == flushed
    finally:
        torch.set_flush_denormal(False)


@each_kind
def test_every_way_of_changing_the_weights_is_noticed(kind):
    policy = lively(kind=kind)
    network = NETWORKS[kind](policy, torch.float32, 1)
    obs, starts, state = inputs(policy, 1, 20)
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.1, fused=True)
    saved = {name: x.clone() for name, x in policy.state_dict().items()}
    for change in (
        lambda: (network(obs, starts, state)[0].square().sum().backward(), optimiser.step()),
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


@each_kind
@pytest.mark.parametrize("gradients", [True, False])
def test_another_call_before_the_backward_pass_is_refused(kind, gradients):
    policy = lively(kind=kind)
    network = NETWORKS[kind](policy, torch.float32, 1)
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


@pytest.mark.parametrize("kind", POLICIES)
def test_kernels_are_used_where_they_apply_and_reported(kind):
    policy = lively(kind=kind)
    network, how = accelerate(policy, "fp32", CPU, 2)
    assert type(network) is NETWORKS[kind]
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
        (
            lambda: Edited(5, lively().head, 16),
            "auto",
            "several times slower than in kernels: there are no kernels for Edited. The section",
        ),
        (lambda: lively(vision=3), "auto", "7 x 7, which need padding"),
        (lambda: lively(vision=3, kind="conv"), "auto", "7 x 7, which need padding"),
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


@pytest.mark.parametrize("kind", ["conv_lstm", "conv", "mlp"])
def test_saturated_weights_are_no_reason_to_leave_kernels(kind):
    policy = lively(kind=kind)
    with torch.no_grad():
        for x in policy.parameters():
            x.mul_(100)
    before = {name: x.clone() for name, x in policy.state_dict().items()}
    network, how = accelerate(policy, "fp32", CPU, 1)
    assert network is not policy, how
    assert all(torch.equal(x, before[name]) for name, x in policy.state_dict().items())


@pytest.mark.parametrize(("has", "name"), [(True, "bf16"), (False, "fp32")])
def test_auto_selects_bf16_if_the_processor_supports_it(monkeypatch, has, name):
    monkeypatch.setattr(fast, "has_bf16", lambda: has)
    assert f"in {name} kernels" in accelerate(lively(), "auto", CPU, 1)[1]


@pytest.mark.parametrize(("has_amx", "has_bf16"), [(True, True), (False, False)])
def test_torch_multiplies_in_bf16_on_amx_and_without_instructions(monkeypatch, has_amx, has_bf16):
    monkeypatch.setattr(fast, "HAS_AMX", has_amx)
    monkeypatch.setattr(fast, "HAS_BF16", has_bf16)
    network, how = accelerate(lively(), "bf16", CPU, 1)
    assert isinstance(network, TorchConvLSTM)
    assert "in bf16 kernels" in how
    assert isinstance(accelerate(lively(), "fp32", CPU, 1)[0], FastConvLSTM)
    network, how = accelerate(lively(kind="mlp"), "bf16", CPU, 1)
    assert isinstance(network, FastMLP)
    assert ("in bf16 kernels" if has_bf16 else "in fp32 kernels") in how


def test_a_difference_only_in_a_gradient_is_detected():
    policy = lively()
    network = FastConvLSTM(policy, torch.float32, 1)
    assert compare(policy, network) < 1e-5
    policy.linear.bias.register_hook(lambda gradient: gradient * getattr(policy, "factor", 1))
    doubled = iter([1, 2])
    with mock.patch.object(policy, "zero_grad", side_effect=lambda: setattr(policy, "factor", next(doubled, 1))):
        assert compare(policy, network) > 0.1


@everywhere
def test_nan_weights_give_nan_outputs(kind, dtype):
    policy = lively(kind=kind)
    with torch.no_grad():
        last = {"conv": "linear", "mlp": "linear2"}.get(kind, "lstm")
        next(policy.get_submodule(last).parameters())[0, 0] = float("nan")
    network = NETWORKS[kind](policy, dtype, 1)
    batch = inputs(policy, 3, 10, ends=0)
    got = results(network, policy, *batch)
    assert not all(x.isfinite().all() for x in got.values())


def test_without_numbas_compiler_the_policy_runs_in_plain_torch(monkeypatch):
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    policy = lively()
    network, how = accelerate(policy, "auto", CPU, 1)
    assert network is policy
    assert "NUMBA_DISABLE_JIT" in how


@each_kind
def test_kernels_refuse_inputs_of_the_wrong_shape_or_dtype(kind):
    policy = lively(hidden=16, kind=kind)
    network = NETWORKS[kind](policy, torch.float32, 1)
    obs = torch.zeros(2, 8, policy.observation_size, dtype=torch.uint8)
    starts = torch.ones(2, 8, dtype=torch.bool)
    state = policy.initial_state(8)
    network(obs, starts, state)
    cases = [(obs[..., :50], starts, state), (obs.float(), starts, state), (obs, starts[:1], state)]
    cases += [(obs, starts[:, :3], state), (obs, starts.to(torch.uint8), state)]
    if state:
        h, c = state
        cases += [(obs, starts, changed) for changed in ((h[1:], c[1:]), (h, c[:, :3]), (h.double(), c))]
    for wrong in cases:
        with pytest.raises(ValueError, match=r"takes \(obs, starts.*\) as"):
            network(*wrong)

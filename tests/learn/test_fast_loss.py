"""The compiled loss computes the same as its definition in torch, or it is not used."""

import copy
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from particle_grid.learn import heads, ppo
from particle_grid.learn.fast.loss import (
    FusedLoss,
    fused_loss,
    kernel_results,
    moments,
    random_minibatch,
    torch_results,
)
from particle_grid.learn.heads.numbers import log_std_bounds
from tests.cases import needs_jit

pytestmark = needs_jit("the kernels use machine instructions")
BOUNDS = (-3.0, 0.5, -0.5)
MAKE = {
    "categorical": lambda: heads.CategoricalHead([3, 3]),
    "unequal": lambda: heads.CategoricalHead([2, 7, 1, 4]),
    "bins": lambda: heads.BinsHead(2, 9),
    "gaussian": lambda: heads.GaussianHead(2, *BOUNDS),
    "squashed": lambda: heads.SquashedHead(3, *BOUNDS),
    "snapped": lambda: heads.SnappedHead(1, *BOUNDS),
    "beta": lambda: heads.BetaHead(2),
    "hurdle": lambda: heads.HurdleHead(2),
    "jitter": lambda: heads.JitterHead(2, 4),
    "probit": lambda: heads.ProbitHead(2, log_std_bounds(*BOUNDS), False),
    "probit, shared": lambda: heads.ProbitHead(3, log_std_bounds(*BOUNDS), True),
    "capg": lambda: heads.ClippedHead(3, log_std_bounds(*BOUNDS), False),
    "capg, shared": lambda: heads.ClippedHead(2, log_std_bounds(*BOUNDS), True),
    "snapped, moves": lambda: heads.SnappedMovesHead(2, *BOUNDS),
    "mixture": lambda: heads.MixtureHead(2),
}


def exact(head, batch):
    """Return the results of the definition in float64."""
    double = {name: x.double() for name, x in vars(batch).items() if torch.is_tensor(x) and x.dtype == torch.float32}
    return torch_results(copy.deepcopy(head).double(), dataclasses.replace(batch, **double))


def log_ratios(head, batch):
    """Return the logarithms of the probability ratios, f32[T, n]."""
    with torch.no_grad():
        logp, _ = head.log_prob_and_entropy(batch.outputs[..., :-1], batch.samples[:, batch.agents])
        return logp - batch.old_logp[:, batch.agents]


def assert_close(got, expected, tolerance):
    assert got.keys() == expected.keys()
    for name, right in expected.items():
        error = float((got[name] - right).norm() / right.norm().clamp(min=1e-2))
        assert error <= tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("name", MAKE)
@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    steps=st.integers(1, 40),
    count=st.sampled_from([8, 13, 40]),
    size=st.sampled_from([1, 8, 16, 64]),
    clip=st.sampled_from([0.0, 0.1, 0.2, 5.0]),
    coefs=st.sampled_from([(0.5, 0.01), (0.0, 0.0), (1.0, 1.0)]),
)
def test_loss_statistics_and_gradients_equal_autograd(name, seed, steps, count, size, clip, coefs):
    torch.manual_seed(seed)
    head = MAKE[name]()
    batch = random_minibatch(head, seed, steps, count)
    options = {"clip": clip, "value_coef": coefs[0], "entropy_coef": coefs[1]}
    batch = dataclasses.replace(batch, settings=options)
    change = log_ratios(head, batch)
    for edge in (np.log(max(1 - clip, 1e-30)), np.log(1 + clip), ppo.LOG_RATIO_LIMIT, -ppo.LOG_RATIO_LIMIT):
        assume(float((change - edge).abs().min()) > 1e-4)  # rounding decides on which side of an edge a ratio is
    assert_close(kernel_results(head, batch, size), exact(head, batch), 1e-4)


@settings(max_examples=25)
@given(
    nvec=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
    seed=st.integers(0, 99),
)
def test_any_number_of_choices_and_any_logits_give_the_same_as_torch(nvec, scale, seed):
    head = heads.CategoricalHead(nvec)
    batch = random_minibatch(head, 2 * seed)
    batch.outputs.mul_(scale)
    batch.old_logp[:, batch.agents] += log_ratios(head, batch)
    assert_close(kernel_results(head, batch), exact(head, batch), 2e-4)


@settings(max_examples=25)
@given(low=st.floats(-6, 0), width=st.floats(0.1, 6), scale=st.sampled_from([0.1, 3.0]), seed=st.integers(0, 99))
def test_any_bounds_of_a_squashed_head_give_the_same_as_torch(low, width, scale, seed):
    head = heads.SquashedHead(2, low, low + width, low + width / 2)
    batch = random_minibatch(head, 2 * seed)
    batch.samples[:, batch.agents] += (scale - 1) * batch.outputs[..., :2]
    batch.outputs.mul_(scale)
    assert_close(kernel_results(head, batch), exact(head, batch), 2e-4)


@settings(max_examples=25)
@given(shift=st.floats(-8, 60), seed=st.integers(0, 99))
def test_beta_distributions_of_any_width_give_the_same_as_torch(shift, seed):
    head = heads.BetaHead(2)
    batch = random_minibatch(head, 2 * seed)
    batch.outputs[..., :-1] += shift
    samples, _ = head.sample(batch.outputs[..., :-1], torch.Generator().manual_seed(seed))
    batch.samples[:, batch.agents] = samples
    batch.old_logp[:, batch.agents] += log_ratios(head, batch)
    assert_close(kernel_results(head, batch), exact(head, batch), 1e-3)


@pytest.mark.parametrize("name", MAKE)
def test_what_truncated_steps_hold_does_not_matter(name):
    head = MAKE[name]()
    batch = random_minibatch(head, 0)
    assert batch.truncations[:, batch.agents].any()
    expected = kernel_results(head, batch)
    for tensor in batch.columns()[:-1]:
        tensor[batch.truncations] = torch.nan if tensor.is_floating_point() else -(2**31)
    batch.outputs[batch.truncations[:, batch.agents]] = torch.nan
    got = kernel_results(head, batch)
    assert all(torch.equal(got[key], expected[key]) for key in expected)
    assert not got["d_out"][batch.truncations[:, batch.agents]].any()
    assert not got["d_value"][batch.truncations[:, batch.agents]].any()


@pytest.mark.parametrize("name", MAKE)
def test_padding_has_no_gradient(name):
    head = MAKE[name]()
    batch = random_minibatch(head, 0)
    columns = (x.numpy() for x in batch.columns())
    loss = FusedLoss(head).minibatch(batch.agents.numpy(), *columns, **batch.settings)
    out = np.full((4, 8, head.outputs + 1), np.nan, np.float32)
    out[:, :3] = batch.outputs[:, :3]
    d_out = np.full_like(out, np.nan)
    loss.chunk(out, batch.agents[:3].numpy(), d_out)
    assert (d_out[:, 3:] == 0).all()
    assert np.isfinite(d_out).all()


@pytest.mark.parametrize("name", MAKE)
def test_a_minibatch_without_valid_steps_gives_zeros(name):
    head = MAKE[name]()
    batch = random_minibatch(head, 0)
    batch.truncations.fill_(True)
    assert not any(x.any() for x in kernel_results(head, batch).values())


@pytest.mark.parametrize("name", MAKE)
def test_the_result_does_not_depend_on_how_agents_are_cut_into_chunks(name):
    head = MAKE[name]()
    batch = random_minibatch(head, 0, 32, 71)
    whole = kernel_results(head, batch, 64)
    for size in (1, 8, 24):
        assert_close(kernel_results(head, batch, size), whole, 1e-5)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("place", ["outputs", "old_logp", "returns"])
def test_nan_in_a_valid_step_is_not_hidden(name, place):
    head = MAKE[name]()
    batch = random_minibatch(head, 0)
    batch.truncations.fill_(False)
    if place == "outputs":
        batch.outputs[1, 2, :-1] = torch.nan
    else:
        getattr(batch, place)[1, batch.agents[2]] = torch.nan
    got = kernel_results(head, batch)
    assert not all(x.isfinite().all() for x in got.values())


class Pair:
    """Two processes in two threads."""

    def __init__(self):
        self.barrier = threading.Barrier(2)
        self.parts = [None, None]

    def total(self, rank, x):
        self.parts[rank] = x.clone()
        self.barrier.wait()
        x.copy_(self.parts[0] + self.parts[1])
        self.barrier.wait()
        return x

    def both(self, function):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda rank: function(rank, lambda x: self.total(rank, x)), range(2)))


def test_moments_are_those_of_all_processes():
    batch = random_minibatch(MAKE["categorical"](), 0, 9, 40)
    halves = batch.agents.split(20)
    arrays = batch.advantage.numpy(), batch.truncations.numpy()
    results = Pair().both(lambda rank, total: moments(halves[rank].numpy(), *arrays, total))
    advantage, valid = batch.advantage[:, batch.agents].double(), ~batch.truncations[:, batch.agents]
    expected = advantage[valid]
    plain = Pair().both(lambda rank, total: ppo.moments(*(x.split(20, 1)[rank] for x in (advantage, valid)), total))
    for (centre, scale, share), (mean, std, count) in zip(results, plain, strict=True):
        assert share == pytest.approx(1 / len(expected))
        assert count == len(expected)
        assert centre == pytest.approx(expected.mean().item())
        assert 1 / scale == pytest.approx(expected.std(correction=0).item())
        assert mean == pytest.approx(centre)
        assert std == pytest.approx(1 / scale)


def test_a_process_without_valid_steps_leaves_the_moments_of_the_others():
    values = torch.tensor([[3.0, 5.0, 9.0]])
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    results = Pair().both(lambda rank, total: ppo.moments(values, nothing if rank else ~nothing, total))
    for mean, std, count in results:
        assert (mean, std, count) == (pytest.approx(17 / 3), pytest.approx(values.std(correction=0).item()), 3)


def test_shares_of_processes_add_up_to_the_loss_of_the_whole():
    head = MAKE["gaussian"]()
    batch = random_minibatch(head, 0, 9, 40)
    expected = kernel_results(head, batch)
    halves = (slice(0, 20), slice(20, None))

    def share(rank, total):
        twin = copy.deepcopy(head)
        agents = batch.agents[halves[rank]].numpy()
        arrays = [x.numpy() for x in batch.columns()]
        loss = FusedLoss(twin).minibatch(agents, *arrays, **batch.settings, total=total)
        out = batch.outputs[:, halves[rank]].contiguous().numpy()
        value, statistics = loss.finish([loss.chunk(out, agents, np.empty_like(out))])
        numbers = {name: torch.tensor(x) for name, x in {"loss": value, **statistics}.items()}
        return {"gradient of raw_log_std": twin.raw_log_std.grad} | numbers

    one, two = Pair().both(share)
    for name in one:
        torch.testing.assert_close(one[name] + two[name], expected[name])


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("clip", [1e-3, 0.2])
def test_gradient_flows_where_the_ratio_is_one_and_ends_at_the_limit(advantage, clip):
    head = MAKE["categorical"]()
    batch = random_minibatch(head, 0)
    batch.truncations.fill_(False)
    batch.advantage.copy_(advantage * torch.linspace(1, 2, 24))
    options = {"clip": clip, "value_coef": 0.0, "entropy_coef": 0.0}
    batch = dataclasses.replace(batch, settings=options)
    batch.old_logp[:, batch.agents] += log_ratios(head, batch)
    batch.old_logp[0] += 30
    batch.old_logp[1] -= 30
    assert_close(kernel_results(head, batch), torch_results(head, batch), 1e-5)
    assert not kernel_results(head, batch)["d_out"][:2].any()


def edited(change):
    original = ppo.ppo_loss

    def edited_loss(*args, **options):
        return change(original, args, options)

    return edited_loss


def with_statistic(original, args, options):
    value, statistics = original(*args, **options)
    return value, statistics | {"policy/more": value.detach()}


def absolute_error(original, args, options):
    value, statistics = original(*args, **options)
    error = (args[2] - args[5]).abs()
    return value + 0.01 * ppo.masked_mean(error, args[6]), statistics


LOSSES = {
    "a statistic more": with_statistic,
    "another error": absolute_error,
    "twice the clip": lambda f, args, options: f(*args, **options | {"clip": 2 * options["clip"]}),
    "no entropy": lambda f, args, options: f(*args, **options | {"entropy_coef": 0}),
    "an argument more": lambda f, args, options: f(*args, **options, more=1),
    "advantages of two scales": lambda f, args, options: f(*args[:4], args[4].sign(), *args[5:], **options),
    "truncated steps too": lambda f, args, options: f(*args[:6], torch.ones_like(args[6]), **options),
}


@pytest.mark.parametrize("name", ["categorical", "squashed", "beta"])
@pytest.mark.parametrize("change", LOSSES.values(), ids=LOSSES)
def test_an_edited_loss_is_not_replaced_by_a_kernel_that_differs(monkeypatch, name, change):
    monkeypatch.setattr(ppo, "ppo_loss", edited(change))
    fused, how = fused_loss(MAKE[name]())
    assert fused is None
    assert "ppo_loss or" in how
    assert "was changed and the kernel in learn/fast was not" in how


def test_a_smaller_limit_of_ratios_is_followed(monkeypatch):
    monkeypatch.setattr(ppo, "LOG_RATIO_LIMIT", 5.0)
    assert fused_loss(MAKE["categorical"]())[0]


def test_a_limit_that_is_not_applied_is_noticed(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "clamp", lambda x, low=None, high=None, clamp=torch.Tensor.clamp, **bounds: (
        x if low == -ppo.LOG_RATIO_LIMIT else clamp(x, low, high, **bounds)
    ))  # fmt: skip
    assert fused_loss(MAKE["categorical"]())[0] is None


def half_the_entropy(original):
    def log_prob_and_entropy(self, out, sample):
        logp, entropy = original(self, out, sample)
        return logp, entropy / 2

    return log_prob_and_entropy


@pytest.mark.parametrize("name", MAKE)
def test_an_edited_head_is_not_replaced_by_a_kernel_that_differs(monkeypatch, name):
    head = MAKE[name]()
    kind = type(head)
    monkeypatch.setattr(kind, "log_prob_and_entropy", half_the_entropy(kind.log_prob_and_entropy))
    fused, how = fused_loss(head)
    assert fused is None
    assert f"{kind.__name__} was changed" in how


def test_an_edited_bound_of_the_standard_deviation_is_noticed(monkeypatch):
    sine = property(lambda self: self.bounds.middle + self.bounds.reach * self.raw_log_std.sin())
    monkeypatch.setattr(heads.GaussianHead, "log_std", sine)
    assert fused_loss(MAKE["gaussian"]())[0] is None


@pytest.mark.parametrize("kind", [heads.CategoricalHead, heads.GaussianHead, heads.BetaHead])
def test_a_users_head_is_not_mistaken_for_its_base(kind):
    mine = type("Mine", (kind,), {})
    head = (
        mine([3, 3]) if kind is heads.CategoricalHead else mine(2, *BOUNDS) if kind is heads.GaussianHead else mine(2)
    )
    assert fused_loss(head) == (None, "The loss runs in plain torch: there is no kernel for Mine.")


@pytest.mark.parametrize("name", MAKE)
def test_kernels_are_used_where_they_apply_and_nothing_of_the_head_changes(name):
    head = MAKE[name]()
    before = {key: x.clone() for key, x in head.state_dict().items()}
    random = torch.get_rng_state()
    fused, how = fused_loss(head)
    assert isinstance(fused, FusedLoss)
    assert how == "The loss runs in a kernel."
    assert fused.head is head
    assert all(torch.equal(x, before[key]) for key, x in head.state_dict().items())
    assert all(x.grad is None for x in head.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_other_dtypes_and_a_disabled_compiler_are_the_reported_reason(monkeypatch):
    assert "no kernel for a head in torch.float64 on cpu" in fused_loss(MAKE["gaussian"]().double())[1]
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert "NUMBA_DISABLE_JIT" in fused_loss(MAKE["gaussian"]())[1]

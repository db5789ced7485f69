"""Compiled sampling draws what the heads draw, or it is not used."""

import copy

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from particle_grid.learn import heads
from particle_grid.learn.fast.kernels.loss_parts import CLIP_FRACTION, KL
from particle_grid.learn.fast.loss import FusedLoss
from particle_grid.learn.fast.sampling import FusedSampler, fused_sampler
from tests.cases import needs_jit
from tests.learn.test_fast_loss import BOUNDS, MAKE

pytestmark = needs_jit("the kernels use machine instructions")
SAMPLED = ("categorical", "unequal", "bins", "gaussian", "squashed", "snapped", "hurdle")  # have a kernel for sampling


def lively(name):
    """Return a head with random parameters, and a generator of its outputs."""
    head = MAKE[name]()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


@pytest.mark.parametrize("name", SAMPLED)
@settings(max_examples=25)
@given(n=st.sampled_from([1, 7, 272, 1000]), scale=st.sampled_from([0.0, 1.0, 30.0]), seed=st.integers(0, 10_000))
def test_samples_and_log_probabilities_equal_the_heads(name, n, scale, seed):
    torch.manual_seed(seed)
    head = lively(name)
    out = scale * torch.randn(n, head.outputs + 1)[:, :-1]
    with torch.no_grad():
        expected, logp = head.sample(out, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    got, got_logp = FusedSampler(head)(out, generator)
    assert got.dtype == expected.dtype
    same = ((got - expected).abs() <= 1e-5 * (1 + expected.abs())).all(1)
    assert (~same).sum() <= 1  # a random number may be as large as a cumulative probability up to rounding
    torch.testing.assert_close(got_logp[same], logp[same], rtol=1e-5, atol=2e-5)
    after = torch.Generator().manual_seed(seed)
    head.sample(out, after)
    assert torch.equal(generator.get_state(), after.get_state())


@pytest.mark.parametrize("name", MAKE)
def test_the_first_ratio_is_one(name):
    """The loss computes the log-probability that was stored with the sample, up to rounding."""
    head = lively(name)
    out = torch.randn(5, 24, head.outputs + 1)
    sample = FusedSampler(head) if name in SAMPLED else head.sample
    with torch.no_grad():
        samples, logp = sample(out.view(120, -1)[:, :-1], torch.Generator().manual_seed(0))
    columns = [samples.view(5, 24, -1), logp.view(5, 24), torch.randn(5, 24), torch.randn(5, 24)]
    arrays = [x.numpy() for x in (*columns, torch.zeros(5, 24, dtype=torch.bool))]
    agents = np.arange(24)
    loss = FusedLoss(head).minibatch(
        agents, *arrays, clip=2e-6 if name in SAMPLED else 2e-5, value_coef=0.5, entropy_coef=0.01
    )
    sums = loss.chunk(out.numpy(), agents, np.empty_like(out.numpy()))
    assert sums[CLIP_FRACTION] == 0
    assert abs(sums[KL]) < 1e-6


@pytest.mark.parametrize("name", SAMPLED)
def test_kernels_are_used_where_they_apply(name):
    head = MAKE[name]()
    before = copy.deepcopy(head.state_dict())
    sampler, how = fused_sampler(head)
    assert isinstance(sampler, FusedSampler)
    assert how == "Actions are sampled in a kernel."
    assert all(torch.equal(x, before[key]) for key, x in head.state_dict().items())


def half_as_wide(self, out, generator):
    sample = out + 0.5 * self.log_std.exp() * torch.randn(out.shape, generator=generator)
    return sample, self._log_prob(out, sample)


def never_the_last(self, out, generator):
    choice = torch.zeros(len(out), self.components, dtype=self.dtype)
    return choice, self.log_prob_and_entropy(out, choice)[0]


def with_an_argument_more(self, out, generator, more):
    raise AssertionError


@pytest.mark.parametrize("name", ["bins", "gaussian"])
@pytest.mark.parametrize("change", [half_as_wide, never_the_last, with_an_argument_more])
def test_an_edited_head_is_not_replaced_by_a_kernel_that_differs(monkeypatch, name, change):
    head = MAKE[name]()
    monkeypatch.setattr(type(head), "sample", change)
    sampler, how = fused_sampler(head)
    assert sampler is None
    assert f"{type(head).__name__} was changed and the kernel in learn/fast was not" in how


def test_without_a_kernel_the_reason_is_reported(monkeypatch):
    mine = type("Mine", (heads.GaussianHead,), {})(2, *BOUNDS)
    assert fused_sampler(mine) == (None, "Actions are sampled in plain torch: there is no kernel for Mine.")
    assert "no kernel for BetaHead" in fused_sampler(heads.BetaHead(2))[1]
    assert "no kernel for a head in torch.float64 on cpu" in fused_sampler(MAKE["gaussian"]().double())[1]
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert "NUMBA_DISABLE_JIT" in fused_sampler(MAKE["gaussian"]())[1]

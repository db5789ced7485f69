"""Heads with masses and densities: these add up to one, agree with samples, and have finite gradients."""

import math

import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given, settings
from hypothesis import strategies as st

from particle_grid.learn.heads import HurdleHead, make_head
from particle_grid.learn.heads.hurdle import LARGEST

BOX = Box(-1, 1, (2,))
LINE = Box(-1, 1, (1,))
# Heads of one component with a mass or a density of their own: the atoms, and the range of the density between them.
ENDS = (-1.0, 1.0)
MIXED = {
    "hurdle": (HurdleHead(1), (-1.0, 0.0, 1.0), (-LARGEST, LARGEST)),
    "capg": (make_head(LINE, "capg"), ENDS, (-LARGEST, LARGEST)),
    "capg, shared": (make_head(LINE, "capg", shared_std=True), ENDS, (-LARGEST, LARGEST)),
    "mixture": (make_head(LINE, "mixture"), ENDS, (-LARGEST, LARGEST)),
    "jitter": (make_head(LINE, "jitter", bins=5), (), (-1.2499, 1.2499)),
    "probit": (make_head(LINE, "probit"), (0, 1, 2), None),
    "probit, shared": (make_head(LINE, "probit", shared_std=True), (0, 1, 2), None),
}


def log_probs(head, out, x):
    """Return the log-probabilities f32[n] of values x f32[n] of one component with outputs f32[K]."""
    return head.log_prob_and_entropy(out.expand(len(x), -1), x[:, None])[0].detach()


def cumulative_between(head, out, ends):
    """Return points in a range, and the probability of values between its lower end and each of them."""
    x = torch.linspace(*ends, 40_001)
    density = getattr(head, "unit", 1.0) * log_probs(head, out, x).exp()
    return x[1:], torch.cumulative_trapezoid(density, x)


@pytest.mark.parametrize("name", MIXED)
@given(seed=st.integers(0, 10_000), spread=st.floats(0.1, 10))
@settings(max_examples=20)
def test_masses_and_densities_add_up_to_one_and_agree_with_samples(name, seed, spread):
    head, atoms, ends = MIXED[name]
    n = 20_000
    generator = torch.Generator().manual_seed(seed)
    out = spread * torch.randn(head.outputs, generator=generator)
    sample, logp = (x.detach() for x in head.sample(out.expand(n, -1), generator))
    assert torch.equal(logp, log_probs(head, out, sample[:, 0]))
    masses = log_probs(head, out, torch.tensor(atoms)).exp() if atoms else torch.zeros(0)
    frequencies = torch.tensor([(sample == atom).float().mean() for atom in atoms])
    assert ((frequencies - masses).abs() < 5 * 0.5 / math.sqrt(n)).all()
    total = masses.sum()
    if ends:
        x, cumulative = cumulative_between(head, out, ends)
        total = total + cumulative[-1]
        between = sample[~torch.isin(sample, torch.tensor(atoms))]
        for k in (5_000, 15_000, 25_000, 35_000):
            assert abs((between < x[k]).sum().item() / n - cumulative[k].item()) < 5 * 0.5 / math.sqrt(n) + 1e-3
    torch.testing.assert_close(total, torch.tensor(1.0), rtol=0, atol=2e-3)
    surprise = -logp.double()
    entropy = head.log_prob_and_entropy(out[None], sample[:1])[1].item()
    assert abs(surprise.mean().item() - entropy) < 6 * surprise.std().item() / math.sqrt(n) + 5e-3


@given(location=st.floats(-3, 3), log_std=st.floats(-2.9, 0.4))
@settings(max_examples=20)
def test_a_probit_head_makes_the_moves_of_a_snapped_head_and_knows_their_probabilities(location, log_std):
    n = 40_000
    options = {"log_std_init": log_std}
    snapped = make_head(LINE, "snapped", move_entropy=True, **options)
    out = torch.full((n, 1), location)
    actions = snapped.to_action(snapped.sample(out, torch.Generator().manual_seed(0))[0]).detach()
    for shared in (False, True):
        probit = make_head(LINE, "probit", shared_std=shared, **options)
        outputs = torch.nn.functional.pad(out, (0, probit.outputs - 1))
        for k in range(3):
            p = log_probs(probit, outputs[0], torch.tensor([k])).exp()
            assert abs(p.item() - (actions == k - 1).float().mean().item()) < 5 * 0.5 / math.sqrt(n)
        assert torch.equal(probit.to_action(probit.mode(outputs[:1])), snapped.to_action(snapped.mode(out[:1])))
        entropies = [
            head.log_prob_and_entropy(x[:1], torch.zeros(1, 1))[1] for head, x in ((probit, outputs), (snapped, out))
        ]
        torch.testing.assert_close(*entropies)


def test_a_clipped_action_has_the_density_of_the_gaussian_between_the_ends_and_its_tails_at_them():
    head = make_head(LINE, "capg", shared_std=True)
    normal = torch.distributions.Normal(0.3, math.exp(-0.5))
    expected = [*normal.cdf(torch.tensor([-1.0])).log(), *normal.log_prob(torch.tensor([-0.4, 0.0, 0.99]))]
    expected += [*(1 - normal.cdf(torch.tensor([1.0]))).log()]
    found = log_probs(head, torch.tensor([0.3]), torch.tensor([-1.0, -0.4, 0.0, 0.99, 1.0]))
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("location", [-1e4, -100.0, -2.0, 0.1, 3.0, 1e4])
def test_the_gradient_of_a_move_is_that_of_its_probability_even_if_it_is_tiny(location):
    head = make_head(LINE, "probit", shared_std=True, log_std_init=0.0)
    for k, inner in ((0, -0.5), (1, 0.5 if location > 0 else -0.5), (2, 0.5)):
        out = torch.tensor([[location]], requires_grad=True)
        head.log_prob_and_entropy(out, torch.tensor([[k]]))[0].sum().backward()
        if abs(location) < 10:
            step = 1e-4
            around = torch.tensor([location - step, location + step], dtype=torch.float64)
            logp = head.double().log_prob_and_entropy(around[:, None], torch.full((2, 1), k))[0]
            expected = (logp[1] - logp[0]).item() / (2 * step)
            head.float()
        else:  # far out, the slope is the distance to the nearer edge, or 0 for the certain move
            expected = 0.0 if k == (0 if location < 0 else 2) else inner - location
        assert out.grad.item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_jitter_spreads_each_bin_evenly_around_its_value():
    out = torch.zeros(30_000, 10)
    out[:, :5] = torch.tensor([0.0, 0.0, 9.0, 0.0, 0.0]) * 10
    sample, _ = make_head(BOX, "jitter", bins=5).sample(out, torch.Generator().manual_seed(0))
    assert sample[:, 0].abs().max() <= 0.25
    assert abs(sample[:, 0].std().item() - 0.5 / math.sqrt(12)) < 0.003


@pytest.mark.parametrize("largest", [10.0, 1e4])
@pytest.mark.parametrize("name", MIXED)
def test_gradients_are_finite_for_large_outputs(name, largest):
    head = MIXED[name][0]
    generator = torch.Generator().manual_seed(0)
    out = (largest * torch.randn(2000, head.outputs, generator=generator)).requires_grad_()
    sample, _ = head.sample(out.detach(), generator)
    logp, entropy = head.log_prob_and_entropy(out, sample.detach())
    (logp + entropy).sum().backward()
    assert out.grad.isfinite().all()

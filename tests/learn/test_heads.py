import math

import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from hypothesis import given, settings
from hypothesis import strategies as st

from particle_grid.learn.heads import HEADS, BetaHead, BinsHead, CategoricalHead, HurdleHead, make_head
from particle_grid.learn.heads.numbers import SHARE
from particle_grid.learn.policy import make_policy
from particle_grid.support.errors import UserError

NVECS = ([3, 3], [2, 5, 1])


def categorical(nvec, out):
    return [torch.distributions.Categorical(logits=part) for part in out.split(nvec, -1)]


BOX = Box(-1, 1, (2,))
LINE = Box(-1, 1, (1,))
MOVES = MultiDiscrete([3, 3])


def gaussian_head(**kwargs):
    return make_head(BOX, "gaussian", **kwargs)


@pytest.mark.parametrize("nvec", NVECS)
@given(seed=st.integers(0, 10_000), spread=st.floats(0.1, 30))
@settings(max_examples=20)
def test_categorical_agrees_with_torch_distributions(nvec, seed, spread):
    generator = torch.Generator().manual_seed(seed)
    head = CategoricalHead(nvec)
    out = spread * torch.randn(4, 6, sum(nvec), generator=generator)
    action, logp = head.sample(out, generator)
    expected = categorical(nvec, out)
    assert action.shape == (4, 6, len(nvec))
    assert action.dtype == torch.int32
    total = sum(d.log_prob(action[..., k]) for k, d in enumerate(expected))
    torch.testing.assert_close(logp, total, rtol=1e-4, atol=1e-4)
    again, entropy = head.log_prob_and_entropy(out, action)
    torch.testing.assert_close(again, logp, rtol=0, atol=0)
    torch.testing.assert_close(entropy, sum(d.entropy() for d in expected), rtol=1e-4, atol=1e-4)
    for k, distribution in enumerate(expected):
        best = distribution.probs.gather(-1, head.mode(out)[..., k : k + 1].long())[..., 0]
        assert torch.equal(best, distribution.probs.max(-1).values)


@given(seed=st.integers(0, 10_000), raw=st.floats(-100, 100))
@settings(max_examples=20)
def test_gaussian_agrees_with_torch_distributions(seed, raw):
    generator = torch.Generator().manual_seed(seed)
    head = gaussian_head()
    out = torch.randn(4, 6, 2, generator=generator)
    head.raw_log_std.data[:] = torch.tensor([raw, 0.3])
    action, logp = head.sample(out, generator)
    expected = torch.distributions.Normal(out, head.log_std.exp())
    assert action.dtype == torch.float32
    torch.testing.assert_close(logp, expected.log_prob(action).sum(-1), rtol=1e-4, atol=1e-4)
    again, entropy = head.log_prob_and_entropy(out, action)
    torch.testing.assert_close(again, logp, rtol=0, atol=0)
    torch.testing.assert_close(entropy, expected.entropy().sum(-1), rtol=1e-5, atol=1e-5)
    assert torch.equal(head.mode(out), out)


@pytest.mark.parametrize("head", ["discrete", *HEADS[1:]])
@given(rms=st.floats(0.2, 0.55))
@settings(max_examples=5)
def test_initial_actions_have_the_requested_size_with_every_head(head, rms):
    discrete = head == "discrete"
    space = MOVES if discrete else BOX
    policy = make_policy("mlp", 2, space, hidden=8, head="auto" if discrete else head, init_action_rms=rms)
    out = policy.actor.bias.detach().expand(40_000, -1)
    actions = policy.head.to_action(policy.head.sample(out, torch.Generator().manual_seed(0))[0]).detach() - float(
        discrete
    )
    torch.testing.assert_close(actions.clamp(-1, 1).square().mean(0).sqrt(), torch.full((2,), rms), rtol=0.03, atol=0)
    assert actions.mean(0).abs().max() < 0.02


def test_snapped_and_discrete_actions_of_equal_size_have_equal_distributions():
    shares = []
    for space, head in ((MOVES, "auto"), (BOX, "snapped")):
        policy = make_policy("mlp", 2, space, head=head, init_action_rms=0.6)
        out = policy.actor.bias.detach().expand(100_000, -1)
        actions = policy.head.to_action(policy.head.sample(out, torch.Generator().manual_seed(0))[0]).detach()
        shares.append((actions == (1 if space is MOVES else 0)).float().mean(0))
    torch.testing.assert_close(*shares, rtol=0, atol=0.01)


@pytest.mark.parametrize("head", ["gaussian", "squashed", "beta"])
def test_an_unreachable_size_of_initial_actions_is_refused(head):
    with pytest.raises(
        ValueError, match=r"policy.init_action_rms=0.95 is out of reach for this head: it must be between 0"
    ):
        make_policy("mlp", 2, BOX, head=head, init_action_rms=0.95)


@pytest.mark.parametrize("nvec", NVECS)
def test_choices_are_as_frequent_as_their_probabilities(nvec):
    n = 40_000
    out = torch.randn(sum(nvec))
    action, _ = CategoricalHead(nvec).sample(out.expand(n, -1), torch.Generator().manual_seed(1))
    for k, distribution in enumerate(categorical(nvec, out)):
        frequency = torch.bincount(action[:, k], minlength=nvec[k]) / n
        assert (frequency - distribution.probs).abs().max() < 5 * 0.5 / math.sqrt(n)


@given(seed=st.integers(0, 10_000), spread=st.floats(0.1, 10))
@settings(max_examples=20)
def test_beta_agrees_with_torch_distributions(seed, spread):
    generator = torch.Generator().manual_seed(seed)
    head = BetaHead(2)
    out = spread * torch.randn(4, 6, 4, generator=generator)
    sample, logp = head.sample(out, generator)
    alpha, beta = (1 + torch.nn.functional.softplus(out)).chunk(2, -1)
    expected = torch.distributions.Beta(alpha, beta)
    scale = math.log(2)  # for the interval [-1, 1], which is twice as wide
    torch.testing.assert_close(logp, (expected.log_prob(sample) - scale).sum(-1), rtol=1e-3, atol=1e-3)
    again, entropy = head.log_prob_and_entropy(out, sample)
    torch.testing.assert_close(again, logp, rtol=0, atol=0)
    torch.testing.assert_close(entropy, (expected.entropy() + scale).sum(-1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(head.mode(out), expected.mean)


@given(means=st.tuples(*[st.floats(-3, 3)] * 2), log_std=st.floats(-2, 0.4))
@settings(max_examples=20)
def test_the_squashed_entropy_equals_the_mean_surprise_of_many_samples(means, log_std):
    n = 100_000
    head = make_head(BOX, "squashed", log_std_init=log_std)
    out = torch.tensor(means).expand(n, 2)
    sample, logp = head.sample(out, torch.Generator().manual_seed(1))
    slope = torch.log1p(-(head.to_action(sample).double() ** 2).clamp(max=1 - 1e-15)).sum(-1)
    surprise = -(logp.double() - slope)  # of the squashed sample; its mean is the entropy
    entropy = head.log_prob_and_entropy(out[:1], sample[:1])[1].item()
    noise = 5 * surprise.std().item() / math.sqrt(n)
    quadrature = 2 * 0.05  # two components
    assert abs(surprise.mean().item() - entropy) < noise + quadrature


def test_the_first_actions_of_a_hurdle_have_the_largest_entropy():
    def entropy(out):
        return HurdleHead(1).log_prob_and_entropy(out, torch.zeros(*out.shape[:-1], 1))[1]

    wide = torch.tensor([0.0] * 5 + [9.0])  # as even as the density can be between the atoms
    others = wide + torch.randn(1000, 6, generator=torch.Generator().manual_seed(0))
    assert (entropy(others) < entropy(wide)).all()
    assert abs(entropy(wide) - math.log(3 + 1 / 3)) < 0.01
    assert abs(entropy(torch.zeros(6)) - math.log(3 + 1 / 3)) < 0.02


def test_a_hurdle_begins_with_equally_likely_moves_and_few_values_between():
    sample, _ = HurdleHead(2).sample(torch.zeros(100_000, 12), torch.Generator().manual_seed(0))
    for atom in (-1.0, 0.0, 1.0):
        assert abs((sample == atom).float().mean().item() - (1 - SHARE) / 3) < 0.01


def test_bins_are_evenly_spread_from_end_to_end():
    head = BinsHead(2, 5)
    assert head.outputs == 10
    assert head.to_action(torch.tensor([[0, 2], [3, 4]])).tolist() == [[-1.0, 0.0], [0.5, 1.0]]


def test_snapped_actions_are_the_nearest_moves_with_the_density_of_the_sample():
    head, plain = (make_head(BOX, name, log_std_init=0.3) for name in ("snapped", "gaussian"))
    sample = torch.tensor([[-7.0, -0.6], [-0.4, 0.4], [0.6, 1.3]])
    assert head.to_action(sample).tolist() == [[-1, -1], [0, 0], [1, 1]]
    out = torch.randn(3, 2)
    for a, b in zip(head.log_prob_and_entropy(out, sample), plain.log_prob_and_entropy(out, sample), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["squashed", "snapped", "beta", "bins", "hurdle", "probit", "capg", "mixture"])
def test_bounded_actions_lie_within_the_box(name):
    head = make_head(BOX, name)
    sample, _ = head.sample(10 * torch.randn(10_000, head.outputs), torch.Generator().manual_seed(1))
    for action in (head.to_action(sample), head.to_action(head.mode(10 * torch.randn(100, head.outputs)))):
        assert action.dtype == torch.float32
        assert action.abs().max() <= 1


@pytest.mark.parametrize("head", [CategoricalHead([3, 3]), *(make_head(BOX, name) for name in HEADS[1:])])
def test_the_components_of_an_action_are_drawn_independently(head):
    n = 40_000
    action, _ = head.sample(torch.zeros(n, head.outputs), torch.Generator().manual_seed(1))
    assert torch.corrcoef(action.T.float())[0, 1].abs() < 5 / math.sqrt(n)


def test_gaussian_samples_are_unclipped_with_the_right_mean_and_deviation():
    n = 40_000
    head = gaussian_head(log_std_init=0.2)
    action, _ = head.sample(torch.tensor([0.9, -2.0]).expand(n, 2), torch.Generator().manual_seed(1))
    std = math.exp(0.2)
    assert (action.mean(0) - torch.tensor([0.9, -2.0])).abs().max() < 5 * std / math.sqrt(n)
    assert (action.std(0) - std).abs().max() < 5 * std / math.sqrt(2 * n)
    assert action.abs().max() > 1


def test_an_impossible_choice_is_never_drawn_and_a_certain_one_always():
    out = torch.tensor([-200.0, 0.0, -200.0]).expand(10_000, 3)
    action, logp = CategoricalHead([3]).sample(out, torch.Generator().manual_seed(0))
    assert (action == 1).all()
    assert (logp == 0).all()


@given(raw=st.floats(-1e6, 1e6), low=st.floats(-5, -1), high=st.floats(0, 2))
@settings(max_examples=50)
def test_log_std_stays_within_its_bounds_for_any_parameter(raw, low, high):
    head = gaussian_head(log_std_min=low, log_std_max=high, log_std_init=-0.5)
    torch.testing.assert_close(head.log_std, torch.tensor([-0.5, -0.5]), rtol=0, atol=1e-5)
    head.raw_log_std.data[:] = raw
    assert (head.log_std >= low - 1e-6).all()
    assert (head.log_std <= high + 1e-6).all()


def test_log_std_follows_the_gradient_of_the_entropy():
    head = gaussian_head()
    head.log_prob_and_entropy(torch.zeros(3, 2), torch.zeros(3, 2))[1].sum().backward()
    assert (head.raw_log_std.grad > 0).all()


@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2, 2)), MultiDiscrete([[3], [3]])])
def test_an_unsupported_action_space_is_refused_by_name(space):
    with pytest.raises(ValueError, match=r"(?s)No policy can act in .*use MultiDiscrete"):
        make_head(space)


def test_a_box_other_than_minus_one_to_one_is_refused():
    with pytest.raises(ValueError, match=r"scale actions to \[-1, 1\]"):
        make_head(Box(-2, 2, (2,)))


@pytest.mark.parametrize("start", [-3.0, 0.5, math.nextafter(0.5, 0), 2.0, math.nan])
def test_an_initial_log_std_outside_its_bounds_is_refused(start):
    with pytest.raises(ValueError, match=f"log_std_init={start} is not between"):
        gaussian_head(log_std_init=start)


@pytest.mark.parametrize("bound", [-math.inf, math.inf, math.nan, -1e308, 1e20, -21, "a", None, True, 10**400])
@pytest.mark.parametrize("name", ["log_std_min", "log_std_max"])
def test_a_bound_of_log_std_beyond_float32_is_refused(name, bound):
    with pytest.raises(ValueError, match=f"{name}=.* is invalid: it must be a number from -20 to 20"):
        gaussian_head(**{name: bound})


@pytest.mark.parametrize(("low", "high", "start"), [(-20, 20, 19.999999999), (-3, 0.5, 0.4999999), (0, 1e-300, 5e-301)])
def test_a_log_std_between_its_bounds_is_finite(low, high, start):
    head = gaussian_head(log_std_min=low, log_std_max=high, log_std_init=start)
    assert (head.log_std - start).abs().max() < 1e-5


@pytest.mark.parametrize("start", ["a", None, True])
def test_an_initial_log_std_that_is_not_a_number_is_refused(start):
    with pytest.raises(ValueError, match=r"log_std_init=.* is not a number"):
        gaussian_head(log_std_init=start)


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (
            BOX,
            {"head": "normal"},
            "There is no head 'normal'. There are: auto, beta, bins, capg, gaussian, hurdle, jitter, mixture, probit",
        ),
        (MultiDiscrete([3, 3]), {"head": "beta"}, "policy.head=beta is for continuous actions"),
        (BOX, {"bins": 5}, "policy.bins=5 is for policy.head=bins or jitter: add that, or leave it out."),
        (BOX, {"head": "beta", "bins": 5}, "policy.bins=5 is for policy.head=bins or jitter"),
        (BOX, {"head": "gaussian", "shared_std": True}, "policy.shared_std=True is for policy.head=probit or capg"),
        (BOX, {"head": "probit", "move_entropy": True}, "policy.move_entropy=True is for policy.head=snapped"),
        (BOX, {"head": "probit", "shared_std": "no"}, "policy.shared_std='no' is invalid: give true or false."),
        (BOX, {"head": "bins", "bins": 1}, "policy.bins=1 is invalid"),
        (BOX, {"head": "bins", "bins": 2.5}, "policy.bins=2.5 is invalid"),
    ],
)
def test_an_invalid_head_is_refused_by_name(space, options, message):
    with pytest.raises(ValueError, match=message):
        make_head(space, **options)


class OldHead:
    """A head with the method names of an earlier version."""

    outputs = 2

    def __init__(self, space):
        pass

    def sample(self, out, generator): ...
    def evaluate(self, out, action): ...
    def greedy(self, out): ...
    def act(self, sample): ...
    def begin(self, rms): ...


def test_a_head_with_old_method_names_is_refused_with_the_new_names():
    renames = "evaluate to log_prob_and_entropy, greedy to mode, act to to_action, begin to init_bias"
    with pytest.raises(UserError, match=f"OldHead has method names of an earlier version: rename {renames}"):
        make_head(BOX, f"{__name__}:OldHead")

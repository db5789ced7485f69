"""The optimiser takes the steps of torch's Adam and Muon, in any number of threads, and resumes bit for bit."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from particle_grid.learn import checkpoint, optimiser
from particle_grid.learn.config import OPTIMISERS, TrainerConfig
from particle_grid.learn.optimiser import LEAST, POLYNOMIALS, FusedAdam, Optimiser, orthogonal
from particle_grid.learn.policy import POLICIES, make_policy
from particle_grid.learn.trainer import Trainer
from tests.learn.toy import SPACES, Toy
from tests.learn.training import SMALL, make, weights

JORDAN = (3.4445, -4.775, 2.0315)  # torch's polynomial
ADAM = replace(SMALL, optimiser="adam")
MUON = replace(SMALL, optimiser="muon")
SHAPES = [(512, 128), (128, 39), (6, 128), (1, 128), (33, 1), (40, 40), (128, 300)]


def alone(x):
    """Sum over one process."""
    return x


def policy_for(name, form="discrete"):
    torch.manual_seed(0)
    return make_policy(name, 1, SPACES[form], hidden=16)


def steps_of(policy, step, count=4, size=1.0):
    """Take steps with random gradients of the given size, and return all weights."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        for x in policy.parameters():
            x.grad = size * torch.randn(x.shape, generator=generator)
        step()
    return torch.cat([x.detach().flatten() for x in policy.parameters()])


def trial(parameters, config, threads=1):
    """Return a function that takes a step of our optimiser."""
    ours = Optimiser(parameters, config, threads)
    return lambda: ours.step(alone)


def matrices(seed=0):
    """Return random weight matrices of every shape of tile."""
    generator = torch.Generator().manual_seed(seed)
    return nn.ParameterList([nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES])


@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    ("kernel", "size", "tolerance"), [(False, 1e-4, 0), (False, 1.0, 1e-6), (True, 1e-4, 1e-6), (True, 1.0, 1e-6)]
)
def test_adam_takes_the_steps_of_torch(name, form, kernel, size, tolerance, monkeypatch):
    """Without the kernel to the bit, unless gradients are clipped: the norm is summed in another order."""
    monkeypatch.setattr(FusedAdam, "applies", lambda parameters: kernel)
    mine = policy_for(name, form)
    theirs = policy_for(name, form)
    adam = torch.optim.Adam(theirs.parameters(), lr=ADAM.learning_rate, eps=ADAM.adam_eps, fused=True)

    def clip_and_step():
        nn.utils.clip_grad_norm_(theirs.parameters(), ADAM.max_grad_norm)
        adam.step()

    got = steps_of(mine, trial(mine.parameters(), ADAM), size=size)
    expected = steps_of(theirs, clip_and_step, size=size)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("kernel", [True, False])
def test_muon_takes_the_steps_of_torch_with_its_polynomials(kernel, monkeypatch):
    """To the precision of bf16, in which torch multiplies."""
    monkeypatch.setattr(optimiser, "POLYNOMIALS", np.array([JORDAN] * 5, np.float32))
    monkeypatch.setattr(optimiser, "has_kernel", lambda matrix: kernel)
    mine = matrices()
    theirs = matrices()
    rate = MUON.learning_rate * MUON.muon_scale
    muon = torch.optim.Muon(theirs.parameters(), lr=rate, momentum=0.9, weight_decay=0, adjust_lr_fn="match_rms_adamw")

    def clip_and_step():
        nn.utils.clip_grad_norm_(theirs.parameters(), MUON.max_grad_norm)
        muon.step()

    steps_of(mine, trial(mine.parameters(), MUON))
    steps_of(theirs, clip_and_step)
    for ours, expected, before in zip(mine, theirs, matrices(), strict=True):
        moved = (expected - before).detach().norm()
        assert (ours - expected).detach().norm() < 0.06 * moved, ours.shape


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_takes_the_step_of_plain_torch(shape, monkeypatch):
    results = []
    for kernel in (True, False):
        monkeypatch.setattr(optimiser, "has_kernel", lambda matrix, kernel=kernel: kernel)
        torch.manual_seed(0)
        weight = nn.Parameter(torch.zeros(shape))
        results.append(steps_of(nn.ParameterList([weight]), trial([weight], MUON)))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", POLICIES)
def test_muon_updates_matrices_and_adam_the_rest(name):
    policy = policy_for(name)
    muon = Optimiser(policy.parameters(), MUON).state_dict()
    adam = Optimiser(policy.parameters(), ADAM).state_dict()
    assert (muon["name"], adam["name"]) == ("muon", "adam")
    for number, parameter in enumerate(policy.parameters()):
        expected = {"momentum_buffer"} if parameter.ndim == 2 else {"step", "exp_avg", "exp_avg_sq"}
        assert muon["state"][number].keys() == expected
        assert adam["state"][number].keys() == {"step", "exp_avg", "exp_avg_sq"}


def test_singular_values_are_brought_near_1():
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(90, 60, generator=generator, dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64))[0]
    values = torch.logspace(-4, 0, 60, dtype=torch.float64)
    values /= values.norm()
    for x in (left @ torch.diag(values) @ right, (left @ torch.diag(values) @ right).t()):
        after = (left.t() @ (orthogonal(x) if len(x) == 90 else orthogonal(x).t()) @ right.t()).diagonal()
        assert bool((after > 0).all())
        assert bool(((after - 1).abs() < 0.27)[values >= LEAST].all())


def optimal(low, high):
    """Return the coefficients of the odd quintic polynomial that is nearest to 1 on an interval, and its error.

    The exchange algorithm of Remez: the error is the same, with alternating signs, at the ends and the two extrema.
    """
    first = 0.75 * low + 0.25 * high
    second = 0.25 * low + 0.75 * high
    for _ in range(100):
        points = np.array([low, first, second, high])
        signs = np.array([1, -1, 1, -1])
        a, b, c, error = np.linalg.solve(np.stack([points, points**3, points**5, signs], 1), np.ones(4))
        root = np.sqrt(9 * b * b - 20 * a * c)
        first, second = np.sqrt((-3 * b + np.array([-root, root])) / (10 * c))
    return (a, b, c), abs(error)


def test_each_polynomial_is_optimal_for_what_the_one_before_leaves():
    low = LEAST
    high = 1.0
    for coefficients in POLYNOMIALS:
        expected, error = optimal(low, high)
        np.testing.assert_allclose(coefficients, expected, rtol=1e-5)
        low = 1 - error
        high = 1 + error
    assert error == pytest.approx(0.2694, abs=1e-4)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_the_step_does_not_depend_on_the_number_of_threads(threads):
    one = matrices()
    several = matrices()
    alone_steps = steps_of(one, trial(one.parameters(), MUON))
    assert torch.equal(alone_steps, steps_of(several, trial(several.parameters(), MUON, threads)))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_parameters_without_a_gradient_are_left_as_they_are(name):
    policy = policy_for("conv_lstm")
    ours = Optimiser(policy.parameters(), replace(SMALL, optimiser=name))
    steps_of(policy, lambda: ours.step(alone), 1)
    before = copy.deepcopy(ours.state_dict()["state"])
    weight = policy.critic.weight.detach().clone()
    ours.zero_grad()
    policy.actor.weight.grad = torch.ones_like(policy.actor.weight)
    norm = ours.step(alone)
    assert float(norm) == pytest.approx(policy.actor.weight.numel() ** 0.5)
    assert torch.equal(weight, policy.critic.weight)
    numbers = {n: k for k, (n, _) in enumerate(policy.named_parameters())}
    changed = [k for k, x in ours.state_dict()["state"].items() if any(not x[n].equal(before[k][n]) for n in x)]
    assert changed == [numbers["actor.weight"]]


def test_a_backward_pass_may_write_to_the_flat_gradient():
    elsewhere = policy_for("conv")
    direct = policy_for("conv")
    expected = steps_of(elsewhere, trial(elsewhere.parameters(), MUON), 2)
    ours = Optimiser(direct.parameters(), MUON)

    def step():
        for x, gradient in zip(direct.parameters(), ours.gradients, strict=True):
            gradient.copy_(x.grad)
            x.grad = gradient
        ours.step(alone)

    assert torch.equal(steps_of(direct, step, 2), expected)


def test_gradients_are_laid_out_like_their_parameters():
    weight = nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last))
    ours = Optimiser([weight, nn.Parameter(torch.zeros(3, 5).t())], SMALL)
    assert [x.stride() for x in ours.gradients] == [x.stride() for x in ours.parameters]
    assert len(ours.gradient) % optimiser.PART == 0


def test_weights_of_several_dtypes_are_refused():
    policy = policy_for("conv")
    policy.critic.double()
    with pytest.raises(ValueError, match=r"has weights in torch.float32, torch.float64: convert them to one dtype"):
        Optimiser(policy.parameters(), SMALL)


@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("kind", OPTIMISERS)
def test_training_resumes_bit_for_bit(kind, name, form, tmp_path):
    config = replace(SMALL, optimiser=kind)
    whole = make(name, form, config)
    whole.run()
    first = make(name, form, config, path=tmp_path / "checkpoint.pt")
    first.loggers = [Interrupt(first)]
    first.run()
    second = make(name, form, config, seed=7)
    second.load_state_dict(checkpoint.load(tmp_path / "checkpoint.pt"))
    second.run()
    assert torch.equal(weights(whole), weights(second))


class Interrupt:
    """Ends a run after its first iteration."""

    def __init__(self, run):
        self.run = run

    def log(self, step, scalars):
        self.run.interrupted = True


@pytest.mark.parametrize(("kernel", "tolerance"), [(False, 0), (True, 1e-6)])
def test_moments_of_torch_resume_bit_for_bit_or_to_rounding_in_the_kernel(kernel, tolerance, monkeypatch):
    """Earlier versions saved the state of `torch.optim.Adam`, without the name of the optimiser."""
    monkeypatch.setattr(FusedAdam, "applies", lambda parameters: kernel)
    size = 1e-4  # not clipped
    theirs = policy_for("conv_lstm")
    adam = torch.optim.Adam(theirs.parameters(), lr=ADAM.learning_rate, eps=ADAM.adam_eps, fused=True)
    steps_of(theirs, adam.step, 3, size)
    saved = copy.deepcopy(adam.state_dict())
    mine = copy.deepcopy(theirs)
    ours = Optimiser(mine.parameters(), ADAM)
    checkpoint.check_optimiser("adam", saved)
    checkpoint.check_moments(ours.state_dict()["state"], saved["state"])
    ours.load_moments(saved["state"])
    got = steps_of(mine, lambda: ours.step(alone), 3, size)
    torch.testing.assert_close(got, steps_of(theirs, adam.step, 3, size), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("kind", "other"), [("adam", "muon"), ("muon", "adam")])
def test_a_run_with_another_optimiser_is_refused_and_does_not_change(kind, other):
    saved = make(config=replace(SMALL, optimiser=kind))
    saved.run()
    run = make(config=replace(SMALL, optimiser=other), seed=3)
    before = weights(run)
    with pytest.raises(
        ValueError, match=rf"saved with trainer.optimiser={kind}.*: resume with trainer.optimiser={kind}"
    ):
        run.load_state_dict(saved.state_dict())
    assert torch.equal(weights(run), before)


@pytest.mark.parametrize("damage", [lambda x: x[:1], lambda x: x.flatten(), lambda x: None])
def test_damaged_moments_of_muon_are_refused(damage):
    saved = make(config=MUON)
    saved.run()
    state = copy.deepcopy(saved.state_dict())
    state["optimiser"]["state"][0]["momentum_buffer"] = damage(state["optimiser"]["state"][0]["momentum_buffer"])
    with pytest.raises(ValueError, match="policy or device differs"):
        make(config=MUON).load_state_dict(state)


def test_a_run_without_moments_starts_from_zero():
    """A state from before the first update."""
    run = make(config=MUON)
    run.run()
    run.updater.optimiser.load_moments({})
    assert all(
        not x.any() for moments in run.updater.optimiser.state_dict()["state"].values() for x in moments.values()
    )


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_a_policy_learns_with_either_optimiser(kind):
    """Agents are rewarded for moving up."""
    torch.manual_seed(0)
    env = Toy(16, SPACES["discrete"], reward=lambda obs, actions: (actions[:, 0] == 2).astype(np.float32))
    config = TrainerConfig(
        total_steps=8192, rollout_length=8, minibatch=64, threads=1, device="cpu", reward_scale=1.0, optimiser=kind
    )
    result = Trainer(env, make_policy("conv", 1, env.single_action_space, hidden=16), config).run()
    assert result.scalars["episode/reward"] > 0.8

import pytest
import torch
import torch.nn.functional as F
from gymnasium.spaces import MultiDiscrete
from hypothesis import given, settings
from hypothesis import strategies as st

from particle_grid.learn.policy import POLICIES, make_policy
from particle_grid.support.errors import UserError
from tests.learn.toy import DISCRETE, SPACES

T = 6
N = 5


def observations(steps, n, vision):
    cells = torch.randint(0, 7, (steps, n, (2 * vision + 1) ** 2), dtype=torch.uint8)
    return torch.cat([cells, torch.randint(0, 256, (steps, n, 7), dtype=torch.uint8)], -1)


def lively(name, vision=2, space=DISCRETE, hidden=16):
    """Return a policy in which every parameter matters."""
    policy = make_policy(name, vision, space, hidden=hidden)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return policy


def random_state(policy, n):
    return tuple(torch.randn_like(x) for x in policy.initial_state(n))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("form", SPACES)
@pytest.mark.parametrize("vision", [1, 2, 3, 5, 6])
def test_every_policy_has_the_same_interface_with_any_head_and_vision(name, form, vision):
    policy = make_policy(name, vision, SPACES[form], hidden=16)
    state = policy.initial_state(N)
    assert all(x.shape == (N, 16) and not x.any() for x in state)
    out, value, after = policy(observations(T, N, vision), torch.zeros(T, N, dtype=torch.bool), state)
    assert out.shape == (T, N, policy.head.outputs)
    assert value.shape == (T, N)
    assert [x.shape for x in after] == [x.shape for x in state]
    action, logp = policy.head.sample(out, torch.Generator())
    assert action.shape == (T, N, 2)
    assert logp.shape == (T, N)


@pytest.mark.parametrize("name", POLICIES)
@given(seed=st.integers(0, 1000), chance=st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=10)
def test_replaying_a_rollout_equals_acting_step_by_step(name, seed, chance):
    torch.manual_seed(seed)
    policy = lively(name)
    obs = observations(T, N, 2)
    starts = torch.rand(T, N) < chance
    state = first = random_state(policy, N)
    steps = []
    for t in range(T):
        out, value, state = policy(obs[t : t + 1], starts[t : t + 1], state)
        steps.append((out, value))
    out, value, last = policy(obs, starts, first)
    torch.testing.assert_close(out, torch.cat([x for x, _ in steps]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(value, torch.cat([x for _, x in steps]), rtol=1e-5, atol=1e-5)
    for a, b in zip(last, state, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_memory_is_zeroed_exactly_before_the_steps_that_start_an_episode():
    policy = lively("conv_lstm")
    obs = observations(T, N, 2)
    starts = torch.zeros(T, N, dtype=torch.bool)
    starts[3, 1] = True
    before = random_state(policy, N)
    out, _, _ = policy(obs, starts, before)
    fresh, _, _ = policy(obs[3:], torch.zeros(T - 3, N, dtype=torch.bool), policy.initial_state(N))
    carried, _, _ = policy(obs, torch.zeros_like(starts), before)
    others = torch.arange(N) != 1
    torch.testing.assert_close(out[3:, 1], fresh[:, 1])
    torch.testing.assert_close(out[:3], carried[:3])
    torch.testing.assert_close(out[:, others], carried[:, others])
    assert (out[3, 1] - carried[3, 1]).abs().max() > 1e-3
    assert (out[4, others] - fresh[1, others]).abs().max() > 1e-3


def test_no_gradient_crosses_the_start_of_an_episode():
    policy = lively("conv_lstm")
    obs = observations(T, N, 2)
    starts = torch.zeros(T, N, dtype=torch.bool)
    starts[2, 1] = True
    state = tuple(x.requires_grad_() for x in random_state(policy, N))
    policy(obs, starts, state)[0][2:].sum().backward()
    assert all((x.grad[1] == 0).all() for x in state)
    assert all((x.grad[0] != 0).any() for x in state)


def test_conv_lstm_equals_its_layers_applied_one_by_one():
    """Compare the composed and unrolled implementation with torch's own layers."""
    policy = lively("conv_lstm", vision=5)
    obs = observations(T, N, 5)
    starts = torch.rand(T, N) < 0.3
    state = random_state(policy, N)
    out, value, (h_last, c_last) = policy(obs, starts, state)
    h, c = state
    for t in range(T):
        cells = F.one_hot(obs[t, :, :121].long(), 7).float().view(N, 11, 11, 7).permute(0, 3, 1, 2)
        x = policy.encoder.conv2(F.relu(policy.encoder.conv1(cells))).view(N, 32)
        x = policy.linear(torch.cat([x, obs[t, :, 121:] / 255], 1))
        keep = 1 - starts[t].float()[:, None]
        h, c = policy.lstm(x, (h * keep, c * keep))
        torch.testing.assert_close(out[t], policy.actor(h), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(value[t], policy.critic(h)[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(h_last, h, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(c_last, c, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("vision", [1, 2, 3, 4, 5, 6, 7])
def test_every_cell_and_every_feature_reaches_the_output(name, vision):
    policy = lively(name, vision)
    window = (2 * vision + 1) ** 2
    obs = torch.zeros(1, window + 7 + 1, window + 7, dtype=torch.uint8)
    for k in range(window + 7):
        obs[0, k, k] = 3 if k < window else 255  # agent k differs from the last agent in one cell or feature
    _, value, _ = policy(obs, torch.zeros(obs.shape[:2], dtype=torch.bool), policy.initial_state(window + 8))
    assert ((value[0, :-1] - value[0, -1]).abs() > 1e-7).float().mean() > (0.9 if name == "conv_lstm" else 0.6)


@pytest.mark.parametrize("vision", [1, 2, 3, 4, 5, 6, 7])
def test_the_patches_cover_all_cells_evenly(vision):
    """With positive weights every cell has an effect, and mirrored cells have the same effect."""
    policy = make_policy("conv", vision, DISCRETE)
    side = 2 * vision + 1
    with torch.no_grad():
        for layer in (policy.encoder.conv1, policy.encoder.conv2):
            layer.weight.fill_(0.1)
    cells = torch.zeros(side * side, side * side, 7)
    cells[torch.arange(side * side), torch.arange(side * side), 3] = 1
    reach = policy.encoder(cells)[:, 0].view(side, side)
    assert (reach > 0).all()
    torch.testing.assert_close(reach, reach.flip(0, 1))


def test_the_default_policy_has_about_150k_parameters():
    assert 140_000 < sum(p.numel() for p in make_policy("conv_lstm", 5, DISCRETE).parameters()) < 160_000


@pytest.mark.parametrize("name", POLICIES)
def test_every_parameter_gets_a_gradient(name):
    policy = lively(name, space=SPACES["continuous"])
    out, value, _ = policy(observations(T, N, 2), torch.zeros(T, N, dtype=torch.bool), random_state(policy, N))
    action, _ = policy.head.sample(out.detach(), torch.Generator())
    (policy.head.log_prob_and_entropy(out, action)[0].sum() + value.sum()).backward()
    assert all((p.grad != 0).any() for p in policy.parameters())


@pytest.mark.parametrize("name", POLICIES)
def test_a_fresh_policy_acts_almost_uniformly(name):
    policy = make_policy(name, 5, MultiDiscrete([3, 3]))
    out, _, _ = policy(observations(1, 64, 5), torch.ones(1, 64, dtype=torch.bool), policy.initial_state(64))
    assert out.abs().max() < 0.1
    assert out.abs().max() > 1e-4


def test_an_unknown_cell_code_raises():
    obs = observations(1, 3, 2)
    obs[0, 1, 4] = 7
    with pytest.raises(IndexError):
        make_policy("mlp", 2, DISCRETE)(obs, torch.ones(1, 3, dtype=torch.bool), ())


def test_an_unknown_policy_is_refused_with_a_list_of_policies():
    with pytest.raises(ValueError, match=r"no policy 'lstm'. Did you mean conv_lstm\? There are: conv, conv_lstm, mlp"):
        make_policy("lstm", 5, DISCRETE)


def test_an_old_option_is_refused_with_its_new_name():
    with pytest.raises(UserError, match="The policy option first_move is now called init_action_rms"):
        make_policy("conv", 5, DISCRETE, first_move=0.5)


def test_an_unknown_option_is_refused_with_a_list_of_options():
    with pytest.raises(ValueError, match=r"no option 'hiden'.*hidden, head, bins, log_std_min"):
        make_policy("conv", 5, DISCRETE, hiden=3)


@pytest.mark.parametrize("name", [None, ["mlp"], 3, {}])
def test_a_name_of_the_wrong_type_is_refused(name):
    with pytest.raises(ValueError, match=r"There is no policy .*There are: conv, conv_lstm, mlp"):
        make_policy(name, 5, DISCRETE)


@pytest.mark.parametrize("vision", [None, 0, -1, 1.5, "a", True, 65, 10**30])
def test_an_invalid_vision_is_refused(vision):
    with pytest.raises(ValueError, match=r"vision=.* is invalid: give that of the environment, 1 to 64 cells"):
        make_policy("mlp", vision, DISCRETE)


@pytest.mark.parametrize("init_action_rms", ["maybe", [0.5], True, -1, 1.5, float("nan"), float("inf")])
def test_an_invalid_size_of_initial_actions_is_refused(init_action_rms):
    with pytest.raises(ValueError, match=r"policy.init_action_rms=.* is invalid: it must be a number from 0 to 1"):
        make_policy("mlp", 2, DISCRETE, init_action_rms=init_action_rms)


@pytest.mark.parametrize("hidden", [0, -1, 1.5, "a"])
def test_an_invalid_number_of_units_is_refused(hidden):
    with pytest.raises(ValueError, match="is not a number of units"):
        make_policy("mlp", 5, DISCRETE, hidden=hidden)


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_seed_gives_the_same_weights_with_any_number_of_threads(name):
    def weights(seed, threads=1):
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        result = torch.nn.utils.parameters_to_vector(make_policy(name, 2, DISCRETE).parameters())
        assert torch.get_num_threads() == threads
        return result

    before = torch.get_num_threads()
    try:
        assert torch.equal(weights(3), weights(3, threads=2))
    finally:
        torch.set_num_threads(before)
    assert not torch.equal(weights(3), weights(4))

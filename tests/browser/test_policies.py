"""Policies in the module choose the actions of the networks in Python, except where float rounding decides."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, MultiDiscrete

from particle_grid.api import load_policy
from particle_grid.browser.describe import world
from particle_grid.browser.networks import fast_network, policy_description, rounded
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn.policy import MLP, make_policy
from particle_grid.runs.load import shipped_tasks
from particle_grid.support.errors import UserError
from tests.browser.native import SEED, code
from tests.cases import PARAMS, needs_jit

wasmtime = pytest.importorskip("wasmtime")
from tests.browser.host import Host  # noqa: E402 - needs wasmtime

pytestmark = needs_jit("the network in Python is compiled")
AGENTS = 150  # not a multiple of the agents that kernels compute together
TOLERANCE = 1e-4  # of outputs: kernels may sum in another order
MOST_OTHERS = 1e-3  # share of actions that rounding may decide
FORMS = [("discrete", "auto"), ("continuous", "bins"), ("continuous", "hurdle")]
SPACES = {"discrete": MultiDiscrete([3, 3]), "continuous": Box(-1.0, 1.0, (2,), np.float32)}


class Own(MLP):
    """A policy of one's own."""


class Network:
    """A policy in Python, with the weights of the module, and its greedy actions."""

    def __init__(self, policy, agents):
        _, self.network = fast_network(policy)
        self.head = policy.head
        self.state = policy.initial_state(agents)
        self.weights = rounded(self.network)

    @torch.no_grad()
    def __call__(self, observations, starts):
        obs, first = torch.from_numpy(observations.copy())[None], torch.from_numpy(starts.copy())[None]
        with self.network.frozen():
            self.network.weights = self.weights
            out, value, self.state = self.network(obs, first, self.state)
        return out[0].numpy(), value[0].numpy(), self.head.to_action(self.head.mode(out[0])).numpy()


def with_policy(env, policy):
    """Return a host with the records of a world and of a policy."""
    host = Host(code(), world(env))
    described = policy_description(policy)
    for fields in described["records"].values():
        for field in fields:
            if "shape" in field:
                field["shape"] = [env.num_agents if n == "agents" else n for n in field["shape"]]
    host.add(described)
    return host, described["network"], described["functions"]


def differences(task, action, policy, steps):
    """Return how many greedy actions differ, of how many.

    Both continue each step with the actions and the memory in Python: in a memory, differences by rounding can grow.
    """
    env = ParticleGrid(task, action, worlds=1, agents=AGENTS, height=64, width=64, lifespan=30, **PARAMS.get(task, {}))
    host, name, functions = with_policy(env, policy)
    network = Network(policy, AGENTS)
    env.reset(SEED)
    host.reset(SEED)
    others, starts = 0, np.ones(AGENTS, np.bool_)
    for _ in range(steps):
        out, value, actions = network(env.observations, starts)
        host.call(f"act_{name}", "session", "weights", "workspace", "memory")
        host.call(functions["greedy"], "session", "memory", "choices")
        host.call(functions["take"], "choices", "actions")
        np.testing.assert_allclose(host["memory.out"][0, :, :-1], out, atol=TOLERANCE, rtol=TOLERANCE)
        np.testing.assert_allclose(host["memory.out"][0, :, -1], value, atol=TOLERANCE, rtol=TOLERANCE)
        others += int((np.abs(host["actions.actions"] - actions) > TOLERANCE).any(1).sum())
        host["actions.actions"] = actions
        for name_of_memory, memory in zip("hc", network.state, strict=False):  # none without memory
            host[f"memory.{name_of_memory}"] = memory.numpy()
        env.step(actions)
        host.step()
        starts = env.truncations.copy()
        assert host["session.observations"].tobytes() == env.observations.tobytes()
    return others, steps * AGENTS


@pytest.mark.parametrize("action", ACTIONS)
def test_greedy_actions_are_those_of_the_network_in_python(action):
    others, every = differences("group", action, load_policy("group", action).policy, 40)
    assert others <= MOST_OTHERS * every, f"{others} of {every}"


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("task", shipped_tasks())
def test_shipped_policies_choose_the_same_actions(task, action):
    others, every = differences(task, action, load_policy(task, action).policy, 500)
    print(f"{task} {action}: {others} of {every} actions")
    assert others <= MOST_OTHERS * every, f"{others} of {every}"


@pytest.mark.parametrize(("action", "head"), FORMS)
@pytest.mark.parametrize(("name", "hidden"), [("conv", 128), ("conv", 40), ("conv_lstm", 40), ("mlp", 40)])
def test_every_network_head_and_size_is_computed(name, hidden, action, head):
    torch.manual_seed(0)
    policy = make_policy(name, 5, SPACES[action], hidden=hidden, head=head)
    torch.nn.init.normal_(policy.actor.weight)  # as they are first, actions are nearly equal
    others, every = differences("forage", action, policy, 20)
    assert others <= MOST_OTHERS * every, f"{others} of {every}"


@pytest.mark.parametrize(("action", "head"), FORMS)
def test_samples_have_the_probabilities_of_the_outputs(action, head):
    torch.manual_seed(0)
    policy = make_policy("conv_lstm", 5, SPACES[action], head=head)
    torch.nn.init.normal_(policy.actor.weight)
    env = ParticleGrid("group", action, worlds=1, agents=AGENTS, height=64, width=64)
    host, name, functions = with_policy(env, policy)
    host.reset(SEED)
    host.call(f"act_{name}", "session", "weights", "workspace", "memory")
    out = torch.from_numpy(host["memory.out"][0, :, :-1].copy())
    generator = torch.Generator().manual_seed(0)
    found, expected = [], []
    for _ in range(400):
        host.call(functions["sample"], "session", "memory", "choices")
        host.call(functions["take"], "choices", "actions")
        found.append(host["actions.actions"].copy())
        with torch.no_grad():
            expected.append(policy.head.to_action(policy.head.sample(out, generator)[0]).numpy())
    edges = np.linspace(-1.05, 1.05, 22) if action == "continuous" else np.arange(-0.5, 3)
    for axis in range(2):
        shares = [
            np.histogram(np.array(x)[..., axis], edges)[0] / np.array(x)[..., axis].size for x in (found, expected)
        ]
        np.testing.assert_allclose(*shares, atol=0.01)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [(f"{__name__}:Own", {}, "no network for Own"), ("conv", {"head": "gaussian"}, "no GaussianHead")],
)
def test_policies_that_the_module_cannot_compute_are_refused(name, options, reason):
    with pytest.raises(UserError, match=reason):
        policy_description(make_policy(name, 5, SPACES["continuous"], **options))


def test_windows_that_the_module_cannot_encode_are_refused():
    with pytest.raises(UserError, match="vision=5"):
        policy_description(make_policy("conv", 4, SPACES["discrete"]))


def test_weights_that_16_bits_cannot_hold_are_refused():
    policy = make_policy("conv", 5, SPACES["discrete"])
    policy.actor.weight.data[0, 0] = 1e6
    with pytest.raises(UserError, match="at most 65504"):
        policy_description(policy)


def test_a_description_leaves_the_number_of_threads_as_it_is():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        policy_description(make_policy("conv", 5, SPACES["discrete"]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)

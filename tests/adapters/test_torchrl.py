"""The adapter for TorchRL: the trajectories of ParticleGrid, TorchRL's own check, and its resets of single worlds."""

import copy

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs, step_mdp

from particle_grid.adapters.torchrl import ParticleGridEnv
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError
from tests.cases import CASES, PARAMS, SMALL, random_actions, small

every_case = pytest.mark.parametrize(("task", "action"), CASES)
BRIEF = {"lifespan": 6.0, "max_episode_steps": 12}  # many lives end, some before their first step


def torchrl_env(task, action, **changes):
    return ParticleGridEnv(task=task, action=action, **(SMALL | PARAMS.get(task, {}) | changes))


def natives(task, action, seed, **changes):
    """Return the environments whose worlds the adapter's should equal, after their reset."""
    both = [small(task, action, **(SMALL | {"worlds": 1} | changes)) for _ in range(SMALL["worlds"])]
    for k, native in enumerate(both):
        native.reset(seed + k)
    return both


def members(env):
    """Return the numbers of the agents of each group."""
    native = env.natives[0]
    return {name: np.flatnonzero(native.team(k)) for k, name in enumerate(env.group_map)}


def joined(env, tensordict, key):
    """Return the values of all agents in ParticleGrid's order, [worlds, agents, ...]."""
    result = None
    for name, numbers in members(env).items():
        values = tensordict[name, key].numpy()
        if result is None:
            result = np.zeros((len(env.natives), env.natives[0].num_agents, *values.shape[2:]), values.dtype)
        result[:, numbers] = values
    return result


def acting(env, actions):
    """Return a tensordict with actions [worlds, agents, 2] by group."""
    shares = {name: {"action": torch.from_numpy(actions[:, numbers])} for name, numbers in members(env).items()}
    return TensorDict(shares, batch_size=env.batch_size)


@every_case
def test_trajectories_equal_those_of_particle_grid_and_masks_tell_whose_action_counts(task, action):
    env, own = torchrl_env(task, action, **BRIEF), natives(task, action, 5, **BRIEF)
    env.set_seed(5)
    state = env.reset()
    generator = np.random.default_rng(0)
    flagged = 0
    for step in range(1, 12):
        mask = joined(env, state, "mask")
        actions = np.stack([random_actions(native, generator) for native in own])
        state = env.step(acting(env, actions))["next"]
        for native, action_of_world in zip(own, actions, strict=True):
            native.step(action_of_world)
        respawned = np.stack([native.truncations for native in own])
        due = np.stack([native.due() for native in own])
        assert (joined(env, state, "observation") == np.stack([native.observations for native in own])).all()
        assert (joined(env, state, "reward")[..., 0] == np.stack([native.rewards for native in own])).all()
        assert (mask == ~respawned).all()  # exactly the steps of these agents count
        over = step == 11  # the last observations, after 12 - 1 steps
        assert (state["done"] == over).all()
        assert (joined(env, state, "truncated")[..., 0] == (due & ~respawned | over)).all()
        assert (joined(env, state, "done") == joined(env, state, "truncated")).all()
        assert not joined(env, state, "terminated").any()
        flagged += joined(env, state, "done").sum()
    assert flagged > 0.5 * 120


@every_case
def test_the_check_of_torchrl_passes(task, action):
    check_env_specs(torchrl_env(task, action, **BRIEF), seed=0)


def test_groups_are_teams_and_lie_side_by_side():
    env = torchrl_env("predator_prey", "discrete")
    assert {name: len(agents) for name, agents in env.group_map.items()} == {"predator": 30, "prey": 30}
    assert env.action_keys == [("predator", "action"), ("prey", "action")]
    assert list(torchrl_env("group", "discrete").group_map) == ["agents"]


def test_worlds_that_are_done_restart_and_the_others_are_unaffected_by_resets():
    settings = {"lifespan": 0.0, "max_episode_steps": 20}
    env, own = torchrl_env("group", "discrete", **settings), natives("group", "discrete", 3, **settings)
    env.set_seed(3)
    state = env.reset()
    generator = np.random.default_rng(0)
    for step in range(1, 30):
        actions = np.stack([random_actions(native, generator) for native in own])
        state.update(acting(env, actions))
        data, state = env.step_and_maybe_reset(state)
        for native, action in zip(own, actions, strict=True):
            native.step(action)
        assert (joined(env, data["next"], "observation") == np.stack([native.observations for native in own])).all()
        if step == 7:  # before its time, the first world alone
            state = env.reset(state.update({"_reset": torch.tensor([[True], [False]])}))
            own[0].reset()
        if data["next", "done"].any():
            assert data["next", "done"].flatten().tolist() == [step == 7 + 19, step == 19]
            own[int(step == 19)].reset()
        assert (joined(env, state, "observation") == np.stack([native.observations for native in own])).all()
        assert state["agents", "mask"].all()  # with a lifespan of 0, every action counts
    assert env.rollout(200).shape == (2, 19)  # ends with the episode
    assert env.rollout(50, break_when_any_done=False).shape == (2, 50)


def test_a_seed_determines_a_rollout_and_resets_without_one_continue():
    env = torchrl_env("forage", "continuous")
    rollouts = []
    for seed in (1, 1, None):
        torch.manual_seed(0)  # of the random actions
        env.set_seed(seed)
        rollouts.append(env.rollout(10))
    same = rollouts[0] == rollouts[1]
    assert same.all()
    first, _, continued = (data["agents", "observation"] for data in rollouts)
    assert not torch.equal(first, continued)


def test_tensors_are_new_in_each_step_and_copies_of_the_environment_are_independent():
    env = torchrl_env("group", "continuous")
    first = env.rand_step(env.reset())
    kept = first.clone()
    twin = copy.deepcopy(env)
    step = step_mdp(first)
    action = env.rand_action(step)
    following = env.step(action.clone())
    assert (first == kept).all()
    assert (twin.step(action)["next"] == following["next"]).all()
    leaves = [leaf.data_ptr() for data in (first, following["next"]) for leaf in data.values(True, True)]
    assert len(set(leaves)) == len(leaves)


def test_worlds_and_their_settings_are_given_one_by_one_or_as_a_world():
    world = World(worlds=3, agents=20, height=40, width=48)
    env = ParticleGridEnv(task="group", world=world)
    assert env.batch_size == (3,)
    assert env.natives[0].world.agents == 20
    for worlds in (0, 1.5, "2"):
        with pytest.raises((ValueError, TypeError), match=r"worlds=.* is (too small|not a whole number)"):
            torchrl_env("group", "discrete", worlds=worlds)
    with pytest.raises(ValueError, match="worlds=2 and world= exclude each other"):
        ParticleGridEnv(task="group", worlds=2, world=world)
    for setting in ({"lifespan": 9.0}, {"max_episode_steps": 7}, {"agents": 5}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))}=.* and world= exclude each other"):
            ParticleGridEnv(task="group", world=world, **setting)
    with pytest.raises(ValueError, match="max_episode_steps=1 leaves no step"):
        torchrl_env("group", "discrete", max_episode_steps=1)
    with pytest.raises(ValueError, match="is not a seed"):
        torchrl_env("group", "discrete").set_seed(-1)
    env = torchrl_env("group", "discrete")
    env.reset()
    with pytest.raises(TypeError, match="this action form needs integers"):
        env.step(acting(env, np.zeros((2, 60, 2), np.float32)))


@pytest.mark.parametrize("device", ["foo", "meta", "cpu:first", [1]])
def test_a_device_that_cannot_hold_tensors_is_refused(device):
    with pytest.raises(UserError, match=r"device=.* cannot hold tensors .*: give cpu or cuda, or leave it out"):
        torchrl_env("group", "discrete", device=device)


def test_rendering_shows_the_first_world():
    env = torchrl_env("group", "discrete", render_mode="rgb_array")
    start = env.rand_action(env.reset())
    assert env.render().dtype == np.uint8
    env.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        env.step(start)


def test_a_step_without_actions_is_refused():
    env = torchrl_env("center", "discrete")
    with pytest.raises(
        UserError, match=r"The tensordict has no actions \('agents', 'action'\): write them before step"
    ):
        env.step(env.reset())

"""The adapter for PettingZoo: the trajectories of ParticleGrid, PettingZoo's tests, and agents that leave for good."""

import warnings

import numpy as np
import pytest

from particle_grid.adapters.pettingzoo import ParticleGridParallelEnv, parallel_env
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError
from particle_grid.view.window import Window
from tests.cases import CASES, PARAMS, SMALL, random_actions, small

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # PettingZoo's tests warn about PettingZoo's examples
    from pettingzoo.test import parallel_api_test, parallel_seed_test
    from pettingzoo.test.state_test import test_parallel_env as parallel_state_test
    from pettingzoo.test.state_test import test_state_space as state_space_test

every_case = pytest.mark.parametrize(("task", "action"), CASES)
ONE = SMALL | {"worlds": 1}
FOR_EVER = {"lifespan": 0.0, "max_episode_steps": 20}


def parallel(task, action, **changes):
    return ParticleGridParallelEnv(task=task, action=action, **(ONE | FOR_EVER | PARAMS.get(task, {}) | changes))


def names(mask):
    return [f"agent_{k}" for k in np.flatnonzero(mask)]


@every_case
def test_trajectories_equal_those_of_particle_grid_and_end_with_the_last_observations(task, action):
    env, native = parallel(task, action), small(task, action, **(ONE | FOR_EVER))
    generator = np.random.default_rng(0)
    for seed in (5, None):  # without a seed both continue
        observations, _ = env.reset(seed)
        own = native.reset(seed)[0]
        for step in range(1, 20):
            assert list(observations) == env.agents == env.possible_agents
            assert (np.stack([*observations.values()]) == own).all()
            actions = random_actions(native, generator)
            observations, rewards, terminations, truncations, infos = env.step(
                dict(zip(env.agents, actions, strict=True))
            )
            own, own_rewards, *_ = native.step(actions)
            assert (np.array([*rewards.values()], np.float32) == own_rewards).all()
            assert not native.truncations.any()  # all of them acted
            assert not any(terminations.values())
            assert [*truncations.values()] == [step == 19] * 60
            assert observations.keys() == rewards.keys() == terminations.keys() == infos.keys()
        assert (np.stack([*observations.values()]) == own).all()  # and not the first observations of another episode
        assert env.agents == []
    native.step(actions)
    assert native.truncations.all()  # the next episode would start here


@every_case
def test_a_truncated_agent_gets_its_last_observation_and_never_returns(task, action):
    mortal = {"lifespan": 6.0, "max_episode_steps": 0}
    env, native = parallel(task, action, **mortal), small(task, action, **(ONE | mortal))
    observations, _ = env.reset(seed=2)
    native.reset(2)
    gone = native.due()  # their first life has no step
    assert gone.any()
    assert env.agents == names(~gone)
    assert list(observations) == env.agents
    generator, stay = np.random.default_rng(2), 1 if action == "discrete" else 0
    while env.agents:
        actions = random_actions(native, generator)
        actions[gone] = stay
        living = ~gone
        observations, rewards, _, truncations, _ = env.step({name: actions[int(name[6:])] for name in env.agents})
        own, own_rewards, *_ = native.step(actions)
        assert not native.truncations[living].any()  # every agent in `agents` acted
        assert list(observations) == names(living)
        assert (np.stack([*observations.values()]) == own[living]).all()
        assert (np.array([*rewards.values()], np.float32) == own_rewards[living]).all()
        gone = gone | native.due()
        assert [name for name, flag in truncations.items() if flag] == names(living & gone)
        assert env.agents == names(~gone)
    with pytest.raises(RuntimeError, match=r"No agents are left in this episode: call reset\(\)"):
        env.step({})


@every_case
def test_the_tests_of_pettingzoo_pass(task, action, capsys):  # they assert, and warn about doubtful cases
    parallel_api_test(parallel(task, action), num_cycles=50)
    parallel_api_test(parallel(task, action, lifespan=30.0, max_episode_steps=0), num_cycles=20)
    parallel_seed_test(lambda: parallel(task, action), num_cycles=5)
    state_space_test(parallel(task, action))
    parallel_state_test(parallel(task, action))


def test_the_state_holds_the_observations_of_all_agents_also_of_those_that_left():
    env = parallel("group", "discrete", lifespan=6.0)
    env.reset(seed=0)
    before = env.state()
    kept = before.copy()
    while len(env.agents) > 30:
        observations, *_ = env.step({name: np.ones(2, np.int32) for name in env.agents})
        rows = env.state().reshape(60, -1)
        assert all((rows[env.possible_agents.index(name)] == row).all() for name, row in observations.items())
        assert env.state() in env.state_space
    assert (before == kept).all()
    assert (before != env.state()).any()


def test_there_is_no_state_before_the_first_reset():
    with pytest.raises(RuntimeError, match=r"The worlds have not been started: call reset\(\) before state\(\)"):
        parallel("group", "discrete").state()


@pytest.mark.parametrize("setting", [{"max_episode_steps": 7}, {"lifespan": 9.0}, {"agents": 5}])
def test_a_world_and_its_settings_exclude_each_other(setting):
    [key] = setting
    with pytest.raises(ValueError, match=f"{key}=.* and world= exclude each other: set {key} in the World"):
        parallel_env(world=World(**(ONE | FOR_EVER)), **setting)
    assert getattr(parallel_env(world=World(**(ONE | setting))).native.world, key) == setting[key]


def test_parallel_env_makes_the_environment():
    env = parallel_env(task="group", action="discrete", **ONE)
    assert isinstance(env, ParticleGridParallelEnv)
    assert env.max_num_agents == 60


def test_later_steps_do_not_overwrite_observations():
    env = parallel("group", "continuous")
    first, _ = env.reset(seed=0)
    kept = {name: row.copy() for name, row in first.items()}
    env.step({name: np.ones(2, np.float32) for name in env.agents})
    assert all((first[name] == kept[name]).all() for name in kept)


def test_reports_reach_every_agent():
    env = parallel("forage", "discrete", max_episode_steps=0)
    env.reset(seed=0)
    for _ in range(32):
        *_, infos = env.step({name: np.ones(2, np.int32) for name in env.agents})
    assert len(infos) == 60
    assert infos["agent_0"] == infos["agent_59"]
    assert infos["agent_0"].keys() >= {"score", "moved"}


def test_invalid_actions_and_settings_are_refused_in_a_sentence():
    env = parallel("group", "discrete")
    with pytest.raises(RuntimeError, match="call reset"):
        env.step({})
    env.reset(seed=0)
    right = {name: np.ones(2, np.int32) for name in env.agents}
    with pytest.raises(ValueError, match="agent_60 is not in `agents`: give one action for each name in `agents`"):
        env.step(right | {"agent_60": right["agent_0"]})
    with pytest.raises(ValueError, match="agent_7 has no action"):
        env.step({name: action for name, action in right.items() if name != "agent_7"})
    with pytest.raises(ValueError, match="x is not in `agents`"):
        env.step({"x": 1})
    with pytest.raises(ValueError, match="0 is not in `agents`"):
        env.step(right | {0: right["agent_0"]})
    for wrong in (np.ones(3, np.int32), None, "x", [[1], [1, 2]]):
        with pytest.raises(ValueError, match=r"actions do not form an array .*: give two numbers for each agent"):
            env.step(right | {"agent_7": wrong})
    with pytest.raises(TypeError, match="this action form needs integers"):
        env.step({name: np.ones(2, np.float32) for name in env.agents})
    with pytest.raises(ValueError, match="worlds=2 is not possible: a ParallelEnv is one world"):
        parallel("group", "discrete", worlds=2)
    with pytest.raises(ValueError, match="max_episode_steps=1 leaves no step"):
        parallel("group", "discrete", max_episode_steps=1)


def test_rendering_shows_the_world():
    env = parallel("group", "discrete", render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().dtype == np.uint8
    env.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        env.step({name: np.ones(2, np.int32) for name in env.agents})


@every_case
def test_the_human_mode_shows_the_world_in_each_reset_and_each_step(task, action, monkeypatch):
    pictures = []
    monkeypatch.setattr(Window, "show", lambda _, picture: pictures.append(picture))
    env = parallel(task, action, render_mode="human")
    env.reset(seed=0)
    assert (pictures.pop() == env.native.camera.look(env.native.state)).all()
    env.step({agent: env.action_space(agent).sample() for agent in env.agents})
    assert (pictures.pop() == env.native.camera.look(env.native.state)).all()
    assert not pictures


@pytest.mark.parametrize("agent", ["agent_60", "", 0, None, ["agent_0"]])
def test_an_agent_that_does_not_exist_has_no_space(agent):
    env = parallel("group", "discrete")
    for space in (env.action_space, env.observation_space):
        with pytest.raises(UserError, match=r"There is no agent .*: `possible_agents` are agent_0 to agent_59"):
            space(agent)


@pytest.mark.parametrize("actions", [None, [1, 2], np.ones((3, 2))])
def test_actions_that_are_not_a_dict_are_refused_in_a_sentence(actions):
    env = ParticleGridParallelEnv(task="group", action="discrete", agents=3, height=16, width=16)
    env.reset(0)
    with pytest.raises(TypeError, match="give a dict with an action for each of `agents`"):
        env.step(actions)

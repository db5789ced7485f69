"""The adapter for Stable-Baselines3: the trajectories of ParticleGrid, and what its learners need to bootstrap."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor

from particle_grid.adapters.sb3 import ParticleGridVecEnv
from tests.cases import CASES, PARAMS, SMALL, random_actions, small

every_case = pytest.mark.parametrize(("task", "action"), CASES)
BRIEF = {"lifespan": 6.0, "max_episode_steps": 25}


def vec_env(task, action, **changes):
    return ParticleGridVecEnv(task=task, action=action, **(SMALL | PARAMS.get(task, {}) | changes))


@every_case
def test_trajectories_equal_those_of_particle_grid_with_terminal_observations(task, action):
    env, native = vec_env(task, action, **BRIEF), small(task, action, **BRIEF)
    env.seed(4)
    observations, own = env.reset(), native.reset(4)[0]
    assert (observations == own).all()
    generator = np.random.default_rng(4)
    for _ in range(40):
        actions = random_actions(native, generator)
        last = own.copy()
        observations, rewards, dones, infos = env.step(actions)
        own, own_rewards, _, truncations, _ = native.step(actions)
        for given, expected in ((observations, own), (rewards, own_rewards), (dones, truncations)):
            assert (given == expected).all()
            assert given.dtype == expected.dtype
        assert len(infos) == env.num_envs == 120
        for agent, info in enumerate(infos):
            assert ("terminal_observation" in info) == info.get("TimeLimit.truncated", False) == truncations[agent]
            if truncations[agent]:
                assert (info["terminal_observation"] == last[agent]).all()


def test_returned_arrays_survive_later_steps_and_may_be_modified():
    env, twin = vec_env("group", "continuous"), vec_env("group", "continuous")
    first, generator = env.reset(), np.random.default_rng(0)
    assert (twin.reset() == first).all()
    for _ in range(3):
        actions = random_actions(env.native, generator)
        observations, rewards, _, _ = env.step(actions)
        assert (observations == twin.step(actions)[0]).all()
        rewards[:], kept = 99, observations.copy()
        env.step(actions)
        twin.step(actions)
        assert (observations == kept).all()


class NoCallback:
    """A callback for Stable-Baselines3 that does nothing."""

    def update_locals(self, names): ...
    def on_rollout_start(self): ...
    def on_rollout_end(self): ...
    def on_step(self):
        return True


def test_ppo_bootstraps_truncated_agents_from_their_last_observation():
    env = vec_env("forage", "discrete", lifespan=6.0)
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=960, n_epochs=1, gamma=0.9, device="cpu", seed=0)
    seen = []
    original = env.step_wait

    def step_wait():
        step = original()
        seen.append((step[1].copy(), step[2], [info.get("terminal_observation") for info in step[3]]))
        return step

    env.step_wait = step_wait
    model._setup_learn(1)
    model.collect_rollouts(env, NoCallback(), model.rollout_buffer, 16)
    checked = 0
    for t, (rewards, dones, last) in enumerate(seen):
        for agent in np.flatnonzero(dones):
            with torch.no_grad():
                value = model.policy.predict_values(torch.as_tensor(last[agent][None])).item()
            assert model.rollout_buffer.rewards[t, agent] == pytest.approx(rewards[agent] + 0.9 * value, abs=1e-5)
            checked += 1
        others = ~dones
        assert (model.rollout_buffer.rewards[t, others] == rewards[others]).all()
    assert checked > 200


def test_wrappers_and_attributes_of_stable_baselines3_work():
    env = VecMonitor(vec_env("center", "continuous", render_mode="rgb_array"))
    env.seed(0)
    first = env.reset()
    assert (env.reset() != first).any()  # a seed applies to one reset
    episodes = 0
    for _ in range(32):
        *_, infos = env.step(np.zeros((120, 2), np.float32))
        episodes += sum("episode" in info for info in infos)
    assert episodes > 100
    assert "score" in infos[0]
    assert env.get_attr("task_name", [0, 5]) == ["center", "center"]
    assert len(env.env_method("score")) == 120
    env.set_attr("checked", True)
    with pytest.raises(ValueError, match="is not within"):
        env.step(np.full((120, 2), 5, np.float32))
    assert not any(env.env_is_wrapped(VecMonitor))
    assert env.render().ndim == 3
    env.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        env.step(np.zeros((120, 2), np.float32))


@pytest.mark.parametrize("seed", ["x", -1, 1.5, True])
def test_invalid_seeds_are_refused_at_once_and_change_nothing(seed):
    env = vec_env("center", "discrete")
    with pytest.raises(ValueError, match="is not a seed: use a whole number of at least 0"):
        env.seed(seed)
    env.reset()

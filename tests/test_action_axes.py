"""Axes of the action: how long an action lasts, and how small a component may be before it counts."""

import numpy as np
import pytest

from particle_grid.browser import describe
from particle_grid.env import ParticleGrid
from particle_grid.sim import tasks
from particle_grid.support.errors import UserError
from tests.cases import CASES, random_actions, small

REPEAT = 3
every_case = pytest.mark.parametrize(("task", "action"), CASES)


@every_case
def test_a_repeated_action_equals_the_same_steps_one_by_one(task, action):
    long, short = (small(task, action, action_repeat=k, max_episode_steps=40, action_cost=0.1) for k in (REPEAT, 1))
    for env in (long, short):
        env.reset(3)
    generator = np.random.default_rng(0)
    for _ in range(25):
        actions = random_actions(long, generator)
        due = long.due()
        observations, rewards, _, truncations, _ = long.step(actions)
        truncated = np.zeros(short.num_agents, bool)
        total = np.zeros(short.num_agents, np.float32)
        stay = 1 if action == "discrete" else 0
        for _ in range(REPEAT):
            short.step(np.where(truncated[:, None], stay, actions).astype(actions.dtype))
            truncated |= short.truncations
            total += short.rewards
        np.testing.assert_array_equal(observations, short.observations)
        np.testing.assert_array_equal(truncations, truncated)
        np.testing.assert_array_equal(due, truncated)
        np.testing.assert_allclose(rewards, np.where(truncated, 0, total / REPEAT), rtol=1e-6, atol=1e-7)
        assert truncated.any()


@pytest.mark.parametrize("task", tasks.names())
def test_components_within_the_dead_zone_count_as_zero(task):
    coarse, plain = (small(task, "continuous", dead_zone=zone, action_cost=0.1) for zone in (0.4, 0.0))
    for env in (coarse, plain):
        env.reset(3)
    generator = np.random.default_rng(0)
    for _ in range(10):
        actions = random_actions(plain, generator)
        actions[0] = 0.4, np.nan
        with np.errstate(invalid="ignore"):
            coarse.step(actions)
        plain.step(np.where(np.abs(actions) < np.float32(0.4), np.float32(0), actions))
        for name in ("observations", "rewards", "truncations"):
            np.testing.assert_array_equal(getattr(coarse, name), getattr(plain, name))


@pytest.mark.parametrize("task", tasks.names())
def test_a_dead_zone_leaves_discrete_actions_alone(task):
    coarse, plain = (small(task, "discrete", dead_zone=zone) for zone in (0.9, 0.0))
    for env in (coarse, plain):
        env.reset(3)
    generator = np.random.default_rng(0)
    for _ in range(5):
        actions = random_actions(plain, generator)
        np.testing.assert_array_equal(coarse.step(actions)[0], plain.step(actions)[0])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"action_repeat": 0}, "action_repeat=0 is too small: it must be at least 1"),
        ({"action_repeat": 1.5}, "action_repeat=1.5 is not a whole number"),
        ({"action_repeat": 65}, "action_repeat=65 is too large: give at most 64 steps"),
        ({"dead_zone": 1.0}, "dead_zone=1.0 is out of range: it is the size of a component, from 0 to below 1"),
        ({"dead_zone": -0.1}, "dead_zone=-0.1 is out of range"),
        ({"dead_zone": "a"}, "dead_zone='a' is not a number"),
    ],
)
def test_an_impossible_axis_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ParticleGrid("group", **setting)


@pytest.mark.parametrize("setting", [{"action_repeat": 2}, {"dead_zone": 0.5}])
def test_worlds_that_convert_actions_are_not_played_in_a_browser(setting):
    with pytest.raises(UserError, match=r"The module has no action_repeat=. and no dead_zone=.*: use 1 and 0"):
        describe.world(small("group", "continuous", **setting))

"""Matches and evaluations: impossible ones are refused before anything is played."""

import numpy as np
import pytest
import torch

from particle_grid.env import ACTIONS
from particle_grid.evaluation.match import evaluate, match, steps_for
from particle_grid.evaluation.players import policy_player, random_player, scripted_player
from particle_grid.learn.policy import make_policy
from tests.cases import CASES, small


@pytest.mark.parametrize(
    ("task", "players", "seed", "steps", "reason"),
    [
        ("center", [random_player], 0, 0, "steps=0 is impossible"),
        ("center", [random_player], 0, -1, "steps=-1 is impossible"),
        ("center", [random_player], 0, None, "steps=None is impossible"),
        ("center", [random_player], None, 4, "seed=None and steps=4 is impossible"),
        ("center", [random_player], -1, 4, "seed=-1 is "),
        ("center", [], 0, 4, r"0 players cannot play 1 team\(s\)"),
        ("center", [random_player] * 2, 0, 4, r"2 players cannot play 1 team\(s\)"),
        ("predator_prey", [random_player] * 3, 0, 4, r"3 players cannot play 2 team\(s\)"),
    ],
)
def test_an_impossible_match_is_refused(task, players, seed, steps, reason):
    with pytest.raises(ValueError, match=reason):
        match(small(task, "discrete"), players, seed, steps)


def test_an_evaluation_without_seeds_is_refused():
    with pytest.raises(ValueError, match="An evaluation needs at least one seed"):
        evaluate(small("center", "discrete"), random_player, ())


def test_a_script_accepts_every_seed_that_worlds_accept():
    env = small("center", "discrete")
    played = [match(env, [scripted_player], seed, 4) for seed in (2**64 + 7, 2**64 + 7, 2**70)]
    assert played[0] == played[1]


@pytest.mark.parametrize(
    ("lifespan", "max_episode_steps", "steps"),
    [(1, 0, 256), (300, 100, 512), (1e9, 0, 4096), (0, 100, 256), (0, 600, 768), (0, 9999, 4096), (0, 0, 4096)],
)
def test_an_evaluation_is_longer_if_agents_live_longer(lifespan, max_episode_steps, steps):
    assert steps_for(small("center", "discrete", lifespan=lifespan, max_episode_steps=max_episode_steps)) == steps


@pytest.mark.parametrize("task", sorted({task for task, _ in CASES}))
def test_a_discrete_policy_plays_the_same_with_continuous_actions(task):
    envs = [small(task, action) for action in ACTIONS]
    torch.manual_seed(0)
    policy = make_policy("conv_lstm", envs[0].vision, envs[0].single_action_space, hidden=16)
    seen = [[], []]
    for env, looks in zip(envs, seen, strict=True):
        match(env, [policy_player(policy)], 3, 20, lambda env=env, looks=looks: looks.append(env.observations.copy()))
    assert np.array_equal(*seen)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_player_of_one_team_acts_as_if_it_played_both(action):
    env = small("predator_prey", action)
    torch.manual_seed(0)
    policy = make_policy("conv_lstm", env.vision, env.single_action_space, hidden=16)
    for team in (0, 1):
        factories = policy_player(policy, greedy=True), policy_player(policy, greedy=True, team=team)
        whole, part = (factory(env, 0) for factory in factories)
        env.reset(0)
        starts = np.ones(env.num_agents, bool)
        for _ in range(15):
            expected, got = whole(env.observations, starts).copy(), part(env.observations, starts)
            assert np.array_equal(got[env.team(team)], expected[env.team(team)])
            starts = env.step(expected)[3]

"""A player acts for the agents it was made for, also in a forked process."""

import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.player import Player
from particle_grid.learn.policy import POLICIES, make_policy
from particle_grid.learn.trainer import Trainer
from tests.learn.toy import DISCRETE, Toy

SETTINGS = TrainerConfig(rollout_length=4, minibatch=64, threads=1, device="cpu")


N = 8
ROW = 128  # at a vision of 5, which has fast kernels


every_policy = pytest.mark.parametrize("name", POLICIES)


def policy(name="conv_lstm", vision=5):
    return make_policy(name, vision, DISCRETE, hidden=16)


@every_policy
@pytest.mark.parametrize(("seen", "made"), [(2, 5), (5, 2), (5, 8), (8, 5)])
def test_a_policy_of_another_vision_is_refused_by_trainer_and_player(name, seen, made):
    env = Toy(N, vision=seen)
    with pytest.raises(
        ValueError, match=r"observations are uint8 \[8, \d+\], but the policy.*the environment's vision"
    ):
        Trainer(env, policy(name, made), SETTINGS)
    with pytest.raises(
        ValueError, match=r"observations are uint8 \[8, \d+\], but the policy.*the environment's vision"
    ):
        Player(policy(name, made), N, 0)(env.observations, env.truncations)


@every_policy
def test_arrays_of_the_wrong_shape_or_dtype_are_refused(name):
    player = Player(policy(name), N, 0)
    obs = np.zeros((N, ROW), np.uint8)
    starts = np.ones(N, bool)
    wrong = [np.tile(obs, (50, 1)), obs[:3], obs[:, :3], obs[0], obs[None], obs.astype(np.float32), obs.view(np.int8)]
    for array in (*wrong, obs.tolist(), torch.from_numpy(obs), None):
        with pytest.raises(
            ValueError, match=r"observations are .*, but the policy and its number of agents need uint8"
        ):
            player(array, starts)
    for array in (starts[:3], starts[None], starts.astype(np.uint8), [True] * N):
        with pytest.raises(ValueError, match=r"starts are .*, but the policy and its number of agents need bool"):
            player(obs, array)


def policy_of_one_seed():
    torch.manual_seed(1)
    return policy()


def test_the_memory_layout_of_observations_does_not_matter():
    obs = np.random.default_rng(0).integers(0, 7, (N, ROW), dtype=np.uint8)
    frozen = obs.copy()
    frozen.flags.writeable = False
    wide = np.repeat(obs, 2, 0)
    actions = [
        Player(policy_of_one_seed(), N, 0)(array, np.ones(N, bool))
        for array in (obs, frozen, np.asfortranarray(obs), wide[::2], obs[::-1].copy()[::-1])
    ]
    assert all((each == actions[0]).all() for each in actions)


@every_policy
def test_a_frozen_policy_plays_as_before(name):
    obs = np.random.default_rng(0).integers(0, 7, (N, ROW), np.uint8)
    starts = np.ones(N, bool)
    torch.manual_seed(0)
    learnt = policy(name)
    expected = Player(learnt, N, 0)(obs, starts)
    assert np.array_equal(Player(learnt.requires_grad_(False), N, 0)(obs, starts), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # forking with threads is what is tested
def test_a_forked_process_continues_as_its_parent_does():
    envs = [Toy(N, vision=5) for _ in range(2)]
    trainer = Trainer(envs, policy(), replace(SETTINGS, total_steps=4 * N * 4))
    player = Player(policy(), N, 0)

    def continued():
        actions = player(np.zeros((N, ROW), np.uint8), np.ones(N, bool))
        trainer.run()
        return actions.tolist(), trainer.policy.linear.bias.tolist()

    trainer.rollout(), player(np.zeros((N, ROW), np.uint8), np.ones(N, bool))  # starts threads
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(False)
    process = fork.Process(target=lambda: sender.send(continued()))
    process.start()
    try:
        assert receiver.poll(60)
        assert receiver.recv() == continued()
    finally:
        process.kill()
        process.join()

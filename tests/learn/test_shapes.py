"""Arrays of another environment than a policy was made for are refused: compiled code would read beyond their ends."""

import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from particle_grid.learn.fast import accelerate
from particle_grid.learn.player import Player
from particle_grid.learn.policy import POLICIES, make_policy
from particle_grid.learn.trainer import Trainer, TrainerConfig
from tests.learn.toy import DISCRETE, Toy

SETTINGS = TrainerConfig(rollout_length=4, minibatch=64, threads=1, device="cpu")
N, ROW = 8, 128  # of a vision of 5, which has fast kernels
every_policy = pytest.mark.parametrize("name", POLICIES)


def policy(name="conv_lstm", vision=5):
    return make_policy(name, vision, DISCRETE, hidden=16)


@every_policy
@pytest.mark.parametrize(("seen", "made"), [(2, 5), (5, 2), (5, 8), (8, 5)])
def test_a_policy_of_another_vision_is_refused_in_training_and_at_play(name, seen, made):
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
def test_what_are_no_observations_of_its_agents_is_refused_by_a_player(name):
    player, obs, starts = Player(policy(name), N, 0), np.zeros((N, ROW), np.uint8), np.ones(N, bool)
    wrong = [np.tile(obs, (50, 1)), obs[:3], obs[:, :3], obs[0], obs[None], obs.astype(np.float32), obs.view(np.int8)]
    for array in (*wrong, obs.tolist(), torch.from_numpy(obs), None):
        with pytest.raises(
            ValueError, match=r"observations are .*, but the policy and its number of agents need uint8"
        ):
            player(array, starts)
    for array in (starts[:3], starts[None], starts.astype(np.uint8), [True] * N):
        with pytest.raises(ValueError, match=r"starts are .*, but the policy and its number of agents need bool"):
            player(obs, array)


def test_a_player_acts_alike_whatever_the_memory_of_observations_looks_like():
    obs = np.random.default_rng(0).integers(0, 7, (N, ROW), dtype=np.uint8)
    frozen = obs.copy()
    frozen.flags.writeable = False
    wide = np.repeat(obs, 2, 0)
    actions = [
        Player(policy_of_one_seed(), N, 0)(array, np.ones(N, bool))
        for array in (obs, frozen, np.asfortranarray(obs), wide[::2], obs[::-1].copy()[::-1])
    ]
    assert all((each == actions[0]).all() for each in actions)


def policy_of_one_seed():
    torch.manual_seed(1)
    return policy()


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("observations", lambda x: x[:, :50], r"observations are uint8 \[8, 50\]"),
        ("observations", lambda x: x.astype(np.float32), "observations are float32"),
        ("observations", lambda x: np.asfortranarray(x), "observations are read-only or not contiguous"),
        ("rewards", lambda x: x[:1], r"rewards are float32 \[1\]"),
        ("terminals", lambda x: x.astype(np.uint8), "terminals are uint8"),
        ("truncations", lambda x: None, "truncations are NoneType"),
        ("num_agents", lambda n: n + 1, r"need uint8 \[9, 128\]"),
    ],
)
def test_an_environment_whose_buffers_are_of_another_form_is_not_trained_in(name, change, reason):
    env = Toy(N, vision=5)
    setattr(env, name, change(getattr(env, name)))
    with pytest.raises(ValueError, match=reason):
        Trainer(env, policy(), SETTINGS)


@pytest.mark.parametrize("path", [".", "", "missing/c.pt"])
def test_a_place_for_checkpoints_that_cannot_be_written_is_refused_before_training(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be written: (it is a folder|there is no folder)"):
        Trainer(Toy(N, vision=5), policy(), SETTINGS, path=path)


def test_no_environment_and_the_same_one_twice_are_refused():
    env = Toy(N, vision=5)
    for envs in ([], [env, env], [env, Toy(N, vision=5), env]):
        with pytest.raises(ValueError, match="give one environment or several, each of them once"):
            Trainer(envs, policy(), SETTINGS)


def test_the_fast_network_reads_nothing_beyond_its_inputs():
    network, _ = accelerate(policy(), "fp32", torch.device("cpu"), 1)
    obs, starts, (h, c) = torch.zeros(2, N, ROW, dtype=torch.uint8), torch.ones(2, N, dtype=torch.bool), zeros(N)
    network(obs, starts, (h, c))
    for inputs in (
        (obs[..., :50], starts, (h, c)),
        (obs.float(), starts, (h, c)),
        (obs, starts[:1], (h, c)),
        (obs, starts[:, :3], (h, c)),
        (obs, starts.to(torch.uint8), (h, c)),
        (obs, starts, zeros(N - 1)),
        (obs, starts, (h, c[:, :3])),
        (obs, starts, (h.double(), c)),
    ):
        with pytest.raises(ValueError, match=r"takes \(obs, starts, h, c\) as"):
            network(*inputs)


def zeros(n):
    return torch.zeros(n, 16), torch.zeros(n, 16)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads: what is tested
def test_a_forked_process_goes_on_as_its_parent_does():
    envs = [Toy(N, vision=5) for _ in range(2)]
    trainer, player = Trainer(envs, policy(), replace(SETTINGS, total_steps=4 * N * 4)), Player(policy(), N, 0)

    def go_on():
        actions = player(np.zeros((N, ROW), np.uint8), np.ones(N, bool))
        trainer.run()
        return actions.tolist(), trainer.policy.linear.bias.tolist()

    trainer.rollout(), player(np.zeros((N, ROW), np.uint8), np.ones(N, bool))  # threads have been started
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(False)
    process = fork.Process(target=lambda: sender.send(go_on()))
    process.start()
    try:
        assert receiver.poll(60)
        assert receiver.recv() == go_on()
    finally:
        process.kill()
        process.join()


@every_policy
def test_a_policy_that_is_to_learn_nothing_more_plays_as_before(name):
    obs, starts = np.random.default_rng(0).integers(0, 7, (N, ROW), np.uint8), np.ones(N, bool)
    torch.manual_seed(0)
    learnt = policy(name)
    expected = Player(learnt, N, 0)(obs, starts)
    assert np.array_equal(Player(learnt.requires_grad_(False), N, 0)(obs, starts), expected)

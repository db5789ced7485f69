"""Copies and pickles of an environment are independent of it and continue bit for bit."""

import copy
import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest

from particle_grid import ParticleGrid
from particle_grid.adapters.gymnasium import ParticleGridVectorEnv
from particle_grid.env import ACTIONS
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.player import Player
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from particle_grid.sim.world import World
from tests.cases import CASES, PARAMS, SMALL, random_actions, small

WAYS = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def everything(native):
    """Return all bytes that a step may change."""
    arrays = native.state_dict() | {"masks": native.masks, "actions": native.actions}
    return {name: array.tobytes() for name, array in arrays.items()}


def stepped(env, steps=3):
    env.reset(5)
    generator = np.random.default_rng(1)
    for _ in range(steps):
        env.step(random_actions(env, generator))
    return env


def check_they_continue_alike(one, other, act, steps=5):
    """Assert that two environments return the same for the same actions."""
    generator = np.random.default_rng(2)
    for _ in range(steps):
        actions = act(generator)
        np.testing.assert_equal(one.step(actions), other.step(actions))


@every_way
@pytest.mark.parametrize(("task", "action"), CASES)
def test_a_copied_environment_leaves_the_original_alone_and_continues_bit_for_bit(way, task, action):
    env = stepped(small(task, action, dynamics="inertial"))
    other = way(env)
    before = everything(env)
    stepped(other)
    other.reset(9)
    assert everything(env) == before
    other = way(env)
    assert everything(other) == before
    check_they_continue_alike(env, other, lambda generator: random_actions(env, generator))
    assert everything(env) == everything(other)


@every_way
def test_copies_of_copies_and_of_unstarted_environments_work(way):
    env = small("group", "discrete", seed=3)
    other = way(way(env))
    assert (env.reset()[0] == other.reset()[0]).all()
    with pytest.raises(RuntimeError, match=r"call reset\(\) before step\(\)"):
        way(small("group", "discrete")).step(env.actions)


@every_way
def test_a_copy_of_an_environment_on_given_buffers_allocates_its_own(way):
    n, size = 120, World().observation_size
    shared = np.zeros((2, n, size), np.uint8)
    flags = {name: np.zeros(n, bool) for name in ("terminals", "truncations", "masks")}
    buf = {"observations": shared[1], "rewards": np.zeros(n, np.float32), "actions": np.zeros((n, 2), np.int32)} | flags
    env = stepped(ParticleGrid("group", "discrete", buf=buf, **SMALL))
    other, before = way(env), shared.copy()
    assert not any(np.shares_memory(getattr(other, name), array) for name, array in buf.items())
    stepped(other, 4)
    assert (shared == before).all()
    assert (other.observations != env.observations).any()


def gymnasium(settings):
    return ParticleGridVectorEnv(**settings)


def pettingzoo(settings):
    pytest.importorskip("pettingzoo")
    from particle_grid.adapters.pettingzoo import ParticleGridParallelEnv

    return ParticleGridParallelEnv(**(settings | {"worlds": 1}))


def stable_baselines(settings):
    pytest.importorskip("stable_baselines3")
    from particle_grid.adapters.sb3 import ParticleGridVecEnv

    return ParticleGridVecEnv(**settings)


@every_way
@pytest.mark.parametrize("adapter", [gymnasium, pettingzoo, stable_baselines])
def test_a_copied_adapter_leaves_the_original_alone_and_continues_bit_for_bit(way, adapter):
    env = adapter({"task": "forage", "action": "continuous"} | SMALL)
    env.reset()

    def act(generator):
        actions = random_actions(env.native, generator)
        return {name: actions[int(name[6:])] for name in env.agents} if adapter is pettingzoo else actions

    env.step(act(np.random.default_rng(0)))
    other, before = way(env), everything(env.native)
    other.step(act(np.random.default_rng(0)))
    assert everything(env.native) == before
    check_they_continue_alike(env, way(env), act)


def test_copies_made_during_a_search_play_each_branch_from_the_same_state():
    env = stepped(small("forage", "discrete"))
    actions = np.ones((env.num_agents, 2), np.int32)
    branches = [copy.deepcopy(env) for _ in range(3)]
    seen = [branch.step(actions)[0].tobytes() for branch in branches]
    assert len(set(seen)) == 1
    assert env.step(actions)[0].tobytes() == seen[0]


def test_rendering_a_copy_shows_the_copy():
    env = stepped(small("group", "discrete", render_mode="rgb_array"))
    other = copy.deepcopy(env)
    picture = env.render()
    assert (other.render() == picture).all()
    stepped(other, 9)
    assert (other.render() != picture).any()
    assert (env.render() == picture).all()


@every_way
def test_trainers_and_players_refuse_to_be_copied_and_name_the_alternative(way):
    env = small("center", "discrete")
    policy = make_policy("conv_lstm", env.vision, env.single_action_space, hidden=8)
    trainer = Trainer(env, policy, TrainerConfig(rollout_length=8, minibatch=64, threads=1, device="cpu"))
    with pytest.raises(TypeError, match=r"A Trainer cannot be copied or pickled: .*use state_dict and load_state_dict"):
        way(trainer)
    with pytest.raises(TypeError, match="A Player cannot be copied or pickled: make another Player of the policy"):
        way(Player(policy, env.num_agents, 0))


def _digest(env, pipe):
    stepped(env, 4)
    pipe.send(everything(env))


@pytest.mark.slow
def test_an_environment_sent_to_a_new_process_plays_as_it_does_here():
    env = stepped(small("group", "continuous"))
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_digest, args=(env, there))
    process.start()
    received = here.recv() if here.poll(120) else None
    process.join(10)
    assert received == everything(stepped(env, 4))


@pytest.mark.parametrize("action", ACTIONS)
def test_a_pickle_holds_the_state_and_no_machine_code(action):
    env = stepped(small("group", action))
    arrays = sum(len(array) for array in everything(env).values())
    assert len(pickle.dumps(env)) < 1.2 * arrays + 100_000


@pytest.mark.slow
def test_a_process_that_has_compiled_nothing_can_play_a_pickled_environment(tmp_path):
    env = stepped(small("puffer", "discrete", **PARAMS["puffer"]))
    (tmp_path / "env.pickle").write_bytes(pickle.dumps(env))
    code = "import pickle, sys; e = pickle.load(open(sys.argv[1], 'rb')); print(e.step(e.actions)[0].sum())"
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "env.pickle")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.stdout.split() == [str(env.step(env.actions)[0].sum())], process.stderr

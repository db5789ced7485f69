"""A rollout records exactly what the environments returned, with one split and with several."""

from dataclasses import replace

import numba
import numpy as np
import pytest
import torch

from particle_grid.learn.policy import POLICIES
from particle_grid.learn.trainer import Trainer
from particle_grid.support.errors import UserError
from tests.learn.toy import Toy
from tests.learn.training import SMALL, make, stir


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("name", POLICIES)
def test_the_bootstrap_of_a_rollout_is_the_first_value_of_the_next(name, splits):
    run = make(name, splits=splits)
    stir(run)
    for _ in range(3):
        run.rollout()
        bootstrap = run.buffer.values[-1].clone()
        assert bootstrap.abs().min() > 0
        run.rollout()
        torch.testing.assert_close(bootstrap, run.buffer.values[0])


@pytest.mark.parametrize("sizes", [[6], [4, 2]])
def test_the_buffer_holds_what_the_environments_returned(sizes):
    envs = [Toy(n, ends=0.3, reward=lambda obs, actions: obs[:, 0] + actions[:, 1].astype(np.float32)) for n in sizes]
    run = Trainer(envs, make().policy, SMALL)
    steps = []

    def watch(env):
        real = env.step
        seen = []
        steps.append(seen)

        def step(actions):
            before = env.observations.copy()
            after = real(actions)
            seen.append((before, actions.copy(), *(x.copy() for x in after[1:4])))
            return after

        env.step = step

    for env in envs:
        watch(env)
    run.rollout()
    over = torch.from_numpy(np.concatenate([env.terminals | env.truncations for env in envs]))
    state = run.collector.state
    for seen in steps:
        seen.clear()
    run.rollout()
    r = run.buffer
    for t in range(SMALL.rollout_length):
        obs, actions, rewards, terminals, truncations = map(
            np.concatenate, zip(*(seen[t] for seen in steps), strict=True)
        )
        pairs = [(r.obs, obs), (r.actions, actions), (r.rewards, rewards), (r.terminals, terminals)]
        for ours, theirs in (*pairs, (r.truncations, truncations)):
            np.testing.assert_array_equal(ours[t].numpy(), theirs)
        np.testing.assert_array_equal(r.starts[t + 1].numpy(), terminals | truncations)
    assert torch.equal(r.starts[0], over)
    assert all(a is b for a, b in zip(r.state, state, strict=True))
    assert r.truncations.any()


def test_splits_are_simulated_with_the_number_of_threads_of_their_trainer(monkeypatch):
    before = numba.get_num_threads()
    seen = set()
    step = Toy.step
    monkeypatch.setattr(Toy, "step", lambda *args: seen.add(numba.get_num_threads()) or step(*args))
    try:
        numba.set_num_threads(1)
        make(splits=2).run()
    finally:
        numba.set_num_threads(before)
    assert seen == {1}


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("observations", lambda x: x[:, :9], r"observations are uint8 \[8, 9\]"),
        ("observations", lambda x: x.astype(np.float32), "observations are float32"),
        ("observations", lambda x: np.asfortranarray(x), "observations are read-only or not contiguous"),
        ("rewards", lambda x: x[:1], r"rewards are float32 \[1\]"),
        ("terminals", lambda x: x.astype(np.uint8), "terminals are uint8"),
        ("truncations", lambda x: None, "truncations are NoneType"),
        ("num_agents", lambda n: n + 1, r"need uint8 \[9, 16\]"),
    ],
)
def test_an_environment_with_invalid_buffers_is_refused(name, change, reason):
    env = Toy()
    setattr(env, name, change(getattr(env, name)))
    with pytest.raises(ValueError, match=reason):
        make(env=env)


def test_a_missing_or_repeated_environment_is_refused():
    env = Toy()
    for envs in ([], [env, env], [env, Toy(), env]):
        with pytest.raises(ValueError, match="give one environment or several, each of them once"):
            Trainer(envs, make().policy, SMALL)


def test_a_rollout_that_does_not_fit_into_memory_is_refused_in_a_sentence():
    for length in (10**13, 10**18):
        with pytest.raises(UserError, match=f"trainer.rollout_length={length} with 8 agents needs .* bytes"):
            make(config=replace(SMALL, rollout_length=length, minibatch=length))

"""Worker processes that die cause a clear error within seconds, without hanging or leaving processes behind."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pufferlib.vector
import pytest

from particle_grid import ParticleGrid
from particle_grid.adapters.pufferlib import Multiprocessing
from tests.cases import SMALL

SETTINGS = {"task": "group", "action": "discrete"} | SMALL
PARENT = f"""
import pufferlib.vector
from particle_grid import ParticleGrid
from particle_grid.adapters.pufferlib import Multiprocessing

if __name__ == "__main__":
    envs = pufferlib.vector.make(
        ParticleGrid, env_kwargs={SETTINGS}, backend=Multiprocessing, num_envs=2, num_workers=2, overwork=True
    )
    envs.reset(0)
    print(*(process.pid for process in envs.processes), flush=True)
    while True:
        envs.step(envs.action_space.sample())
"""


def make(backend=Multiprocessing, **keywords):
    keywords = {"num_envs": 2, "num_workers": 2, "overwork": True} | keywords
    return pufferlib.vector.make(ParticleGrid, env_kwargs=SETTINGS, backend=backend, seed=3, **keywords)


def keep_stepping(envs):
    """Step until an error is raised."""
    while True:
        *_, agents, _ = envs.recv()
        envs.send(np.ones((len(agents), 2), np.int32))


def gone(pid, seconds=10):
    """Return whether a process ends within this many seconds."""
    for _ in range(10 * seconds):
        try:
            with open(f"/proc/{pid}/stat") as file:
                # A zombie: it has ended, but its exit code has not been read.
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_each_environment_has_a_seed_of_its_own_with_any_number_of_workers(workers):
    envs = make(num_envs=4, num_workers=workers)
    try:
        for seed in (11, 12):
            observations, _ = envs.reset(seed)
            single = ParticleGrid(**SETTINGS)
            expected = [single.reset(seed + k)[0].copy() for k in range(4)]
            assert (observations == np.concatenate(expected)).all()
    finally:
        envs.close()


def test_misuse_is_reported_in_a_sentence():
    with pytest.raises(Exception, match="num_envs must be divisible by num_workers"):
        make(num_envs=4, num_workers=3)
    envs = make()
    try:
        envs.reset(0)
        with pytest.raises(ValueError, match=r"actions have the shape \(3, 2\), but these environments need"):
            envs.step(np.zeros((3, 2), np.int32))
        with pytest.raises(TypeError, match="actions are float64, but these environments need int32"):
            envs.step(np.full(envs.action_space.shape, 0.5))
        envs.step(np.zeros(envs.action_space.shape, np.int32))
    finally:
        envs.close()


def test_actions_of_other_integer_types_mean_the_same_as_in_a_single_environment():
    envs, singles = make(), [ParticleGrid(**SETTINGS) for _ in range(2)]
    try:
        envs.reset(5)
        for k, single in enumerate(singles):
            single.reset(5 + k)
        envs.step(np.ones(envs.action_space.shape, np.int32))
        for single in singles:
            single.step(np.ones_like(single.actions))
        for number in (np.int64(2**32), np.int64(1 - 2**32), np.uint64(2**64 - 1), np.uint8(2), np.int16(-1)):
            observations, *_ = envs.step(np.full(envs.action_space.shape, number))
            expected = [single.step(np.full(single.actions.shape, number))[0] for single in singles]
            assert np.array_equal(observations, np.concatenate(expected))
        with pytest.raises(TypeError, match="actions are bool, but these environments need int32"):
            envs.step(np.ones(envs.action_space.shape, bool))
    finally:
        envs.close()


def test_an_invalid_seed_changes_nothing_and_no_seed_continues_the_generators():
    envs, single = make(num_envs=1, num_workers=1), ParticleGrid(**SETTINGS)
    try:
        assert np.array_equal(envs.reset(5)[0], single.reset(5)[0])
        for seed in (-5, 1.5, "a", True):
            with pytest.raises(ValueError, match="is not a seed"):
                envs.reset(seed)
        assert np.array_equal(envs.reset(None)[0], single.reset(None)[0])
    finally:
        envs.close()
    for call in (lambda: envs.reset(0), lambda: envs.step(single.actions), envs.recv):
        with pytest.raises(RuntimeError, match="These environments are closed"):
            call()


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_environments_in_other_processes_refuse_to_be_copied(way):
    envs = make(num_envs=2, num_workers=2)
    with pytest.raises(TypeError, match="Environments in other processes cannot be copied or pickled"):
        way(envs)
    envs.close()


def test_without_failures_it_equals_the_multiprocessing_of_pufferlib():
    both = [make(backend) for backend in (Multiprocessing, pufferlib.vector.Multiprocessing)]
    try:
        assert np.array_equal(*(envs.reset(5)[0] for envs in both))
        generator = np.random.default_rng(0)
        for _ in range(40):
            actions = generator.integers(0, 3, (both[0].num_agents, 2), dtype=np.int32)
            for got, expected in zip(*(envs.step(actions) for envs in both), strict=True):
                assert np.array_equal(got, expected)
    finally:
        for envs in both:
            envs.close()


@pytest.mark.parametrize("keywords", [{}, {"num_envs": 4, "num_workers": 4, "batch_size": 2}])
def test_a_dead_worker_raises_at_once_and_the_others_end(keywords):
    envs = make(**keywords)
    envs.async_reset(3)
    *_, agents, _ = envs.recv()
    envs.send(np.ones((len(agents), 2), np.int32))
    os.kill(envs.processes[1].pid, signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=r"Worker 1 of \d has died \(exit code -9\)"):
        keep_stepping(envs)
    assert time.monotonic() - begin < 10
    for process in envs.processes:
        process.join(10)
    assert not any(process.is_alive() for process in envs.processes)
    actions = np.ones(envs.action_space.shape, np.int32)
    for call in (envs.recv, lambda: envs.send(actions), lambda: envs.reset(0)):
        with pytest.raises(RuntimeError, match="has died"):
            call()


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs Linux's /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT, "utf-8")
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    process.kill()
    process.communicate()
    assert all(map(gone, workers))

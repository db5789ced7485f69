"""The environment under PufferLib's vectorisation, with each of its backends."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pufferlib.vector
import pytest

from particle_grid.env import ACTIONS, ParticleGrid
from tests.cases import SMALL, random_actions, small

BACKENDS = {
    "PufferEnv": pufferlib.PufferEnv,
    "Serial": pufferlib.vector.Serial,
    "Multiprocessing": pufferlib.vector.Multiprocessing,
}


def make(backend, action, num_envs):
    keywords = {"num_workers": 2} if backend == "Multiprocessing" else {}
    settings = {"task": "group", "action": action} | SMALL
    return pufferlib.vector.make(
        ParticleGrid, env_kwargs=settings, backend=BACKENDS[backend], num_envs=num_envs, seed=3, **keywords
    )


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_vectorised_environments_equal_single_ones_step_by_step(backend, action):
    num_envs = 1 if backend == "PufferEnv" else 2
    vector = make(backend, action, num_envs)
    try:
        observations, _ = vector.reset(seed=11)
        singles = [small("group", action) for _ in range(num_envs)]
        firsts = [env.reset(11 + k)[0] for k, env in enumerate(singles)]
        assert (observations == np.concatenate(firsts)).all()
        generator, per_env = np.random.default_rng(0), singles[0].num_agents
        for _ in range(20):
            parts = [random_actions(env, generator) for env in singles]
            stepped = vector.step(np.concatenate(parts))
            expected = [env.step(part) for env, part in zip(singles, parts, strict=True)]
            for got, *each in zip(stepped[:4], *[step[:4] for step in expected], strict=True):
                assert (got == np.concatenate(each)).all()
        assert len(stepped[0]) == num_envs * per_env
    finally:
        vector.close()


def test_asynchronous_send_and_receive_covers_all_agents():
    vector = pufferlib.vector.make(
        ParticleGrid,
        env_kwargs={"task": "forage", "action": "discrete"} | SMALL,
        backend=pufferlib.vector.Multiprocessing,
        num_envs=4,
        num_workers=2,
        batch_size=2,
        seed=0,
    )
    try:
        vector.async_reset(seed=0)
        seen, reports = np.zeros(vector.num_agents, int), 0
        generator = np.random.default_rng(0)
        for _ in range(160):
            observations, rewards, terminals, truncations, infos, agents, masks = vector.recv()
            assert len(observations) == len(rewards) == len(terminals) == len(truncations) == len(agents)
            assert masks.all()
            seen[agents] += 1
            reports += len(infos)
            vector.send(generator.integers(0, 3, (len(observations), 2), dtype=np.int32))
        assert seen.min() > 20
        assert reports
    finally:
        vector.close()


COMPILED = """
import os
import subprocess
import sys
from pathlib import Path
import numba, numpy as np, pufferlib.vector
from particle_grid import ParticleGrid
from tests.cases import SMALL

if __name__ == "__main__":
    kwargs = {"task": "center", "action": "discrete"} | SMALL
    env = ParticleGrid(**kwargs)
    env.reset(0)
    env.step(env.actions)
    before = {path: path.stat().st_mtime_ns for path in Path(numba.config.CACHE_DIR).rglob("*.nbc")}
    assert before
    backend = pufferlib.vector.Multiprocessing
    vector = pufferlib.vector.make(ParticleGrid, env_kwargs=kwargs, backend=backend, num_envs=2, num_workers=2)
    try:
        vector.reset(seed=0)
        vector.step(np.ones((vector.num_agents, 2), np.int32))
    finally:
        vector.close()
    assert {path: path.stat().st_mtime_ns for path in Path(numba.config.CACHE_DIR).rglob("*.nbc")} == before
"""


@pytest.mark.release
def test_workers_reuse_compiled_kernels(tmp_path):
    (tmp_path / "script.py").write_text(COMPILED)
    # The shared cache may change at any time, because other tests compile too.
    own = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.run(
        [sys.executable, tmp_path / "script.py"], env=os.environ | own, capture_output=True, text=True, timeout=240
    )
    assert process.returncode == 0, process.stderr


def test_buffers_are_written_in_place_and_never_replaced():
    env = small("group", "continuous")
    names = ("observations", "rewards", "terminals", "truncations", "masks", "actions")
    buffers = {name: np.zeros_like(getattr(env, name)) for name in names}
    given = small("group", "continuous", buf=buffers)
    given.reset(0)
    for _ in range(3):
        stepped = given.step(random_actions(given, np.random.default_rng(0)))
    for name, value in zip(names, stepped[:4], strict=False):
        assert value is buffers[name] is getattr(given, name)
    assert buffers["observations"].any()
    assert buffers["rewards"].any()

"""The base class of environments where PufferLib cannot be imported."""

import inspect
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pufferlib
import pytest

from particle_grid import native
from particle_grid.env import ACTIONS, action_space
from particle_grid.sim.memory import buffer_shapes
from particle_grid.sim.world import World
from tests.cases import small

ROOT = Path(__file__).parents[1]
WITHOUT = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "pufferlib"]:
    del sys.modules[name]
sys.modules["pufferlib"] = None
"""
TRAIN = """
from particle_grid import train
sys.argv = ["train", "task=center", "experiment=smoke", "evaluations=1", "clips=0", "hydra.run.dir=run"]
train.main()
import gymnasium
import particle_grid
from particle_grid import ParticleGrid
from particle_grid.native import NativeEnv
assert issubclass(ParticleGrid, NativeEnv)
envs = gymnasium.make_vec("ParticleGrid/Center-v0", num_envs=16, height=32, width=32)
envs.reset(seed=0)
envs.step(envs.action_space.sample())
try:
    import particle_grid.adapters.pufferlib
except ValueError as error:
    assert str(error).startswith("The adapter for PufferLib cannot import it (")
    assert str(error).endswith("install pufferlib-core==3.0.7.")
else:
    raise AssertionError("what needs PufferLib was imported")
"""


def public(kind):
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def test_the_class_has_all_methods_and_properties_of_pufferlibs():
    assert public(native.NativeEnv) == public(pufferlib.PufferEnv)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_class_sets_the_attributes_that_pufferlibs_sets(action):
    world = World(agents=5, height=32, width=32)
    space = action_space(action)
    buf = {name: np.zeros(*each) for name, each in buffer_shapes(world, np.dtype(space.dtype)).items()}
    made = []
    for base in (native.NativeEnv, pufferlib.PufferEnv):
        env = base.__new__(base)
        env.single_observation_space, env.single_action_space = small("group", action).single_observation_space, space
        env.num_agents = 5
        env.__init__(buf)
        made.append(env)
    own, theirs = made
    assert vars(own).keys() == vars(theirs).keys()
    for name, value in vars(theirs).items():
        assert (vars(own)[name] == value) is True or (vars(own)[name] == value).all(), name
    for name in ("agent_per_batch", "emulated", "done"):
        assert getattr(own, name) == getattr(theirs, name)
    assert own.driver_env is own


@pytest.mark.slow
def test_without_pufferlib_everything_works_except_its_own_adapter(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT + TRAIN]
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize("broken", [{}, {"__version__": "4.0"}])
def test_a_pufferlib_without_the_class_is_replaced(monkeypatch, broken):
    monkeypatch.setitem(sys.modules, "pufferlib", type(sys)("pufferlib"))
    for name, value in broken.items():
        monkeypatch.setattr(sys.modules["pufferlib"], name, value, raising=False)
    assert native.base_class() is native.NativeEnv


def test_a_pufferlib_with_another_interface_is_replaced_with_a_warning(monkeypatch):
    class PufferEnv(pufferlib.PufferEnv):
        def __init__(self, buf):
            super().__init__(buf)
            self.teacher_actions = buf["teacher_actions"]

    monkeypatch.setattr(pufferlib, "PufferEnv", PufferEnv)
    with pytest.warns(UserWarning, match=r"another interface.* install pufferlib-core==3.0.7"):
        assert native.base_class() is native.NativeEnv


def test_two_distributions_that_overwrite_each_other_are_reported_once_imported(monkeypatch):
    assert native.base_class() is pufferlib.PufferEnv
    distribution = metadata.distribution
    monkeypatch.setattr(metadata, "distribution", lambda name: distribution("numpy"))
    with pytest.warns(UserWarning, match="pufferlib and pufferlib-core are both installed .* uninstall"):
        assert native.base_class() is pufferlib.PufferEnv


def test_the_class_waits_with_results_until_they_are_received():
    class Counter(native.NativeEnv):
        def reset(self, seed=None):
            self.observations[:] = 0
            return self.observations, []

        def step(self, actions):
            self.observations += actions
            return self.observations, self.rewards, self.terminals, self.truncations, [{"count": 1.0}]

    env = Counter.__new__(Counter)
    env.num_agents = 1
    env.single_observation_space = action_space("continuous")
    env.single_action_space = action_space("continuous")
    arrays = ("observations", "rewards", "terminals", "truncations", "masks", "actions")
    env.__init__({name: np.zeros((1, 2)) for name in arrays})
    env.async_reset(3)
    assert env.recv()[4] == []
    env.send(np.ones((1, 2)))
    observations, _, _, _, infos, ids, _ = env.recv()
    assert observations.tolist() == [[1, 1]]
    assert (infos, ids.tolist()) == ([{"count": 1.0}], [0])

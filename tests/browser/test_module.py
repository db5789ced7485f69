"""The module gives the bytes of the native environment: observations, rewards, truncations and scripted actions."""

import numpy as np
import pytest

from particle_grid.browser.describe import world
from tests.browser.native import EVERY, SEED, Play, code, make
from tests.cases import needs_jit, small

wasmtime = pytest.importorskip("wasmtime")
from tests.browser.host import Host  # noqa: E402 - needs wasmtime

pytestmark = needs_jit("takes minutes")
STEPS, MANY = 100, 2000
SOME = [case for case in EVERY if case[1:] == ("continuous", "inertial")] + [("forage", "discrete", "kinematic")]


def compare(task, action, dynamics, steps):
    play = Play(make(task, action, dynamics))
    env, host = play.env, Host(code(), world(play.env))
    host["session.script_generator"] = play.script
    host["session.generator"] = play.generator
    host.reset(SEED)
    assert host["session.observations"].tobytes() == env.observations.tobytes()
    for k in range(steps):
        host.script() if k % 2 == 0 else host.call(f"draw_{action}", "session", "actions")
        actions = play.step(k)
        assert host["actions.actions"].tobytes() == actions.tobytes(), f"step {k}: other actions"
        assert host.step() == 0
        for name in ("observations", "rewards", "truncations"):
            assert host[f"session.{name}"].tobytes() == getattr(env, name).tobytes(), f"step {k}: other {name}"
    return env, host


@pytest.mark.parametrize(("task", "action", "dynamics"), SOME)
def test_steps_have_the_bytes_of_the_native_environment(task, action, dynamics):
    env, host = compare(task, action, dynamics, STEPS)
    assert env.state.tick.min() < STEPS  # worlds have restarted
    host.call(f"score_{task}", "state", "session", "layout", "task")
    assert host["session.scores"].tolist() == np.float32(env.task.score(env.state, env.layout)).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("task", "action", "dynamics"), EVERY)
def test_thousands_of_steps_have_the_bytes_of_the_native_environment(task, action, dynamics):
    env, host = compare(task, action, dynamics, MANY)
    for name, array in env.state._asdict().items():
        if name != "finished":  # which infos clear
            assert host[f"state.{name}"].tobytes() == array.tobytes(), name


def test_one_module_serves_worlds_of_any_size():
    for settings in ({"vision": 2, "height": 9, "width": 70}, {"vision": 9, "worlds": 3, "agents": 7}):
        for action in ("discrete", "continuous"):
            env = small("forage", action, speed=2.5, **settings)
            host = Host(code(), world(env))
            env.reset(1)
            host.reset(1)
            for _ in range(20):
                host.call(f"draw_{action}", "session", "actions")
                env.step(host["actions.actions"].copy())
                host.step()
                assert host["session.observations"].tobytes() == env.observations.tobytes()


def test_the_module_names_no_files():
    assert b".py" not in code()
    assert b"particle_grid" not in code()

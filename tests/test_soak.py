"""bench/soak.py passes on a correct simulator, and detects each kind of failure."""

import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from particle_grid.learn.trainer import Result
from particle_grid.sim.world import AGENT_1, EMPTY, FOOD, WALL
from tests.cases import needs_jit

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def soak():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        yield importlib.import_module("soak")


def agent_to_another_cell(env):
    env.state.position[0, 0] += 1 if env.state.position[0, 0] < 100 else -1


def two_in_a_cell(env):
    env.state.position[:, 1] = env.state.position[:, 0]


def agent_outside(env):
    env.state.position[1, 3] = 0.5


def agent_nowhere(env):
    env.state.position[0, 3] = np.nan


def agent_too_many(env):
    env.state.grid[tuple(np.argwhere(env.state.grid == EMPTY)[0])] = AGENT_1


def wall_gone(env):
    env.state.grid[tuple(np.argwhere(env.state.grid == WALL)[0])] = EMPTY


def food_gone(env):
    env.state.grid[tuple(np.argwhere(env.state.grid == FOOD)[0])] = EMPTY


def window_of_another(env):
    env.observations[5, 17] ^= 1


def neighbour_uncounted(env):
    env.state.others_in_sight[7] += 1


def too_fast(env):
    env.state.displacement[0, 9] = 1.5


def reward_out_of_range(env):
    env.rewards[2] = np.nan


def paid_for_nothing(env):
    env.truncations[4], env.rewards[4] = True, 1


def life_without_end(env):
    env.state.expiry[6] = 0


def world_without_end(env):
    env.state.expiry[:], env.state.tick[0] = 1 << 40, env.world.max_episode_steps


FAULTS = {
    agent_to_another_cell: "agents are not where the grid has them",
    two_in_a_cell: "agents are not where|two agents are in one cell",
    agent_outside: "an agent is outside the field",
    agent_nowhere: "an agent is outside the field",
    agent_too_many: "the grid shows agents that do not exist",
    wall_gone: "a wall around or inside the field is missing",
    food_gone: "the amount of food is wrong",
    window_of_another: "an observation differs from the cells around its agent",
    neighbour_uncounted: "the agents in sight are miscounted",
    too_fast: "an agent has moved too far",
    reward_out_of_range: "a reward is not within",
    paid_for_nothing: "an agent that has just spawned has a reward",
    life_without_end: "an agent has outlived its expiry",
    world_without_end: "a world's clock is out of range",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_every_kind_of_failure_is_detected(soak, fault):
    env = soak.build("group" if fault is neighbour_uncounted else "forage", "continuous", "kinematic")
    env.reset(0)
    before, generator = soak.fixed(env), np.random.default_rng(0)
    for _ in range(3):
        env.step(soak.actions_of(env, generator))
    assert soak.wrong(env, before) == ""
    fault(env)
    assert re.search(FAULTS[fault], soak.wrong(env, before))


def test_a_termination_request_ends_training_too(soak, monkeypatch, tmp_path):
    interrupted = Result(steps=1, interrupted=True, scalars={}, signal=signal.SIGTERM)
    monkeypatch.setattr(soak.Trainer, "run", lambda trainer: interrupted)
    turn = soak.training(soak.build("center", "discrete", "kinematic"), tmp_path / "c.pt")
    with pytest.raises(KeyboardInterrupt) as interrupt:
        turn()
    assert interrupt.value.args == (signal.SIGTERM,)


LEAK = """
import sys
import numpy as np
import soak

soak.give_back()
kept, each = [], int(sys.argv[1]) << 20


def turn():
    kept.append(np.ones(each, np.uint8))
    np.ones(64 << 20, np.uint8)  # freed memory is not a leak
    return 1, 1.0, ""


soak.soak("A leak", {"leak": turn}, 0)
"""


@needs_jit("the copy of windows is machine code")
@pytest.mark.slow
@pytest.mark.parametrize("leaks", [False, True])
def test_growing_memory_is_detected(soak, leaks):
    megabytes = soak.MEGABYTES if leaks else 0  # per round
    command = [sys.executable, "-c", LEAK, str(megabytes)]
    parent = np.ones(512 << 20, np.uint8)  # memory of the parent must not hide the growth of its child
    process = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(BENCH)}, capture_output=True, text=True)
    assert parent.all()
    assert process.returncode == (1 if leaks else 0), process.stderr
    assert ("A leak: peak memory grew" in process.stderr) == leaks


@pytest.mark.release
def test_minutes_of_simulation_and_training_find_no_failure_and_no_leak():
    command = [sys.executable, "-W", "error", BENCH / "soak.py", "--minutes", "2"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("all of it right") == 2

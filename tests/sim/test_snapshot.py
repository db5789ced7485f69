"""A saved state that is accepted can run: everything the kernels rely on is checked first."""

import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from particle_grid.sim.world import EMPTY, FOOD, WALL
from tests.cases import CASES, field, play, small
from tests.sim import fuzz_snapshot

ROOT = Path(__file__).parents[2]


def run_fuzz(cases, seed):
    overflows = ["-W", "ignore::RuntimeWarning"] if numba.config.DISABLE_JIT else []  # as the generator means them to
    command = [sys.executable, "-W", "error", *overflows, "-m", "tests.sim.fuzz_snapshot", str(cases), str(seed)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr[-2000:]


def test_some_damaged_states_are_refused_or_run():
    run_fuzz(120, 0)


@pytest.mark.slow
def test_many_damaged_states_are_refused_or_run():
    run_fuzz(1200, 1)


def open_margin(env, saved):
    saved["grid"][saved["grid"] == WALL] = EMPTY


def one_gap(env, saved):
    saved["grid"][0, 2, 2] = EMPTY


def wall_elsewhere(env, saved):
    v = env.vision
    saved["grid"][0, v - 1, v], saved["grid"][tuple(empty_cell(saved))] = EMPTY, WALL


def wall_more(env, saved):
    saved["grid"][tuple(empty_cell(saved))] = WALL


def food_more(env, saved):
    saved["grid"][tuple(empty_cell(saved))] = FOOD


def debt(env, saved):
    saved["food_debt"][1] += 1


def outside(env, saved):
    fuzz_snapshot.step_outside(saved, np.random.default_rng(0))


def thrown(env, saved):
    saved["displacement"][0, 3] = 40


def not_a_number(env, saved):
    saved["episode_return"][5] = np.nan


def rich(env, saved):
    saved["rewards"][5] = 2


def sums(env, saved):
    saved["finished"][0, 1] = np.inf


def clock(env, saved):
    saved["tick"][0] = -1


def past_the_last_step(env, saved):
    saved["tick"][0] = env.world.max_episode_steps


def unborn(env, saved):
    saved["born"][8] = 1 << 40


def immortal(env, saved):
    saved["expiry"][8] = 1 << 61


def dead(env, saved):
    saved["expiry"][8] = 0


def flag(env, saved):
    saved["truncations"].view(np.uint8)[4] = 7


def ended(env, saved):
    saved["terminals"][4] = True


def glutton(env, saved):
    saved["eaten"][4] = 200


def covered(env, saved):
    saved["under"][4] = FOOD


def view(env, saved):
    saved["observations"][4, 60] = 255


def steps(env, saved):
    saved["steps"][0] = -5


def colour(env, saved):
    saved["colour"][4] = 200


def empty_cell(saved):
    """Return the index of an empty cell in the second world's field."""
    return np.argwhere((saved["grid"] == EMPTY) & (np.arange(len(saved["grid"])) == 1)[:, None, None])[0]


FAULTS = {
    open_margin: "a wall around or inside the field is missing",
    one_gap: "a wall around or inside the field is missing",
    wall_elsewhere: "a wall around or inside the field is missing",
    wall_more: "the number of walls is wrong",
    food_more: "the amount of food is wrong",
    debt: "the amount of food is wrong",
    outside: "an agent is outside the field",
    thrown: "an agent has moved too far",
    not_a_number: "an agent's return is out of range",
    rich: "a reward is not within",
    sums: "the sums over episodes are out of range",
    clock: "a world's clock is out of range",
    past_the_last_step: "a world's clock is out of range",
    unborn: "an agent has spawned in the future",
    immortal: "the length of an agent's life is out of range",
    dead: "an agent has outlived its expiry",
    flag: "a flag is neither 0 nor 1",
    ended: "an agent has terminated",
    glutton: "an agent has eaten more than it could",
    covered: "what is under an agent is wrong",
    view: "an observation differs from the cells around its agent",
    steps: "the number of steps is out of range",
    colour: "agents are not where the grid has them",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_unreachable_states_are_refused_with_the_reason(fault):
    env = small("forage", "discrete", max_episode_steps=500)
    for _ in play(env, 3):
        pass
    saved = env.state_dict()
    fault(env, saved)
    before = {name: array.tobytes() for name, array in env.state_dict().items()}
    with pytest.raises(ValueError, match=f"not fit this environment: {FAULTS[fault]}.*damaged: use") as caught:
        env.load_state_dict(saved)
    assert "\n" not in str(caught.value)
    assert {name: array.tobytes() for name, array in env.state_dict().items()} == before


@pytest.mark.parametrize("speed", [0.3, 1.0, 7.7])
@pytest.mark.parametrize(("task", "action"), CASES)
def test_every_state_of_a_run_is_accepted(task, action, speed):
    """The worlds are crowded and restart in between."""
    size = {} if task == "puffer" else {"height": 14, "width": 11, "walls": 0.1}
    other, env = (
        small(task, action, lifespan=5.0, max_episode_steps=19, agents=40, dynamics="inertial", speed=speed, **size)
        for _ in range(2)
    )
    for step, _ in enumerate(play(env, 40)):
        if step % 3 == 0:
            other.load_state_dict(env.state_dict())
    assert (field(other) == field(env)).all()


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({}, "has no 'grid'"),
        ({"grid": None}, "saved 'grid' is object"),
        ({"grid": [[1, 2]]}, r"saved 'grid' is int64\[1, 2\]"),
    ],
)
def test_incomplete_states_are_refused_in_a_sentence(saved, message):
    with pytest.raises(ValueError, match=message):
        small("group", "discrete").load_state_dict(saved)


def test_a_state_from_before_the_first_reset_is_refused():
    env, empty = small("group", "discrete"), small("group", "discrete")
    env.reset(0)
    saved = env.state_dict() | {name: array.copy() for name, array in empty.state._asdict().items()}
    with pytest.raises(ValueError, match="damaged"):
        env.load_state_dict(saved)
    with pytest.raises(RuntimeError, match=r"call reset\(\) before state_dict\(\)"):
        empty.state_dict()


def test_array_subclasses_and_other_byte_orders_are_not_mistaken_for_valid_arrays():
    env = small("group", "discrete")
    env.reset(0)
    saved = env.state_dict()
    masked = np.ma.masked_array(np.full_like(saved["grid"], 0), mask=True)
    with pytest.raises(ValueError, match="damaged"):
        env.load_state_dict(saved | {"grid": masked})
    swapped = saved["position"].astype(saved["position"].dtype.newbyteorder())
    with pytest.raises(ValueError, match="saved 'position' is >f4"):
        env.load_state_dict(saved | {"position": swapped})


@pytest.mark.parametrize(
    ("task", "changes", "problem"),
    [
        ("predator_prey", {}, "agents have other colours than the task gives them"),
        ("group", {"walls": 0.1}, "the number of walls is wrong"),
        ("group", {"speed": 4.0, "dynamics": "inertial", "acceleration": 4.0}, "an agent has moved too far"),
    ],
)
def test_a_state_of_another_task_or_world_is_refused_with_what_differs(task, changes, problem):
    env, other = small("group", "continuous"), small(task, "continuous", **changes)
    for _ in play(other, 3):
        pass
    with pytest.raises(ValueError, match=f"does not fit this environment: {problem}. Build the environment with the"):
        env.load_state_dict(other.state_dict())

"""The same seed gives the same bytes on every machine: golden hashes for each task and action form.

A change that alters trajectories on purpose renews them: python -m tests.test_golden. The ids then need a new version,
see RELEASED.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from particle_grid.adapters import VERSION, environment_id
from particle_grid.env import ACTIONS
from particle_grid.sim import tasks
from tests.cases import CASES, play, small

GOLDEN = Path(__file__).with_name("golden.json")
STEPS = 50
# Current names of arrays, and their names when the hashes were taken.
HASHED_AS = {"desired_move": "wish", "entered_cell": "met"}
DYNAMICS = ("kinematic", "inertial")
# The hash of the golden hashes of each id. Changed bytes mean -v1: raise VERSION in particle_grid/adapters/__init__.py,
# and add a line for each new id. The lines that are here stay, because results have been published under these ids.
RELEASED = {
    "ParticleGrid/Center-v0": "169f2d46eee651ac",
    "ParticleGrid/Forage-v0": "d2cc0acb23f17f79",
    "ParticleGrid/Group-v0": "deeda42b370cdebc",
    "ParticleGrid/Herd-v0": "619cc59c18819ace",
    "ParticleGrid/Optimize-v0": "c804b48997732525",
    "ParticleGrid/PredatorPrey-v0": "186067fb24c502ae",
    "ParticleGrid/Puffer-v0": "f0c0640388fbfeb8",
    "ParticleGrid/Scatter-v0": "0f937d68990bf84a",
}


def digest(task, action, dynamics):
    """Return sixteen hexadecimal digits that depend on every observation, reward and flag, and on the final state."""
    env, seen = small(task, action, dynamics=dynamics), hashlib.sha256()
    for observations, rewards, _, truncations, _ in play(env, STEPS, seed=7):
        for array in (observations, rewards, truncations):
            seen.update(array.tobytes())
    arrays = {HASHED_AS.get(name, name): array for name, array in env.state_dict().items()}
    for name, array in sorted(arrays.items()):
        seen.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return seen.hexdigest()[:16]


def every_digest():
    return {
        f"{task} {action} {dynamics}": digest(task, action, dynamics) for task, action in CASES for dynamics in DYNAMICS
    }


@pytest.mark.parametrize("dynamics", DYNAMICS)
@pytest.mark.parametrize(("task", "action"), CASES)
def test_trajectories_have_the_golden_hashes(task, action, dynamics):
    golden = json.loads(GOLDEN.read_text("utf-8"))
    assert digest(task, action, dynamics) == golden[f"{task} {action} {dynamics}"]


def test_every_task_and_action_form_has_a_different_hash():
    golden = json.loads(GOLDEN.read_text("utf-8"))
    assert len(golden) == 2 * len(CASES)
    assert len(set(golden.values())) == len(golden)


@pytest.mark.parametrize("task", tasks.names())
def test_an_id_keeps_its_version_only_as_long_as_its_bytes(task):
    golden = json.loads(GOLDEN.read_text("utf-8"))
    own = " ".join(golden[f"{task} {action} {dynamics}"] for action in ACTIONS for dynamics in DYNAMICS)
    found = hashlib.sha256(own.encode()).hexdigest()[:16]
    name = environment_id(task)
    assert name in RELEASED, f"{name} is new: add it to RELEASED with {found}."
    assert RELEASED[name] == found, f"{name} has other bytes than when it was released: make it -v{VERSION + 1}."


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(every_digest(), indent=1) + "\n", "utf-8")

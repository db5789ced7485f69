"""The same seed gives the same bytes on every machine: golden hashes for each task and action form.

A change that alters trajectories on purpose renews them: python -m tests.test_golden
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cases import CASES, play, small

GOLDEN = Path(__file__).with_name("golden.json")
STEPS = 50
# Current names of arrays, and their names when the hashes were taken.
HASHED_AS = {"desired_move": "wish", "entered_cell": "met"}


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
        f"{task} {action} {dynamics}": digest(task, action, dynamics)
        for task, action in CASES
        for dynamics in ("kinematic", "inertial")
    }


@pytest.mark.parametrize("dynamics", ["kinematic", "inertial"])
@pytest.mark.parametrize(("task", "action"), CASES)
def test_trajectories_have_the_golden_hashes(task, action, dynamics):
    golden = json.loads(GOLDEN.read_text("utf-8"))
    assert digest(task, action, dynamics) == golden[f"{task} {action} {dynamics}"]


def test_every_task_and_action_form_has_a_different_hash():
    golden = json.loads(GOLDEN.read_text("utf-8"))
    assert len(golden) == 2 * len(CASES)
    assert len(set(golden.values())) == len(golden)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(every_digest(), indent=1) + "\n", "utf-8")

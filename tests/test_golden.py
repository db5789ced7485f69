"""The same seed gives the same bytes on every machine: golden hashes of each task and action form.

A change that means to change what happens renews them: python -m tests.test_golden
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.cases import CASES, play, small

GOLDEN = Path(__file__).with_name("golden.json")
STEPS = 50
HASHED_AS = {"desired_move": "wish", "entered_cell": "met"}  # arrays that have been renamed since the hashes were taken


def digest(task, action, dynamics):
    """Sixteen hexadecimal digits of everything that happened: what agents saw and got, and the state at the end."""
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
def test_what_happens_is_what_happened_when_the_hash_was_taken(task, action, dynamics):
    golden = json.loads(GOLDEN.read_text("utf-8"))
    assert digest(task, action, dynamics) == golden[f"{task} {action} {dynamics}"]


def test_every_task_and_action_form_has_a_hash_of_its_own():
    golden = json.loads(GOLDEN.read_text("utf-8"))
    assert len(golden) == 2 * len(CASES)
    assert len(set(golden.values())) == len(golden)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(every_digest(), indent=1) + "\n", "utf-8")

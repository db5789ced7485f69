"""A state that a run cannot resume from is refused and does not change the run."""

import copy

import pytest
import torch

from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from tests.learn.toy import DISCRETE, Toy

SETTINGS = TrainerConfig(total_steps=64, rollout_length=4, minibatch=16, threads=1, device="cpu", fast="off")


def trained(seed):
    torch.manual_seed(seed)
    trainer = Trainer(Toy(8), make_policy("conv_lstm", 1, DISCRETE, hidden=8), SETTINGS)
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def saved():
    return trained(1).state_dict()


def put(state, *keys):
    """Return the innermost of nested containers, and its last key."""
    for key in keys[:-1]:
        state = state[key]
    return state, keys[-1]


INCOMPLETE = "cannot resume from a state without"
OTHER = "policy or device differs"
NAMES = ("steps", "policy", "optimiser", "generator", "envs", "opponents", "starts", "state")


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        *(((name,), None, f"{INCOMPLETE} {name}") for name in NAMES),
        (("steps",), "a", f"{INCOMPLETE} steps"),
        (("steps",), -5, "cannot resume from -5 steps"),
        (("steps",), 10**30, "cannot resume from 10* steps"),
        (("starts",), torch.full((8,), 7, dtype=torch.int32), OTHER),
        (("starts",), torch.zeros(8, 3, dtype=torch.bool), OTHER),
        (("starts",), torch.zeros(7, dtype=torch.bool), "has agents=7 and this run has agents=8"),
        (("starts",), [False] * 8, f"{INCOMPLETE} starts"),
        (("state", 0), torch.zeros(8, 9), OTHER),
        (("state", 1), torch.full((8, 8), torch.nan), OTHER),
        (("state", 1), None, OTHER),
        (("policy", "actor.bias"), torch.zeros(5), OTHER),
        (("policy", "actor.bias"), torch.full((6,), torch.nan), OTHER),
        (("policy", "actor.bias"), None, OTHER),
        (("policy", "other"), torch.zeros(6), OTHER),
        (("optimiser", "state"), 3, OTHER),
        (("optimiser", "state", 0), {}, OTHER),
        (("generator",), torch.zeros(3, dtype=torch.uint8), OTHER),
        (("envs",), [{}, {}], "has env_splits=2 and this run has env_splits=1"),
        (("others",), [{}], f"{INCOMPLETE} generator"),
        (("others",), [5], f"{INCOMPLETE} generator"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(saved, keys, value, reason):
    trainer = trained(2)
    broken = copy.deepcopy(saved)
    broken["state"] = list(broken["state"])
    inner, key = put(broken, *keys)
    inner[key] = value
    before = copy.deepcopy(trainer.state_dict())
    with pytest.raises(ValueError, match=reason):
        trainer.load_state_dict(broken)
    after = trainer.state_dict()
    torch.testing.assert_close(after["policy"], before["policy"], rtol=0, atol=0)
    torch.testing.assert_close(after["optimiser"]["state"], before["optimiser"]["state"], rtol=0, atol=0)
    for name in ("generator", "envs", "starts", "state"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)
    assert after["steps"] == before["steps"]
    trainer.load_state_dict(saved)
    torch.testing.assert_close(trainer.state_dict()["policy"], saved["policy"], rtol=0, atol=0)


@pytest.mark.parametrize("state", [{}, "x", None, [1]])
def test_objects_that_are_not_states_are_refused(state):
    with pytest.raises(ValueError, match=INCOMPLETE):
        trained(2).load_state_dict(state)

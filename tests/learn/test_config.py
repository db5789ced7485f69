"""Invalid settings of the trainer are refused by name."""

import math

import pytest

from particle_grid.learn.config import TrainerConfig

COUNTS = ("total_steps", "rollout_length", "minibatch", "epochs", "env_splits", "checkpoint_every", "seed")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"total_steps": 0}, "total_steps=0 .*positive"),
        ({"rollout_length": -1}, "rollout_length=-1"),
        ({"minibatch": 100}, "minibatch=100 .*a multiple of trainer.rollout_length=32"),
        ({"gamma": 1.5}, "gamma=1.5 .*between 0 and 1"),
        ({"gae_lambda": math.nan}, "gae_lambda=nan"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 .*0 or more"),
        ({"learning_rate": math.inf}, "learning_rate=inf"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"device": "tpu"}, "device='tpu' .*auto, cpu, cuda"),
        ({"device": "cpu:first"}, "device='cpu:first' .*auto, cpu, cuda"),
        ({"fast": "quick"}, "fast='quick' .*one of auto, off, fp32, bf16"),
        ({"threads": -1}, "threads=-1"),
        ({"threads": 1025}, "threads=1025 .*at most 1024"),
        *(({name: 1 << 63}, f"{name}={1 << 63} .*below 2\\*\\*63") for name in COUNTS),
        ({"scripted_opponents": 0.75, "opponent_pool": 0.5}, "opponent_pool=0.5 .*at most 0.25"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(change, words):
    with pytest.raises(ValueError, match=f"trainer.{words}"):
        TrainerConfig(**change)


@pytest.mark.parametrize("change", [{"epochs": 1.5}, {"anneal": 1}, {"gamma": "0.9"}, {"total_steps": True}])
def test_a_setting_of_the_wrong_type_is_refused_by_name(change):
    with pytest.raises(TypeError, match=f"trainer.{next(iter(change))}="):
        TrainerConfig(**change)

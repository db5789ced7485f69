"""Settings of the trainer that cannot be are refused by name."""

import math

import pytest
import torch

from particle_grid.learn.trainer import TrainerConfig, choose_device


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
        ({"device": "tpu"}, "device='tpu' .*auto, cpu or cuda"),
        ({"threads": -1}, "threads=-1"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(change, words):
    with pytest.raises(ValueError, match=f"trainer.{words}"):
        TrainerConfig(**change)


@pytest.mark.parametrize("change", [{"epochs": 1.5}, {"anneal": 1}, {"gamma": "0.9"}, {"total_steps": True}])
def test_a_setting_of_the_wrong_type_is_refused_by_name(change):
    with pytest.raises(TypeError, match=f"trainer.{next(iter(change))}="):
        TrainerConfig(**change)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=cuda cannot be: torch finds no GPU"):
        choose_device("cuda")

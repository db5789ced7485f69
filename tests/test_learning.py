"""What the defaults are for: a task is learnt from the simulator as it ships, in a quarter of the default budget."""

import pytest

from particle_grid import scores
from particle_grid.env import ParticleGrid
from particle_grid.learn.trainer import Trainer, TrainerConfig
from particle_grid.run import build_policy, policy_player


@pytest.mark.slow
def test_forage_is_learnt_well_beyond_half_of_the_script_in_two_million_steps():
    env = ParticleGrid(task="forage", action="discrete", height=512, width=512)
    policy = build_policy({"seed": 0, "policy": {"name": "conv_lstm"}}, env)
    baseline = scores.stored(env)
    assert baseline is not None
    before = baseline.normalise(scores.evaluate(env, policy_player(policy), (1000,), 64))[0]
    Trainer(env, policy, TrainerConfig(total_steps=2_000_000)).run()
    after = baseline.normalise(scores.evaluate(env, policy_player(policy), (1000,), 256))[0]
    assert abs(before) < 0.1
    assert after > 0.5

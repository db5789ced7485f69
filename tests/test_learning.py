"""The default settings learn tasks of the real simulator within a third of the default budget."""

import pytest

from particle_grid.env import ParticleGrid
from particle_grid.evaluation import scores
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.heads import HEADS
from particle_grid.learn.trainer import Trainer
from particle_grid.runs.build import build_policy, policy_player


@pytest.mark.release
def test_forage_is_learnt_to_more_than_half_of_the_script_in_two_million_steps():
    env = ParticleGrid(task="forage", action="discrete", height=512, width=512)
    policy = build_policy({"seed": 0, "policy": {"name": "conv_lstm"}}, env)
    baseline = scores.stored(env)
    assert baseline is not None
    before = baseline.normalise(scores.evaluate(env, policy_player(policy), (1000,), 64))[0]
    Trainer(env, policy, TrainerConfig(total_steps=2_000_000)).run()
    after = baseline.normalise(scores.evaluate(env, policy_player(policy), (1000,), 256))[0]
    assert abs(before) < 0.1
    assert after > 0.5


@pytest.mark.release
@pytest.mark.parametrize(("action", "head"), [("discrete", "auto"), *(("continuous", head) for head in HEADS[1:])])
def test_every_head_learns_to_go_to_the_center(action, head):
    env = ParticleGrid("center", action, agents=1024, height=128, width=128)
    policy = build_policy({"seed": 0, "policy": {"name": "conv_lstm", "head": head}}, env)
    baseline = scores.measure(env, (1000,))
    Trainer(env, policy, TrainerConfig(total_steps=1_500_000, gamma=0.98, gae_lambda=0.9)).run()
    assert baseline.normalise(scores.evaluate(env, policy_player(policy), (1000,)))[0] > 0.5

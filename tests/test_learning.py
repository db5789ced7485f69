"""The defaults learn: a task is learnt with the shipped simulator in a quarter of the default budget."""

import pytest
import torch

from particle_grid.env import ParticleGrid
from particle_grid.evaluation import baseline
from particle_grid.evaluation.match import evaluate
from particle_grid.evaluation.players import policy_player
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer


@pytest.mark.release
def test_forage_clearly_beats_half_of_the_script_after_two_million_steps():
    env = ParticleGrid(task="forage", action="discrete", height=512, width=512)
    torch.manual_seed(0)
    policy = make_policy("conv_lstm", env.vision, env.single_action_space)
    scale = baseline.stored(env)
    assert scale is not None
    before = scale.normalise(evaluate(env, policy_player(policy), (1000,), 64))[0]
    Trainer(env, policy, TrainerConfig(total_steps=2_000_000)).run()
    after = scale.normalise(evaluate(env, policy_player(policy), (1000,), 256))[0]
    assert abs(before) < 0.1
    assert after > 0.5


@pytest.mark.release
@pytest.mark.parametrize(("action", "head"), [("discrete", "auto"), *(("continuous", head) for head in HEADS[1:])])
def test_every_head_learns_to_go_to_the_center(action, head):
    env = ParticleGrid("center", action, agents=1024, height=128, width=128)
    torch.manual_seed(0)
    policy = make_policy("conv_lstm", env.vision, env.single_action_space, head=head)
    scale = baseline.measure(env, (1000,))
    Trainer(env, policy, TrainerConfig(total_steps=1_500_000, gamma=0.98, gae_lambda=0.9)).run()
    assert scale.normalise(evaluate(env, policy_player(policy), (1000,)))[0] > 0.5

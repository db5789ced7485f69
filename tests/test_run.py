"""What a run is built of."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer, TrainerConfig
from particle_grid.opponents import ScriptedOpponents
from particle_grid.run import build_env, build_lanes, opponents_for
from tests.cases import CASES, small

HALF = TrainerConfig(scripted_opponents=0.5)
TWO_SIDED = sorted({task for task, action in CASES if small(task, action).task.sides == 2})


def arenas(action, worlds=8):
    return ParticleGrid("predator_prey", action, worlds=worlds, agents=12, height=16, width=24)


@pytest.mark.parametrize("task", TWO_SIDED)
@given(worlds=st.integers(2, 20), share=st.floats(0.01, 1.0))
def test_opponents_play_one_side_in_a_share_of_the_worlds_and_both_sides_equally(task, worlds, share):
    env = ParticleGrid(task, worlds=worlds, agents=12, height=16, width=24)
    half = round(share * worlds / 2)
    if not half:
        with pytest.raises(ValueError, match="less than one world for each side"):
            ScriptedOpponents(env, share)
        return
    theirs = ScriptedOpponents(env, share).agents.reshape(worlds, 12)
    first, second = env.side(0).reshape(worlds, 12), env.side(1).reshape(worlds, 12)
    assert (theirs[:half] == first[:half]).all()
    assert (theirs[half : 2 * half] == second[half : 2 * half]).all()
    assert not theirs[2 * half :].any()


@pytest.mark.parametrize("task", sorted({task for task, _ in CASES} - set(TWO_SIDED)))
def test_a_task_of_one_side_has_no_opponents(task):
    env = small(task, "discrete")
    assert opponents_for(TrainerConfig())(env) is None
    with pytest.raises(ValueError, match=f"task {task} has no two sides"):
        opponents_for(HALF)(env)


@pytest.mark.parametrize("action", ACTIONS)
def test_opponents_play_the_script_and_the_others_their_policy(action):
    env = arenas(action)
    torch.manual_seed(0)
    policy = make_policy("mlp", env.vision, env.single_action_space, hidden=16)
    trainer = Trainer(env, policy, TrainerConfig(horizon=4, minibatch=64), opponents=opponents_for(HALF))
    opponents = trainer.lanes[0].opponents
    played, real = [], env.step

    def step(actions):
        script = opponents.act(len(played))  # moments count the steps, in the first rollout
        played.append((actions.copy(), script, trainer.policy.head.act(trainer.buffer.actions[len(played)]).numpy()))
        return real(actions)

    env.step = step
    trainer.rollout()
    for actions, script, policys in played:
        assert np.array_equal(actions[opponents.agents], script[opponents.agents])
        assert np.array_equal(actions[~opponents.agents], policys[~opponents.agents])
    assert not all(np.array_equal(script, policys) for _, script, policys in played)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_resumed_run_with_opponents_has_the_weights_of_one_that_was_not_stopped(action, tmp_path):
    def make():
        env = arenas(action)
        torch.manual_seed(0)
        policy = make_policy("conv_lstm", env.vision, env.single_action_space, hidden=16)
        config = TrainerConfig(total_steps=4 * 72 * 4, horizon=4, minibatch=128, device="cpu")
        return Trainer(env, policy, config, path=tmp_path / "x.pt", opponents=opponents_for(HALF))

    whole, first, second = make(), make(), make()
    whole.run()
    for _ in range(2):
        first.rollout()
        first.update()
        first.steps += first.batch
    second.load_state_dict(first.state_dict())
    second.run()
    assert second.steps == whole.steps == 4 * 72 * 4  # 72 of the 96 agents learn
    for a, b in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_lanes_share_the_worlds_out_evenly_or_not_at_all():
    config = {"task": {"name": "group"}, "action": {"name": "discrete"}, "seed": 3}
    config["world"] = {"worlds": 6, "agents": 12, "height": 24, "width": 24}
    env = build_env(config)
    assert build_lanes(config, env, TrainerConfig(device="cpu")) == [env]
    lanes = build_lanes(config, env, TrainerConfig(lanes=3))
    assert [lane.world.worlds for lane in lanes] == [2, 2, 2]
    assert [lane.seed for lane in lanes] == [3, 4, 5]
    with pytest.raises(ValueError, match=r"trainer.lanes=4 cannot share world.worlds=6 out evenly"):
        build_lanes(config, env, TrainerConfig(lanes=4))

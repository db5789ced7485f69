"""The parts of a run: environments, policy and opponents."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn import checkpoint
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.policy import make_policy
from particle_grid.learn.trainer import Trainer
from particle_grid.runs.build import build_env, build_env_splits, build_policy, opponents_for
from particle_grid.runs.opponents import AT_PLAY, SELVES, PastSelves, TeamOpponents
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.world import World
from tests.cases import CASES, needs_jit, small

HALF = TrainerConfig(scripted_opponents=0.5)
POOL = TrainerConfig(opponent_pool=0.5, total_steps=SELVES)  # a new past self at every agent-step
TWO_TEAMS = sorted({task for task, action in CASES if small(task, action).task.teams == 2})


def arenas(action, worlds=8):
    return ParticleGrid("predator_prey", action, worlds=worlds, agents=12, height=16, width=24)


def a_policy(env, name="mlp"):
    torch.manual_seed(0)
    return make_policy(name, env.vision, env.single_action_space, hidden=16)


@pytest.mark.parametrize("task", TWO_TEAMS)
@given(worlds=st.integers(2, 20), script=st.floats(0, 1), past=st.floats(0, 1))
def test_opponents_play_each_team_in_equal_shares_of_the_worlds(task, worlds, script, past):
    env = ParticleGrid(task, worlds=worlds, agents=12, height=16, width=24)
    past = min(past, 1 - script)
    config = TrainerConfig(scripted_opponents=script, opponent_pool=past)
    halves = [round(share * worlds / 2) for share in (script, past)]
    halves[0] = min(halves[0], worlds // 2)  # if both are rounded up, one world is missing
    halves[1] = min(halves[1], worlds // 2 - halves[0])
    if any(share and not half for share, half in zip((script, past), halves, strict=True)):
        with pytest.raises(ValueError, match="less than one world for each team"):
            TeamOpponents(env, a_policy(env), config)
        return
    theirs = TeamOpponents(env, a_policy(env), config).agents.reshape(worlds, 12)
    teams = [env.team(k).reshape(worlds, 12) for k in (0, 1)]
    expected, world = np.zeros((worlds, 12), bool), 0
    for half in halves:
        for team in teams:
            expected[world : world + half] = team[world : world + half]
            world += half
    assert np.array_equal(theirs, expected)


@pytest.mark.parametrize("task", sorted({task for task, _ in CASES} - set(TWO_TEAMS)))
@pytest.mark.parametrize("config", [HALF, POOL])
def test_a_task_with_one_team_has_no_opponents(task, config):
    env = small(task, "discrete")
    assert opponents_for(a_policy(env), TrainerConfig())(env) is None
    with pytest.raises(ValueError, match=f"task {task} has only one team"):
        opponents_for(a_policy(env), config)(env)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("config", [HALF, POOL])
def test_opponents_control_their_agents_and_the_policy_all_others(action, config):
    env = arenas(action)
    config = replace(config, rollout_length=4, minibatch=64)
    policy = a_policy(env)
    trainer = Trainer(env, policy, config, opponents=opponents_for(policy, config))
    opponents = trainer.collector.splits[0].opponents
    played, real = [], env.step

    def step(actions):
        theirs = opponents.act(len(played))  # in the first rollout the moment is the number of the step
        played.append(
            (actions.copy(), theirs, trainer.policy.head.to_action(trainer.buffer.actions[len(played)]).numpy())
        )
        return real(actions)

    env.step = step
    trainer.rollout()
    for actions, theirs, policys in played:
        assert np.array_equal(actions[opponents.agents], theirs[opponents.agents])
        assert np.array_equal(actions[~opponents.agents], policys[~opponents.agents])
    assert not all(np.array_equal(theirs, policys) for _, theirs, policys in played)


@pytest.mark.parametrize("config", [HALF, POOL])
def test_reported_scores_are_those_of_the_agents_that_learn(config):
    env = arenas("discrete")
    opponents = TeamOpponents(env, a_policy(env), config)
    env.reset(0)
    infos = []
    while not infos:
        infos = env.step(env.scripted_actions(np.array([len(infos)], np.uint64)))[-1]
    each = env.task.score(env.state, env.layout)
    for k in (0, 1):
        assert infos[0][f"score_{k + 1}"] == pytest.approx(each[env.team(k) & ~opponents.agents].mean())
    assert not np.allclose(env.score(), env.score(~opponents.agents))


def test_past_selves_are_frozen_in_turn_and_remember_until_their_agents_respawn():
    env = arenas("continuous")
    policy, mask = a_policy(env, "conv_lstm"), np.arange(env.num_agents) % 3 == 0
    env.reset(0)
    selves, bias = PastSelves(env, policy, mask, POOL), policy.linear.bias
    memory = [player.state for player in selves._players]
    for moment in range(3):
        bias.data += 1
        env.truncations[:] = np.arange(env.num_agents) % 5 == moment
        selves.act(moment, actions := np.full_like(env.actions, np.nan))
        assert np.array_equal(np.isfinite(actions).all(1), mask)
        for k, (player, part) in enumerate(zip(selves._players, selves._parts, strict=True)):
            frozen_at = k + 1 if k <= moment else 0  # the bias increases before each act
            assert player.policy.linear.bias.mean().item() == pytest.approx(frozen_at)
            if k == moment:
                memory[k] = policy.initial_state(len(part))
            obs, starts = torch.from_numpy(env.observations[part]), torch.from_numpy(env.truncations[part])
            with torch.no_grad():
                memory[k] = player.policy(obs[None], starts[None], memory[k])[2]
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(player.state, memory[k], strict=True))


def test_the_selves_in_play_are_a_uniform_sample_of_all_so_far():
    env = arenas("discrete")
    env.reset(0)
    policy = a_policy(env)
    mask = env.team(0)
    counts = np.zeros(SELVES)
    for seed in range(150):
        selves = PastSelves(env, policy, mask, replace(POOL, seed=seed))
        selves._freeze = lambda agents, selves=selves: selves._frozen  # its number in its place
        selves._players = [None] * AT_PLAY
        selves.grow(SELVES - 1)
        counts[selves._players] += 1
    assert counts.sum() == 150 * AT_PLAY
    assert counts.max() < 40  # 19 each on average, with a deviation of 4


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("config", [HALF, POOL])
def test_a_resumed_run_with_opponents_has_the_weights_of_an_uninterrupted_one(action, config, tmp_path):
    config = replace(config, total_steps=6 * 72 * 4, rollout_length=4, minibatch=128, device="cpu")

    def make():
        env = arenas(action)
        policy = a_policy(env, "conv_lstm")
        return Trainer(env, policy, config, path=tmp_path / "x.pt", opponents=opponents_for(policy, config))

    whole = make()
    first = make()
    second = make()
    whole.run()
    for _ in range(3):
        first.rollout()
        first.update()
        first.steps += first.batch
    first.save()
    second.load_state_dict(checkpoint.load(tmp_path / "x.pt"))
    second.run()
    assert second.steps == whole.steps == 6 * 72 * 4  # 72 of the 96 agents learn
    for a, b in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("total_steps", [1, 290, 300])
def test_the_last_checkpoint_of_a_run_with_a_pool_can_be_resumed(total_steps):
    """A rollout is 288 agent-steps, so the last rollouts of these runs start just before the end or well before it."""
    env, other = arenas("discrete"), arenas("discrete")
    config = replace(POOL, total_steps=total_steps, rollout_length=4, minibatch=64, device="cpu")
    trainers = []
    for each in (env, other):
        policy = a_policy(each)
        trainers.append(Trainer(each, policy, config, opponents=opponents_for(policy, config)))
    first, second = trainers
    first.run()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.run().steps == first.steps
    for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_resumed_run_cannot_add_an_opponent_pool():
    env = arenas("discrete")
    policy = a_policy(env)
    with pytest.raises(ValueError, match="opponent_pool cannot be switched on or off"):
        TeamOpponents(env, policy, POOL).load_state_dict(TeamOpponents(env, policy, HALF).state_dict())


def test_splits_divide_the_worlds_evenly_or_not_at_all():
    world = World(worlds=6, agents=12, height=24, width=24)
    config = RunConfig("group", "discrete", "mlp", world=world, seed=3, trainer=TrainerConfig(device="cpu"))
    env = build_env(config)
    assert build_env_splits(config, env) == [env]
    splits = build_env_splits(replace(config, trainer=TrainerConfig(env_splits=3)), env)
    assert [split.world.worlds for split in splits] == [2, 2, 2]
    assert [split.seed for split in splits] == [3, 4, 5]
    with pytest.raises(ValueError, match=r"trainer.env_splits=4 cannot share world.worlds=6 out evenly"):
        build_env_splits(replace(config, trainer=TrainerConfig(env_splits=4)), env)


@pytest.mark.parametrize("action", ACTIONS)
def test_for_a_gpu_the_buffers_of_each_split_are_in_one_block(action, monkeypatch):
    monkeypatch.setattr("particle_grid.runs.build.choose_device", lambda name: torch.device("cuda"))
    config = RunConfig("center", action, "mlp", world=World(2, 16, 24, 24), seed=3)
    env = build_env(config)
    for count in (1, 2):
        splits = build_env_splits(replace(config, trainer=TrainerConfig(env_splits=count)), env)
        assert len(splits) == count
        for split in splits:
            blocks = {id(getattr(split, name).base) for name in ("observations", "rewards", "terminals", "truncations")}
            assert len(blocks) == 1
    assert splits[0].observations.base is not splits[1].observations.base


@needs_jit("holds for the kernels, but not for plain torch")
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("fast", ["fp32", "bf16"])
def test_a_run_learns_the_same_with_any_number_of_threads(fast, action):
    weights = []
    for threads in (1, 2):
        env = small("group", action)
        torch.manual_seed(0)
        policy = make_policy("conv_lstm", env.vision, env.single_action_space)
        config = TrainerConfig(total_steps=6000, minibatch=1024, fast=fast, threads=threads)
        Trainer(env, policy, config).run()
        weights.append(torch.cat([x.detach().flatten() for x in policy.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("head", ["hurdle", "probit", "capg", "mixture", "jitter"])
def test_a_policy_that_started_with_the_distribution_of_moves_can_be_built_again(head):
    options = {"hidden": 16, "head": head, "init_action_rms": 0.5, "init_actions": "moves"}
    config = RunConfig(task="group", action="continuous", policy="mlp", policy_options=options)
    weights = build_policy(config).state_dict()
    again = build_policy(config, weights).state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in weights.items())

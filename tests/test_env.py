"""Invariants of the environment, for every registered task and action form."""

from dataclasses import fields, replace

import numba
import numpy as np
import pytest

from particle_grid import ParticleGrid
from particle_grid.sim import advance
from particle_grid.sim.observation import SIGNED_UNIT, decode
from particle_grid.sim.tasks._baselines import entries
from particle_grid.sim.world import AGENT_1, FOOD, UNSEEN, WALL, World
from particle_grid.support import jit
from tests.cases import CASES, field, needs_jit, play, random_actions, small

every_case = pytest.mark.parametrize(("task", "action"), CASES)


@every_case
def test_each_cell_holds_one_agent_and_grid_and_positions_agree(task, action):
    env = small(task, action, speed=1.3)
    for _ in play(env, 60):
        world = np.arange(env.num_agents) // env.world.agents
        row, column = env.state.position.astype(int)
        assert (env.state.grid[world, row, column] == env.state.colour).all()
        # Together with the previous line: no two agents share a cell.
        assert (env.state.grid >= AGENT_1).sum() == env.num_agents
        assert len({*zip(world, row, column, strict=True)}) == env.num_agents


@every_case
def test_inertial_agents_keep_their_velocity_and_stay_within_bounds(task, action):
    inertia = {"dynamics": "inertial", "acceleration": 0.25, "drag": 0.1}
    env = small(task, action, speed=0.8, **inertia)
    before = None
    for _, _, _, truncations, _ in play(env, 60):
        now = env.state.displacement.copy()
        assert np.abs(now).max() <= 0.8 + 1e-5
        row, column = env.state.position.astype(int)
        world = np.arange(env.num_agents) // env.world.agents
        assert (env.state.grid[world, row, column] == env.state.colour).all()
        if before is not None:
            free = ~truncations & now.any(0)  # neither blocked nor just spawned
            change = np.abs(now - np.clip(0.9 * before, -0.8, 0.8))[:, free]
            assert change.max() <= 0.25 + 1e-5
        before = now


@pytest.mark.parametrize("action", ["discrete", "continuous"])
def test_an_inertial_agent_speeds_up_coasts_and_stops_at_a_wall(action):
    env = ParticleGrid(task="center", action=action, agents=1, height=20, width=20, lifespan=0, dynamics="inertial")
    env.reset(0)
    field(env)[:] = 0
    env.state.position.T[0] = 10.5, 10.5
    env.state.grid[0, 10, 10] = env.state.colour[0]
    push = np.array([[2, 1]], np.int32) if action == "discrete" else np.array([[1, 0]], np.float32)
    rest = np.array([[1, 1]], np.int32) if action == "discrete" else np.zeros((1, 2), np.float32)
    moved = []
    for k in range(40):
        env.step(push if k < 3 or k > 10 else rest)
        moved.append(float(env.state.displacement[0, 0]))
    expected, velocity = [], 0.0
    for k in range(10):
        velocity = 0.9 * velocity + 0.25 * (k < 3)
        expected.append(velocity)
    assert moved[:10] == pytest.approx(expected, abs=1e-5)
    assert max(moved) == pytest.approx(1, abs=1e-5)  # `speed`, the maximum
    assert env.state.position[0, 0] < 25
    assert moved[-1] < 0.3  # after hitting the wall it starts from rest again


@every_case
def test_walls_and_colours_never_change_and_food_is_conserved(task, action):
    env = small(task, action)
    steps = play(env, 60)
    next(steps)

    def food():
        return (field(env) == FOOD).sum() + (env.state.under == FOOD).sum() + env.state.food_debt.sum()

    walls = env.state.grid == WALL
    colours = env.state.colour.copy()
    meals = food()
    assert walls[:, 0].all()
    assert walls[:, :, 0].all()
    for _ in steps:
        assert ((env.state.grid == WALL) == walls).all()
        assert (env.state.colour == colours).all()
        assert food() == meals


@every_case
def test_a_window_shows_the_grid_around_its_agent(task, action):
    env = small(task, action)
    v = env.vision
    for observations, *_ in play(env, 25):
        window = decode(observations, env.world).window
        for i in range(0, env.num_agents, 7):
            row, column = env.state.position.T[i].astype(int)
            grid = env.state.grid[i // env.world.agents]
            assert (window[i] == grid[row - v : row + v + 1, column - v : column + v + 1]).all()


@every_case
def test_agents_in_sight_are_counted_if_the_task_needs_the_counts(task, action):
    env = small(task, action)
    for observations, *_ in play(env, 5):
        window, colour, *_ = decode(observations, env.world)
        own = (window == colour[:, None, None]).sum((1, 2)) - 1
        others = (window >= AGENT_1).sum((1, 2)) - 1 - own
        expected = (own, others) if env.task.sight else (UNSEEN, UNSEEN)
        assert (env.state.own_in_sight == expected[0]).all()
        assert (env.state.others_in_sight == expected[1]).all()


@every_case
def test_decoded_observations_equal_the_state_up_to_byte_precision(task, action):
    env = small(task, action, speed=0.7)
    size = np.array([env.world.height, env.world.width])
    rounding = 0.51 / SIGNED_UNIT + 1e-5
    for observations, rewards, *_ in play(env, 25):
        seen = decode(observations, env.world)
        position = env.state.position.T
        assert (seen.colour == env.state.colour).all()
        assert np.abs((seen.position - (position - env.vision)) / size).max() <= 0.5 / 256 + 1e-6
        assert np.abs(seen.offset - position % 1).max() <= 0.5 / 256 + 1e-6
        assert np.abs(seen.displacement - env.state.displacement.T).max() <= 0.7 * rounding
        assert np.abs(seen.reward - rewards).max() <= rounding


@every_case
def test_rewards_are_finite_and_between_minus_one_and_one(task, action):
    for _, rewards, terminals, _, _ in play(small(task, action), 60):
        assert np.isfinite(rewards).all()
        assert np.abs(rewards).max() <= 1
        assert not terminals.any()


@every_case
def test_every_respawn_is_flagged_as_a_truncation_and_nothing_else_is(task, action):
    env = small(task, action, lifespan=6.0, max_episode_steps=25)
    before = None
    flagged = 0
    steps = 0
    for _, rewards, _, truncations, _ in play(env, 100):
        steps += 1
        position = env.state.position.T.copy()
        assert (env.state.displacement.T[truncations] == 0).all()
        assert (rewards[truncations] == 0).all()
        restarted = (steps + 25 * np.arange(env.world.worlds) // env.world.worlds) % 25 == 0  # one world after another
        assert (truncations.reshape(len(restarted), -1).all(1) == restarted).all()
        if before is not None:
            jumped = np.abs(position - before).max(1) > 1.001
            assert truncations[jumped].all()
            walked = before + env.state.displacement.T
            assert np.allclose(position[~truncations], walked[~truncations], atol=1e-5)
        before, flagged = position, flagged + truncations.mean()
    assert 0.12 < flagged / steps < 0.25  # a sixth of all lives ends in a step, and each world restarts every 25 steps


@needs_jit("plain Python has one thread")
@every_case
@pytest.mark.parametrize("worlds", [1, 3])  # threads share the agents of a single world, and otherwise the worlds
def test_the_same_seed_gives_the_same_bytes_with_one_and_two_threads(task, action, worlds, monkeypatch):
    monkeypatch.setattr(jit, "FEW_AGENTS", 1)
    monkeypatch.setattr(advance, "MANY", 1)
    runs = []
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS), 1):
        numba.set_num_threads(threads)
        env = small(task, action, worlds=worlds, agents=1100, height=130, width=120)
        digests = [b"".join(x.tobytes() for x in step[:4]) for step in play(env, 15, seed=len(runs) // 2)]
        runs.append((digests, env.state_dict()["grid"].tobytes()))
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]  # a different seed


@every_case
def test_a_saved_state_continues_bit_for_bit(task, action):
    env, other = small(task, action), small(task, action, seed=9)
    for _ in play(env, 20):
        pass
    other.reset(5)
    other.load_state_dict(env.state_dict())
    assert (other.observations == env.observations).all()
    generator = np.random.default_rng(3)
    for _ in range(40):
        actions = random_actions(env, generator)
        one, two = env.step(actions), other.step(actions)
        assert all((a == b).all() for a, b in zip(one[:4], two[:4], strict=True))
        assert one[4] == two[4]
    assert all((a == other.state_dict()[k]).all() for k, a in env.state_dict().items())


@every_case
def test_reset_with_a_seed_repeats_and_reset_without_one_continues(task, action):
    env = small(task, action)
    first = env.reset(7)[0].copy()
    assert (env.reset(7)[0] == first).all()
    assert (env.reset()[0] != first).any()
    fresh = small(task, action, seed=7)
    assert (fresh.reset()[0] == first).all()


@every_case
def test_a_script_beats_random_actions(task, action):
    scores = []
    for scripted in (False, True):
        env = small(task, action, lifespan=60.0, walls=0.0)
        env.reset(0)
        generator = np.random.default_rng(0)
        bits = np.zeros(1, np.uint64)
        total = []
        for _ in range(150):
            env.step(env.scripted_actions(bits) if scripted else random_actions(env, generator))
            total.append(env.score())
        scores.append(np.mean(total, 0))
    # If two teams play against each other, only the hunters can be compared with random ones here.
    assert scores[1][0] > scores[0][0]


def test_a_continuous_agent_crosses_a_cell_in_four_steps_of_length_three_tenths():
    env = ParticleGrid(task="center", action="continuous", agents=1, height=20, width=20, lifespan=0)
    env.reset(0)
    env.state.grid[0, int(env.state.position.T[0, 0]), int(env.state.position.T[0, 1])] = 0
    env.state.position.T[0] = 10.0, 10.0  # at the corner of its cell
    env.state.grid[0, 10, 10] = env.state.colour[0]
    cells = []
    for _ in range(4):
        env.step(np.array([[0.3, 0.0]], np.float32))
        cells.append(int(env.state.position.T[0, 0]))
        assert env.state.displacement.T[0, 0] == pytest.approx(0.3, abs=1e-6)
    assert cells == [10, 10, 10, 11]


@pytest.mark.parametrize("action", ["discrete", "continuous"])
def test_a_fast_agent_never_jumps_over_an_obstacle(action):
    env = ParticleGrid(task="center", action=action, agents=1, height=20, width=20, speed=5.0, lifespan=0)
    env.reset(0)
    for obstacle in range(12, 16):
        field(env)[:] = 0
        env.state.position.T[0] = 10.5, 10.5
        env.state.grid[0, 10, 10] = env.state.colour[0]
        env.state.grid[0, obstacle, 10] = WALL
        env.step(np.array([[2, 1]], np.int32) if action == "discrete" else np.array([[1, 0]], np.float32))
        assert int(env.state.position.T[0, 0]) == min(obstacle - 1, 15)


def contest(offsets, rounds):
    """Count how often each of several agents wins a cell that all want, in a world with only bystanders otherwise."""
    env = ParticleGrid(task="group", action="discrete", agents=23, height=30, width=30, lifespan=0)
    env.reset(0)
    wins, start = np.zeros(len(offsets)), env.state.position.T.copy()
    around = np.array([(-1, -1), (1, 1), (-1, 1), (1, -1)])[: len(offsets)]
    field(env)[:] = 0
    for _ in range(rounds):
        field(env)[:] = 0
        env.state.position.T[:] = start
        env.state.position.T[:, 0] = 30.5  # bystanders wait in a separate row
        env.state.position.T[:, 1] = 6.5 + np.arange(23)
        env.state.position.T[offsets] = 15.5 + around
        row, column = env.state.position.astype(int)
        env.state.grid[0, row, column] = env.state.colour
        actions = np.ones((23, 2), np.int32)
        actions[offsets] = 1 - around
        env.step(actions)
        wins += (env.state.position.T[offsets].astype(int) == 15).all(1)
    assert wins.sum() == rounds
    return wins / rounds


@pytest.mark.parametrize("offsets", [[0, 1], [1, 0], [3, 20], [5, 6, 7], [2, 9, 16, 22]])
def test_no_agent_is_favoured_in_a_contested_cell(offsets):
    rounds, share = 6000, 1 / len(offsets)
    # The moving order changes slowly, so rounds are correlated: only a third of them counts.
    error = np.sqrt(share * (1 - share) / (rounds / 3))
    assert np.abs(contest(offsets, rounds) - share).max() < 4 * error


@pytest.mark.parametrize("action", ["discrete", "continuous"])
def test_out_of_range_actions_are_clipped_or_ignored_and_raise_in_checked_mode(action):
    env = small("group", action, checked=False, lifespan=0)
    env.reset(0)
    if action == "discrete":
        wrong, right = np.full((120, 2), 99, np.int64), np.full((120, 2), 2, np.int32)
    else:
        wrong, right = np.full((120, 2), 50.0), np.ones((120, 2), np.float32)
    twin = small("group", action, lifespan=0)
    twin.reset(0)
    assert (env.step(wrong)[0] == twin.step(right)[0]).all()
    if action == "continuous":
        for value in (np.nan, np.inf, -np.inf):
            nonsense = np.full((120, 2), value, np.float32)
            before = env.state.position.T.copy()
            env.step(nonsense)
            assert (before == env.state.position.T).all()
    checked = small("group", action, checked=True)
    checked.reset(0)
    with pytest.raises(ValueError, match="agent 0 is not within"):
        checked.step(wrong)
    checked.step(right)


def test_reports_come_every_32_steps_and_cover_episodes():
    env = small("forage", "discrete")
    infos = [info for *_, info in play(env, 64)]
    assert [bool(info) for info in infos] == [step in (31, 63) for step in range(64)]
    report = infos[63][0]
    assert set(report) == {"score", "moved", "episode_return", "episode_length"}
    assert 8 < report["episode_length"] < 16  # lifespan is 12
    assert report["score"] == env.score()[0]


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: "-".join([*entry["settings"].values()][:2]))
def test_reports_hold_the_clipped_normalised_score_where_references_ship_for_one_team(entry):
    saved = entry["settings"]
    world = World(**{field.name: saved[field.name] for field in fields(World)})
    env = ParticleGrid(saved["task"], saved["action"], world=world, **saved["params"])
    *_, infos = list(play(env, 32))[-1]
    if env.task.teams > 1:
        assert "perf" not in infos[0]
        return
    random, scripted = np.mean(entry["random"]), np.mean(entry["scripted"])
    assert infos[0]["perf"] == pytest.approx(np.clip((env.score()[0] - random) / (scripted - random), 0, 1))
    other = ParticleGrid(saved["task"], saved["action"], world=replace(world, speed=2.0), **saved["params"])
    *_, infos = list(play(other, 32))[-1]
    assert "perf" not in infos[0]


def test_crowded_worlds_run_without_errors():
    env = ParticleGrid(task="forage", action="discrete", agents=100, height=11, width=11, food=0.16, lifespan=2.0)
    for _ in play(env, 50):
        assert (field(env) >= AGENT_1).sum() == 100
        assert (field(env) == FOOD).sum() + env.state.food_debt.sum() == round(0.16 * 121)

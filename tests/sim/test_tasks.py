"""Compare the rewards and pictures of the tasks with plain definitions."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from particle_grid.sim import rng, tasks
from particle_grid.sim.actions import actions_for
from particle_grid.sim.tasks import _picture as picture
from particle_grid.sim.world import AGENT_1, DYNAMICS, FOOD
from tests.cases import ACTIONS, CASES, field, play, small


def expected_reward(env, i):
    """Return the reward of agent i by its definition."""
    state, task = env.state, env.task
    own, others = int(state.own_in_sight[i]), int(state.others_in_sight[i])
    row, column = state.position[:, i] - env.vision
    match env.task_name:
        case "scatter":
            return max(-1, -task.scale * own)
        case "group":
            return np.clip(task.scale * (own - others), -1, 1)
        case "predator_prey":
            return min(1, task.scale * others) * (1 if state.colour[i] == AGENT_1 else -1)
        case "forage":
            middle = np.hypot(*(state.position[:, i] % 1 - 0.5))
            share = max(0, 1 - middle / task.tolerance) if task.tolerance else 1
            return min(1, task.food_reward * state.eaten[i] * share)
        case "center":
            middle = env.world.height / 2, env.world.width / 2
            return -np.hypot(row - middle[0], column - middle[1]) / np.hypot(*middle)
        case "puffer":
            return expected_puffer_reward(env, i)
        case "optimize":
            return expected_height(env, i, row, column)
        case "herd":
            return expected_herd_reward(env, i)


def expected_height(env, i, row, column):
    world, task = env.world, env.task
    origin = env.state.origin[i // world.agents]
    left, radius = 1.0, task.radius * min(world.height, world.width)
    for k in range(task.hills):
        middle = world.height * rng.hidden(origin, 2 * k), world.width * rng.hidden(origin, 2 * k + 1)
        near = max(0, 1 - np.hypot(row - middle[0], column - middle[1]) ** 2 / radius**2)
        left *= 1 - near**2 * (k + 1) / task.hills
    return 1 - left


def expected_herd_reward(env, i):
    world, colour = env.world, env.state.colour
    mine = np.arange(env.num_agents) // world.agents == i // world.agents
    cell = np.floor(env.state.position - env.vision).astype(int)
    dogs, sheep = mine & (colour == AGENT_1), mine & (colour != AGENT_1)
    distance = np.hypot(*(cell[:, dogs, None] - cell[:, None, sheep]))  # [dogs, sheep]
    if colour[i] != AGENT_1:
        return env.task.fear * min(1, distance[:, np.flatnonzero(sheep) == i].min() / (env.vision + 1))
    pen = np.argwhere(env.layout.targets)
    middle, half = pen.mean(0) + 0.5, np.ptp(pen[:, 0]) / 2 + 0.5
    led = np.flatnonzero(sheep)[np.flatnonzero(dogs)[distance.argmin(0)] == i]

    def way(position):
        return np.maximum(np.abs(position - env.vision - middle[:, None]).max(0) - half, 0)

    now, moved = env.state.position[:, led], env.state.displacement[:, led]
    nearer = (way(now - moved) - way(now)).sum()
    share, drive = env.layout.targets[tuple(cell[:, sheep])].mean(), env.task.drive
    return np.clip((1 - drive) * share + drive * nearer, -1, 1)


def expected_puffer_reward(env, i):
    task, targets = env.task, np.argwhere(env.layout.map[env.state.colour[i] - AGENT_1] <= 0)
    top = np.argwhere(env.layout.targets).min(0)[0]

    def distance(position):
        cell = np.floor(position - env.vision)
        return np.abs(targets - cell).max(1).min()

    now = env.state.position.T[i]
    then = now - env.state.displacement.T[i]
    shaping = task.shaping * (distance(then) - task.gamma * distance(now))
    fill = task.fill + task.depth * (np.floor(now[0] - env.vision) - top)
    return np.clip(fill * (distance(now) == 0) + shaping, -1, 1)


@pytest.mark.parametrize(("task", "action"), CASES)
def test_rewards_equal_their_plain_definition(task, action):
    env = small(task, action, lifespan=100.0)
    some = False
    for _, rewards, _, truncations, _ in play(env, 80):
        for i in range(0, env.num_agents, 17):
            if not truncations[i]:
                assert rewards[i] == pytest.approx(expected_reward(env, i), abs=1e-5)
        some = some or rewards.any()
    assert some


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("tolerance", [0.0, 0.2, 0.7])
def test_food_pays_less_the_farther_from_the_middle_of_its_cell_it_is_eaten(action, tolerance):
    env = small("forage", action, tolerance=tolerance, food=0.3, speed=0.7)
    shares = set()
    for _, rewards, _, truncations, _ in play(env, 40):
        expected = [0 if truncations[i] else expected_reward(env, i) for i in range(env.num_agents)]
        np.testing.assert_allclose(rewards, expected, atol=1e-5)
        assert env.score() == pytest.approx(rewards.mean(), abs=0.02)  # except agents that ate and then respawned
        shares |= set(rewards[env.state.eaten == 1].tolist())
    assert (len(shares) > 5) == (tolerance > 0)


@pytest.mark.parametrize(("task", "action"), CASES)
def test_an_action_costs_its_mean_square_even_if_the_agent_cannot_move(task, action):
    free, costly = (small(task, action, lifespan=50.0, action_cost=cost) for cost in (0.0, 0.3))
    for env in (free, costly):
        env.reset(5)
    generator = np.random.default_rng(5)
    for _ in range(30):
        if free.discrete:
            actions = generator.integers(0, 3, free.actions.shape, dtype=np.int32)
            wanted = actions - 1.0
        else:
            actions = generator.normal(0, 1, free.actions.shape).astype(np.float32)
            actions[::7, 0] = np.nan
            wanted = np.where(np.isfinite(actions).all(1, keepdims=True), actions.clip(-1, 1), 0)
        rewards = free.step(actions)[1]
        expected = np.where(free.truncations, 0, 0.7 * rewards - 0.3 * np.square(wanted).mean(1))
        np.testing.assert_allclose(costly.step(actions)[1], expected, atol=1e-6)
        assert costly.score()[0] == pytest.approx(costly.rewards[costly.team(0)].mean(), abs=1e-6)
    assert costly.unit == "reward a step"
    assert free.unit == free.task.unit


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_has_a_description_and_parameters_with_defaults(name):
    kind = tasks.load(name)
    assert kind.__doc__
    assert kind.unit
    assert kind.teams in (1, 2)
    assert kind() == kind(**{f.name: f.default for f in fields(kind)})


def test_predators_and_prey_spawn_out_of_sight_of_each_other():
    env = small("predator_prey", "discrete")
    env.reset(0)
    assert not env.state.others_in_sight.any()
    assert env.team(0).sum() == env.team(1).sum() == env.num_agents / 2


def test_scatter_and_puffer_spawn_in_a_blob():
    env = small("scatter", "discrete", walls=0.0)
    env.reset(0)
    rows, columns = np.nonzero(field(env)[0] >= AGENT_1)
    assert np.ptp(rows) < 11  # 60 agents at a packing of one half: 11 x 11 cells
    assert np.ptp(columns) < 11


def test_puffer_agents_cover_targets_without_eating_them():
    env = small("puffer", "discrete", lifespan=200.0)
    env.reset(0)
    bits, targets = np.zeros(1, np.uint64), env.layout.targets
    for _ in range(60):
        env.step(env.scripted_actions(bits))
        cells = field(env)
        assert (cells[:, targets] != 0).all()
        covered = (cells[:, targets] >= AGENT_1).sum()
        assert (env.state.under == FOOD).sum() == covered
    assert covered > 10
    filled = (cells[:, targets] >= AGENT_1).sum() / targets.sum() / 2
    assert 0 < env.score()[0] <= filled + 1e-6


@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 1000))
def test_distances_equal_those_to_the_nearest_target_by_brute_force(height, width, seed):
    targets = np.random.default_rng(seed).random((height, width)) < 0.2
    out = np.zeros((height, width), np.uint16)
    picture.distance_to(targets, out)
    where = np.argwhere(targets)
    for cell in np.ndindex(height, width):
        expected = np.abs(where - cell).max(1).min() if len(where) else None
        assert expected is None or out[cell] == expected


def test_letters_are_separated_and_coloured_in_turn():
    drawn = picture.of_text("AB C", 2)
    inked = drawn.any(0)
    starts = np.flatnonzero(inked & ~np.concatenate([[False], inked[:-1]]))
    assert len(starts) == 3
    assert [int(drawn[:, start].max()) for start in starts] == [1, 2, 1]


def test_an_image_becomes_targets_of_the_nearest_colour(tmp_path):
    pixels = np.zeros((6, 9, 4), np.uint8)
    pixels[1:5, 1:4] = (220, 90, 10, 255)
    pixels[1:5, 5:8] = (80, 180, 240, 255)
    path = tmp_path / "two.png"
    Image.fromarray(pixels).save(path)
    drawn = picture.of_image(path, 2)
    assert drawn.shape == (4, 7)
    assert (drawn[:, :3] == 1).all()
    assert (drawn[:, 3] == 0).all()
    assert (drawn[:, 4:] == 2).all()
    env = small("puffer", "discrete", image=str(path))
    assert env.layout.targets.any()
    Image.fromarray(np.full((5, 5, 3), 200, np.uint8)).save(path)
    with pytest.raises(ValueError, match="shows nothing"):
        small("puffer", "discrete", image=str(path))
    path.write_text("no image")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        small("puffer", "discrete", image=str(path))


def test_a_picture_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"text='PUFFER PUFFER' does not fit into a 40 x 48 world"):
        small("puffer", "discrete", text="PUFFER PUFFER", agents=2, height=40, width=48)


@given(seed=st.integers(0, 100), speed=st.sampled_from([0.5, 1.0, 2.0]), dynamics=st.sampled_from(DYNAMICS))
def test_actions_lead_towards_the_aim(seed, speed, dynamics):
    env = small("center", "continuous", speed=speed, dynamics=dynamics)
    for _ in play(env, 5, seed):
        pass
    aim = np.random.default_rng(seed).uniform(-4, 4, (env.num_agents, 2)).astype(np.float32)
    discrete, continuous = (actions_for(aim, env.observations, env.rules, form) for form in (True, False))
    if dynamics == "kinematic":
        assert ((discrete - 1) * aim >= 0).all()
        assert (np.abs(aim[discrete == 1]) < 0.5).all()
        assert np.allclose(continuous * speed, np.clip(aim, -speed, speed))
    else:  # as close to the wanted velocity as the acceleration allows
        last = env.state.displacement.T * env.rules.momentum
        wanted = np.clip(aim, -speed, speed)
        reached = last + env.rules.gain * continuous
        possible = np.clip(wanted, last - env.rules.gain, last + env.rules.gain)
        assert np.abs(reached - possible).max() < speed / 127
        assert ((discrete - 1) * continuous >= 0).all()

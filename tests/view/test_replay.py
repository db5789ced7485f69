"""A replay page holds every frame, and refuses what it cannot hold."""

import base64
import json
import re
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particle_grid import ParticleGrid
from particle_grid.sim import tasks
from particle_grid.sim.world import World
from particle_grid.view.frame import cells
from particle_grid.view.replay import JUMP, About, Replay, write_page
from tests.cases import NETWORK, needs_jit
from tests.support.test_atomic import no_file_beyond

NOTHING = About()
KINDS = {"start": "<u2", "jumps": "<u2", "changes": "<u4", "gaps": "<u4"}


def record(env, steps, world=0, title="a title", about=NOTHING):
    """Return a replay of random play, and the codes and rewards of each frame."""
    replay = Replay(env.world, title, env.legend(), world=world, about=about)
    fields = []
    rewards = []
    agents = slice(world * env.world.agents, (world + 1) * env.world.agents)
    generator = np.random.default_rng(0)
    env.reset(0)
    for _ in range(steps):
        if env.discrete:
            env.step(generator.integers(0, 3, (env.num_agents, 2), dtype=np.int32))
        else:
            env.step(generator.uniform(-1, 1, (env.num_agents, 2)).astype(np.float32))
        replay.add(env.state, env.rewards, env.score(replay.agents))
        fields.append(cells(env.state, env.world, world).copy())
        rewards.append(env.rewards[agents].copy())
    return replay, np.array(fields), np.array(rewards)


def unpack(data, name):
    dtype = np.dtype(KINDS.get(name, np.uint8))
    planes = np.frombuffer(zlib.decompress(base64.b64decode(data["arrays"][name])), np.uint8)
    return planes.reshape(dtype.itemsize, -1).T.copy().view(dtype).ravel()


def played(data):
    """Decode the page plainly: yield the codes of each frame."""
    data = json.loads(json.dumps(data))
    ground = unpack(data, "ground").copy()
    at = unpack(data, "start").reshape(2, -1).astype(np.int64)
    moves, jumps = unpack(data, "moves").reshape(-1, data["agents"]), iter(unpack(data, "jumps").reshape(-1, 2))
    gaps = list(unpack(data, "gaps"))
    codes = list(unpack(data, "codes"))
    side = 2 * data["reach"] + 1
    for k in range(data["frames"]):
        if k:
            for i, move in enumerate(moves[k - 1].tolist()):
                step = (move // side - data["reach"], move % side - data["reach"])
                at[:, i] = next(jumps) if move == JUMP else at[:, i] + step
            cell = 0
            for _ in range(unpack(data, "changes")[k - 1]):
                cell += int(gaps.pop(0))
                ground[cell] = codes.pop(0)
        here = at[0] * data["width"] + at[1]
        if data["eats"]:
            ground[here] = 0
        shown = ground.copy()
        shown[here] = unpack(data, "colours")
        yield shown.reshape(data["height"], data["width"])


@pytest.mark.parametrize("action", ["discrete", "continuous"])
@pytest.mark.parametrize("task", tasks.names())
@settings(max_examples=4)
@given(
    worlds=st.integers(1, 2),
    lifespan=st.sampled_from([0, 3]),
    max_episode_steps=st.sampled_from([0, 4]),
    speed=st.sampled_from([0.3, 1, 2.5, 20]),
    steps=st.integers(1, 9),
)
def test_every_frame_and_every_reward_is_stored(task, action, worlds, lifespan, max_episode_steps, speed, steps):
    options = {"lifespan": lifespan, "max_episode_steps": max_episode_steps, "speed": speed, "walls": 0.02}
    env = ParticleGrid(task, action, worlds, 30, 60, 60, vision=3, **options)
    replay, fields, rewards = record(env, steps, worlds - 1)
    data = replay.data()
    assert (np.array(list(played(data))) == fields).all()
    stored = (unpack(data, "rewards").reshape(steps, -1).astype(float) - data["reward_zero"]) / data["reward_unit"]
    assert np.abs(stored - rewards).max() <= 0.5 / data["reward_unit"] + 1e-6
    assert np.shape(data["scores"]) == (steps, env.task.teams)
    if task == "forage":
        assert data["eats"]


@needs_jit("1.2 million agent-steps: ten minutes of plain Python")
def test_four_thousand_agents_and_three_hundred_steps_take_three_megabytes_and_no_network(tmp_path):
    env = ParticleGrid("forage", "discrete", agents=4096, height=512, width=512)
    env.reset(0)
    replay, generator = Replay(env.world, "", env.legend()), np.zeros(1, np.uint64)
    for _ in range(300):
        env.step(env.scripted_actions(generator))
        replay.add(env.state, env.rewards, env.score(replay.agents))
    replay.write(tmp_path / "a.html")
    assert (tmp_path / "a.html").stat().st_size < 3e6
    assert not re.search(NETWORK, (tmp_path / "a.html").read_text("utf-8"))


@pytest.mark.parametrize("name", ["a.htm", "none/a.html"])
def test_invalid_paths_worlds_and_rates_and_empty_replays_are_refused(tmp_path, name):
    env = ParticleGrid("forage", "discrete", agents=5, height=20, width=20)
    replay, *_ = record(env, 1)
    with pytest.raises(ValueError, match=r"ends in \.html|there is no folder"):
        replay.write(tmp_path / name)
    with pytest.raises(ValueError, match="0 steps"):
        Replay(env.world, "", {}).write(tmp_path / "a.html")
    with pytest.raises(ValueError, match="world=1 is out of range"):
        Replay(env.world, "", {}, world=1)
    with pytest.raises(ValueError, match="world=None is out of range"):
        Replay(env.world, "", {}, world=None)
    for fps in (0, np.nan, np.inf, "a", None):
        with pytest.raises(ValueError, match=f"fps={fps} is out of range"):
            Replay(env.world, "", {}, fps)
    with pytest.raises(ValueError, match="at least one replay"):
        write_page(tmp_path / "a.html", [])
    assert not list(tmp_path.iterdir())


def test_a_field_larger_than_a_page_can_hold_is_refused():
    Replay(World(agents=8, height=11, width=1 << 16), "", {})
    for height, width in ((11, (1 << 16) + 1), (200_000, 11)):
        with pytest.raises(ValueError, match=rf"A field of {height} x {width} cells is too large for a replay"):
            Replay(World(agents=8, height=height, width=width), "", {})


@pytest.mark.parametrize("rewards", [np.zeros(4), np.zeros((5, 1)), np.full(5, np.nan), np.full(5, -np.inf)])
def test_rewards_that_are_not_one_number_for_each_agent_are_refused(rewards):
    env = ParticleGrid("forage", "discrete", agents=5, height=20, width=20)
    env.reset(0)
    with pytest.raises(ValueError, match=r"rewards .* are invalid: give a finite number for each agent"):
        Replay(env.world, "", {}).add(env.state, rewards, env.score())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(value):
    env = ParticleGrid("forage", "discrete", agents=5, height=20, width=20)
    env.reset(0)
    with pytest.raises(ValueError, match=r"score=\[.*\] is invalid: give a finite number for each team"):
        Replay(env.world, "", {}).add(env.state, env.rewards, np.array([value]))
    with pytest.raises(ValueError, match=r"references\['script'\]=\[.*\] is invalid: give a finite number"):
        Replay(env.world, "", {}, about=About(references={"script": [value]}))


def test_a_full_disk_keeps_the_old_page(tmp_path):
    env = ParticleGrid("forage", "discrete", agents=5, height=20, width=20)
    replay, *_ = record(env, 1)
    (tmp_path / "a.html").write_text("before")
    with no_file_beyond(1000), pytest.raises(OSError, match=r"could not be written \(File too large"):
        replay.write(tmp_path / "a.html")
    assert [(x.name, x.read_text()) for x in tmp_path.iterdir()] == [("a.html", "before")]

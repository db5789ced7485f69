"""The adapter for Gymnasium: the trajectories of ParticleGrid, with the guarantees of NEXT_STEP."""

import gc
import re
import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils import performance
from gymnasium.utils.passive_env_checker import check_action_space, check_observation_space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import vector as wrappers
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from particle_grid.adapters import environment_id, register_tasks
from particle_grid.adapters.gymnasium import ParticleGridVectorEnv
from particle_grid.learn.ppo import advantages
from particle_grid.sim import tasks
from particle_grid.sim.observation import decode
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError
from particle_grid.view.window import Window
from tests.cases import CASES, PARAMS, SMALL, random_actions, small

every_case = pytest.mark.parametrize(("task", "action"), CASES)
WORLD = World(**SMALL)
BRIEF = {"lifespan": 6.0, "max_episode_steps": 25}  # many lives end, some before their first step


def vector(task, action, **changes):
    """Make a small environment by its name, as users do."""
    settings = SMALL | PARAMS.get(task, {}) | changes
    num_envs = settings.pop("agents") * settings["worlds"]
    return gymnasium.make_vec(environment_id(task), num_envs=num_envs, action=action, **settings)


def side_by_side(task, action, steps, seed=3, **changes):
    """Play the same actions in the adapter and in ParticleGrid; yield (adapter's step, ParticleGrid's step)."""
    env, native = vector(task, action, **changes), small(task, action, **changes)
    observations, infos = env.reset(seed=seed)
    assert (observations == native.reset(seed)[0]).all()
    yield (observations, infos), None
    generator = np.random.default_rng(seed)
    for _ in range(steps):
        actions = random_actions(native, generator)
        yield env.step(actions), tuple(x.copy() for x in native.step(actions)[:4])


@every_case
def test_trajectories_equal_those_of_particle_grid(task, action):
    steps = side_by_side(task, action, 60)
    next(steps)
    for ours, native in steps:
        for k in range(3):  # the flags come one step earlier, as tested below
            assert ours[k].dtype == native[k].dtype
            assert (ours[k] == native[k]).all()


@every_case
def test_a_truncated_agent_gets_its_last_observation_and_then_its_next_first_one(task, action):
    steps = side_by_side(task, action, 100, **BRIEF)
    (last, infos), _ = next(steps)
    flagged = np.zeros(120, bool)
    due = infos["due"]
    jumps = []
    for (observations, rewards, terminations, truncations, infos), native in steps:
        assert (due == native[3]).all()  # exactly the agents that are due respawn in this step
        assert (rewards[due] == 0).all()
        assert not terminations.any()
        assert not truncations[flagged].any()  # a flag is followed by a step without one, as by Gymnasium's own resets
        assert (truncations == (infos["due"] & ~due)).all()
        first, before = (decode(x[flagged], WORLD) for x in (observations, last))
        assert not first.displacement.any()  # it has neither moved nor been rewarded: a first observation
        assert not first.reward.any()
        jumps.extend(np.abs(first.position - before.position).max(1))
        last, flagged = observations, truncations
        due = infos["due"]
    assert len(jumps) > 0.12 * 100 * 120
    assert np.mean(np.array(jumps) > 1.5) > 0.3  # the previous observation was elsewhere: at the end of the old life


@every_case
def test_flags_do_not_depend_on_the_actions(task, action):
    """Whether an agent is due is settled when its last observation is returned, before the next action."""
    one, two = small(task, action, **BRIEF), small(task, action, **BRIEF)
    one.reset(1)
    generator = np.random.default_rng(0)
    for _ in range(30):
        two.load_state_dict(one.state_dict())
        due = one.due()
        one.step(random_actions(one, generator))
        two.step(random_actions(two, generator))
        assert (due == one.truncations).all()
        assert (due == two.truncations).all()


def next_step_advantages(rewards, values, truncations, ignored, gamma, lam):
    """Return generalised advantages as a learner for NEXT_STEP computes them.

    Steps whose actions are ignored do not count, and an episode bootstraps from the value of the observation that came
    with its flag.
    """
    result, following = np.zeros_like(rewards), np.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * values[t + 1] - values[t]
        following = delta + gamma * lam * np.where(truncations[t], 0, following)
        result[t] = np.where(ignored[t], 0, following)
    return result


@every_case
def test_a_next_step_learner_bootstraps_like_the_trainer(task, action):
    steps = side_by_side(task, action, 40, **BRIEF)
    (first, infos), _ = next(steps)
    observations = [first]
    rewards = []
    flags = []
    ignored = [infos["due"]]
    own_flags = []
    for ours, native in steps:
        observations.append(ours[0])
        rewards.append(ours[1])
        flags.append(ours[3])
        ignored.append(ours[4]["due"])
        own_flags.append(native[3])
    values = np.sin(np.stack(observations).astype(np.float32) @ np.linspace(-1, 1, first.shape[1], dtype=np.float32))
    got = next_step_advantages(np.stack(rewards), values, np.stack(flags), np.stack(ignored[:-1]), 0.9, 0.8)
    given = [torch.from_numpy(np.stack(x)) for x in (rewards, values, np.zeros_like(own_flags), own_flags)]
    expected = advantages(*given, gamma=0.9, lam=0.8).numpy()
    assert np.abs(got - expected).max() < 1e-5
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("action", ["discrete", "continuous"])
@pytest.mark.parametrize("task", tasks.names())
def test_every_task_can_be_made_by_its_name_and_matches_its_spaces_and_metadata(task, action):
    env = vector(task, action)
    assert isinstance(env, VectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.num_envs == 120
    assert env.spec.id == environment_id(task)
    check_observation_space(env.single_observation_space)
    check_action_space(env.single_action_space)
    observations, _ = env.reset(seed=0)
    assert observations in env.observation_space
    actions = env.action_space.sample()
    assert actions in env.action_space
    assert env.step(actions)[0] in env.observation_space
    again = gymnasium.make_vec(env.spec)  # the spec suffices to make it again
    assert (again.reset(seed=5)[0] == env.reset(seed=5)[0]).all()


@pytest.mark.parametrize(
    "code",
    [
        "import particle_grid, gymnasium; gymnasium.spec('ParticleGrid/Group-v0')",
        "import gymnasium, particle_grid; gymnasium.spec('ParticleGrid/Group-v0')",
        "import gymnasium; gymnasium.make_vec('particle_grid:ParticleGrid/Group-v0', num_envs=3)",
    ],
)
def test_importing_the_package_registers_its_tasks_before_and_after_gymnasium(code):
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("task", tasks.names())
def test_making_a_single_agent_is_refused_in_a_sentence_that_names_make_vec(task):
    name = environment_id(task)
    sentence = (
        f"{name} holds many agents and is a vector environment itself: use gymnasium.make_vec('{name}', num_envs=...) "
        "without vectorization_mode."
    )
    modes = [partial(gymnasium.make_vec, vectorization_mode=mode, num_envs=2) for mode in ("sync", "async")]
    for make in (gymnasium.make, *modes):
        with pytest.raises(UserError) as caught:
            make(name, action="continuous")
        assert str(caught.value) == sentence
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("task", tasks.names())
def test_an_id_makes_its_own_task_and_refuses_every_other(task):
    other = "group" if task == "scatter" else "scatter"
    sentences = {
        other: f"task='{other}' is not the task of {environment_id(task)}: make {environment_id(other)}.",
        "mine:Mine": f"task='mine:Mine' is not the task of {environment_id(task)}: build ParticleGridVectorEnv",
        f"{task}z": f"There is no task '{task}z'. Did you mean {task}?",
    }
    for wrong, sentence in sentences.items():
        with pytest.raises(UserError, match=f"^{re.escape(sentence)}"):
            gymnasium.make_vec(environment_id(task), num_envs=50, task=wrong)
    small = {"height": 40, "width": 48} | PARAMS.get(task, {})
    env = gymnasium.make_vec(environment_id(task), num_envs=50, task=task, **small)
    assert env.unwrapped.native.task_name == task


@pytest.mark.parametrize("num_envs", [0, -1])
@pytest.mark.parametrize("others", [{}, {"worlds": 1}, {"agents": 0}])
def test_too_few_num_envs_are_refused_by_that_name(num_envs, others):
    with pytest.raises(UserError, match=f"num_envs={num_envs} is too small: it must be at least 1"):
        gymnasium.make_vec("ParticleGrid/Group-v0", num_envs=num_envs, **others)


def test_names_are_registered_once():
    before = dict(gymnasium.registry)
    register_tasks()
    assert gymnasium.registry == before
    assert environment_id("predator_prey") == "ParticleGrid/PredatorPrey-v0"
    assert {environment_id(task) for task in tasks.names()} <= before.keys()


def test_returned_arrays_are_copies_unless_buffers_are_requested():
    for copy in (True, False):
        env = vector("group", "continuous", **({} if copy else {"copy": False}))
        native = env.unwrapped.native
        first, _ = env.reset(seed=0)
        second, rewards, terminations, truncations, _ = env.step(env.action_space.sample())
        assert (first is second is native.observations) != copy
        assert (rewards is native.rewards) != copy
        assert (terminations is native.terminals) != copy
        assert truncations is not env.step(env.action_space.sample())[3]
        assert (first is not second) == copy


@pytest.mark.parametrize("task", tasks.names())
def test_num_envs_is_the_number_of_agents_and_remains_so_in_the_spec(task):
    make = partial(gymnasium.make_vec, environment_id(task), height=40, width=48, **PARAMS.get(task, {}))
    smallest = 1 if tasks.load(task).teams == 1 else 5  # neither of two teams may be empty
    for count in (smallest, 50):
        env = make(num_envs=count)
        assert env.num_envs == env.unwrapped.native.num_agents == count
        assert env.spec.kwargs.get("num_envs", 1) == count  # Gymnasium omits its default, which is 1
        again = gymnasium.make_vec(env.spec)
        assert again.num_envs == count
        assert again.spec == env.spec
    if smallest == 1:
        assert make().num_envs == 1


def test_worlds_share_num_envs_equally_and_contradictions_are_refused_in_a_sentence():
    make = partial(gymnasium.make_vec, "ParticleGrid/Group-v0", height=40, width=48)
    assert make(num_envs=90, worlds=3).unwrapped.native.world.agents == 30
    assert make(num_envs=90, worlds=3, agents=30).num_envs == 90
    assert ParticleGridVectorEnv(task="group", worlds=3, agents=30, height=40, width=48).num_envs == 90
    with pytest.raises(UserError, match="num_envs=100 agents cannot be shared out equally among worlds=3: pass a mult"):
        make(num_envs=100, worlds=3)
    for num_envs in (1, 100):
        with pytest.raises(UserError, match=f"num_envs={num_envs}, .* does not agree with .* pass num_envs=120 if"):
            make(num_envs=num_envs, worlds=2, agents=60)


def test_an_environment_that_cannot_be_built_fails_only_once(monkeypatch):
    later = []
    monkeypatch.setattr(sys, "unraisablehook", later.append)
    with pytest.raises(UserError, match="pass num_envs=256 if you want that many"):
        gymnasium.make_vec("ParticleGrid/Group-v0", agents=256)
    gc.collect()
    assert not later  # such as an error of the __del__ of Gymnasium 1.1, printed below the sentence


def test_episode_statistics_of_gymnasium_count_the_steps_of_each_episode():
    env = RecordEpisodeStatistics(vector("forage", "continuous", lifespan=6.0), buffer_length=10_000)
    returns = np.zeros(120)
    counted, lengths = np.zeros(120, int), []
    flagged = np.zeros(120, bool)
    env.reset(seed=0)
    for _ in range(40):
        _, rewards, _, truncations, infos = env.step(env.action_space.sample())
        counted = np.where(flagged, 0, counted + 1)
        returns = np.where(flagged, 0, returns + rewards)
        assert (infos["episode"]["l"][truncations] == counted[truncations]).all()
        assert infos["episode"]["r"][truncations] == pytest.approx(returns[truncations])
        lengths += counted[truncations].tolist()
        flagged = truncations
    assert list(env.length_queue) == lengths
    assert min(lengths) == 1
    assert 4 < np.mean(lengths) < 7


def test_info_lists_of_gymnasium_hold_the_reports():
    listed, reports = DictInfoToList(vector("forage", "discrete")), []
    listed.reset(seed=0)
    for _ in range(32):
        reports = listed.step(listed.action_space.sample())[4]
    assert len(reports) == 120
    assert reports[0]["score"] == reports[119]["score"]


class FakeClip:
    """A stand-in for MoviePy's clip, which keeps the frames that would become a video."""

    made: ClassVar[list["FakeClip"]] = []

    def __init__(self, frames, fps):
        self.frames = frames
        FakeClip.made.append(self)

    def write_videofile(self, path, logger):
        self.path = path


@pytest.mark.skipif(not hasattr(wrappers, "RecordVideo"), reason="needs Gymnasium 1.2")
@pytest.mark.parametrize("first_only", [True, False])
def test_videos_of_gymnasium_show_the_world(first_only, tmp_path, monkeypatch):
    for name in ("moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(ImageSequenceClip=FakeClip))
    monkeypatch.setattr(FakeClip, "made", [])
    env = gymnasium.make_vec("ParticleGrid/Group-v0", num_envs=4, height=20, width=24, render_mode="rgb_array")
    film = wrappers.RecordVideo(env, str(tmp_path / "film"), record_first_only=first_only, video_length=5)
    film.reset(seed=0)
    picture = env.render()[0]
    for _ in range(8):
        film.step(film.action_space.sample())
    film.close()
    [clip] = FakeClip.made
    assert len(clip.frames) > 5
    height, width = picture.shape[:2]
    assert (clip.frames[0][:height, :width] == picture).all()
    assert clip.frames[0].size == picture.size * (1 if first_only else 4)


@pytest.mark.skipif(not hasattr(performance, "benchmark_vector_step"), reason="needs Gymnasium 1.2")
def test_the_benchmark_of_gymnasium_runs():
    assert performance.benchmark_vector_step(vector("center", "discrete"), 0.2, seed=0) > 0


def test_a_single_agent_is_flagged_with_its_last_observation():
    """One agent shows the whole rule: a flag with the last observation, then one step that does not count."""
    env = vector("center", "continuous", worlds=1, agents=1, lifespan=0.0, max_episode_steps=4, walls=0.0)
    observations, infos = env.reset(seed=0)
    ahead = np.ones((1, 2), np.float32)
    flags, moved = [], []
    assert not infos["due"].any()
    for _ in range(12):
        observations, _, _, truncations, _ = env.step(ahead)
        flags.append(bool(truncations[0]))
        moved.append(bool(decode(observations, env.unwrapped.native.world).displacement.any()))
    assert flags == [False, False, True, False] * 3
    assert moved == [True, True, True, False] * 3


def test_rendering_shows_the_first_world_and_needs_a_mode():
    env = vector("group", "discrete", render_mode="rgb_array")
    env.reset(seed=0)
    picture, *others = env.render()
    assert len(others) == env.num_envs - 1
    assert all(other is picture for other in others)  # one for each agent, as wrappers expect
    assert picture.ndim == 3
    assert picture.dtype == np.uint8
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        env.step(env.action_space.sample())
    with pytest.raises(ValueError, match="There is nothing to render"):
        vector("group", "discrete").render()


@every_case
def test_the_human_mode_shows_the_world_in_each_reset_and_each_step(task, action, monkeypatch):
    pictures = []
    monkeypatch.setattr(Window, "show", lambda _, picture: pictures.append(picture))
    env = vector(task, action, render_mode="human")
    native = env.unwrapped.native
    env.reset(seed=0)
    assert (pictures.pop() == native.camera.look(native.state)).all()
    env.step(env.action_space.sample())
    assert (pictures.pop() == native.camera.look(native.state)).all()
    assert not pictures


def test_reset_accepts_numpy_seeds_and_refuses_invalid_arguments():
    env, twin = vector("group", "discrete"), vector("group", "discrete")
    assert np.array_equal(env.reset(seed=np.int64(5))[0], twin.reset(seed=5)[0])
    for seed in (-1, "a", True):
        with pytest.raises(ValueError, match=f"seed={seed!r} is not a seed"):
            env.reset(seed=seed)
    with pytest.raises(TypeError, match="options=5 are not a dict: give a dict"):
        env.reset(options=5)


def test_resetting_only_some_agents_is_refused():
    env = vector("group", "discrete")
    env.reset(seed=0, options={"anything": 1})
    with pytest.raises(ValueError, match="options\\['reset_mask'\\] is not supported"):
        env.reset(options={"reset_mask": np.ones(120, bool)})


@pytest.mark.parametrize(
    ("num_envs", "settings"), [("7", {}), (50, {"worlds": None}), (2.5, {}), (1.0, {}), (True, {})]
)
def test_invalid_numbers_of_environments_are_refused_in_a_sentence(num_envs, settings):
    with pytest.raises(TypeError, match="is not a whole number"):
        ParticleGridVectorEnv(num_envs, task="group", **settings)

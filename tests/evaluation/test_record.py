"""Films and pages of a policy at play."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from particle_grid.evaluation.baseline import Baseline
from particle_grid.evaluation.match import match
from particle_grid.evaluation.players import policy_player
from particle_grid.evaluation.record import Show, caption, record, record_learning, stage
from particle_grid.learn.policy import make_policy
from particle_grid.runs.results import Results
from tests.cases import CASES, small

QUIET = Console(quiet=True)


def untrained(env):
    return make_policy("mlp", env.vision, env.single_action_space, hidden=8)


def runs_of(page):
    """Return the runs that a page contains."""
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"))
    return json.loads(text[1])["recordings"]


@pytest.mark.parametrize(("task", "action"), CASES)
def test_a_page_shows_the_scores_of_the_world_that_it_shows(task, action, tmp_path):
    env = small(task, action, worlds=3)
    policy = untrained(env)
    record(env, policy, QUIET, Show(steps=5, world=1), replay=tmp_path / "a.html", baseline=None)
    [run] = runs_of(tmp_path / "a.html")
    shown = np.arange(env.num_agents) // env.world.agents == 1
    scores = []

    def watch():
        each = env.task.score(env.state, env.layout)
        scores.append([each[env.team(k) & shown].mean() for k in range(env.task.teams)])

    match(env, [policy_player(policy)], 0, 5, watch)
    assert np.allclose(run["scores"], scores, atol=1e-4)
    assert run["purpose"]
    assert run["unit"] == env.unit
    assert len(run["teams"]) == (env.task.teams if env.task.teams > 1 else 0)


def test_a_page_has_the_lines_of_its_baseline_for_each_team(tmp_path):
    env = small("herd", "discrete")
    baseline = Baseline([[0.0, 2.0], [1.0, 4.0]], [[5.0, 6.0], [5.0, 8.0]])
    record(env, untrained(env), QUIET, Show(steps=1), replay=tmp_path / "a.html", baseline=baseline)
    [run] = runs_of(tmp_path / "a.html")
    assert run["references"] == {"random": [0.5, 3.0], "script": [5.0, 7.0]}


@pytest.mark.parametrize(("task", "action"), CASES)
def test_a_film_of_learning_shows_one_calm_world_as_dense_as_in_training(task, action):
    env = small(task, action)
    shown = stage(env)
    assert (shown.task, shown.discrete) == (env.task, env.discrete)
    assert (shown.world.worlds, shown.world.lifespan, shown.world.max_episode_steps) == (1, 0, 0)
    assert shown.num_agents == env.world.agents


def test_a_large_world_becomes_a_stage_of_the_same_density_unless_its_task_needs_its_size():
    world = stage(small("group", "discrete", agents=4096, height=512, width=512)).world
    assert (world.agents, world.height, world.width) == (144, 96, 96)
    narrow = small("puffer", "discrete", agents=40, height=60, width=200, text=18 * "P")
    assert stage(narrow).world.width == 200


def test_a_film_of_learning_shows_both_policies_from_the_same_start_on_whole_pixels(tmp_path):
    env = small("herd", "continuous")
    path = tmp_path / "a.gif"
    show = Show(steps=6, every=2, pixels=192, legend=False)
    record_learning(env, untrained(env), untrained(env), path, "after 5 steps", show)
    with Image.open(path) as film:
        assert film.n_frames == 3
        frame = np.asarray(film.convert("RGB"))
    zoom = 192 // env.world.width
    width = zoom * env.world.width
    assert frame.shape[1] >= 2 * width
    agents = (frame > 150).any(-1)
    rows = np.flatnonzero(np.diff(agents[:, 20 : 10 + width].astype(int), axis=0).any(1))
    assert len(rows) > 3
    assert path.stat().st_size < 1.5e6


def test_the_words_of_a_film_tell_the_score_of_each_team():
    scores = {"random": np.array([[0.0, 1.0]]), "scripted": np.array([[2.0, 3.0]]), "sampled": np.array([[2.5, 2.0]])}
    assert caption(10_000_000, Results(scores, {})) == "after 10.0M steps: score 1.25 / 0.50 (0: random, 1: script)"
    assert caption(2048, Results()) == "after 2,048 steps"


@pytest.mark.parametrize("name", ["steps", "every"])
def test_a_show_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"show.{name}=0 is out of range: give a whole number, 1 or more"):
        Show(**{name: 0}).camera(small("center", "discrete"))

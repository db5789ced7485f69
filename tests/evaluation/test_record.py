"""Films and pages of a policy at play."""

import json
import re

import numpy as np
import pytest
from rich.console import Console

from particle_grid.evaluation.baseline import Baseline
from particle_grid.evaluation.match import match
from particle_grid.evaluation.players import policy_player
from particle_grid.evaluation.record import Show, record
from particle_grid.learn.policy import make_policy
from tests.cases import CASES, small

QUIET = Console(quiet=True)


def untrained(env):
    return make_policy("mlp", env.vision, env.single_action_space, hidden=8)


def runs_of(page):
    """Return the runs that a page contains."""
    text = re.search(r"^const runs = (.*);  // ", page.read_text("utf-8"), re.MULTILINE)
    return json.loads(text[1])


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
    assert run["score_unit"] == env.unit
    assert len(run["teams"]) == (env.task.teams if env.task.teams > 1 else 0)


def test_a_page_has_the_lines_of_its_baseline_for_each_team(tmp_path):
    env = small("herd", "discrete")
    baseline = Baseline([[0.0, 2.0], [1.0, 4.0]], [[5.0, 6.0], [5.0, 8.0]])
    record(env, untrained(env), QUIET, Show(steps=1), replay=tmp_path / "a.html", baseline=baseline)
    [run] = runs_of(tmp_path / "a.html")
    assert run["references"] == {"random": [0.5, 3.0], "script": [5.0, 7.0]}

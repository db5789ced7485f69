"""The policies that ship with the package."""

import re

import pytest
import torch

from particle_grid import UserError, load_policy, play
from particle_grid import eval as evaluation
from particle_grid.evaluation import baseline, match
from particle_grid.evaluation.players import policy_player
from particle_grid.runs.build import build_env, build_policy
from particle_grid.runs.load import load_shipped, shipped_path
from tests.cases import CASES

every_case = pytest.mark.parametrize(("task", "action"), CASES)


@every_case
def test_there_is_a_shipped_policy_for_every_task_and_action_form(task, action):
    saved = load_shipped(task, action)
    assert (saved.config.task, saved.config.action) == (task, action)
    build_policy(saved.config, saved.weights)
    assert all(x.dtype == torch.float32 for x in saved.weights.values())
    assert shipped_path(task, action).stat().st_size < 400_000


@pytest.mark.release
@every_case
def test_a_shipped_policy_scores_what_it_reports(task, action):
    saved = load_shipped(task, action)
    env = build_env(saved.config)
    policy = build_policy(saved.config, saved.weights)
    score = baseline.stored(env).normalise(match.evaluate(env, policy_player(policy)))
    error = 2.5 * score.std(ddof=1)  # three standard errors of the difference between two means of three seeds
    assert score.mean() == pytest.approx(saved.score, abs=max(0.05, error))


def test_eval_finds_a_shipped_policy_by_name(invoke):
    arguments = ["task=center", "action=continuous", "seeds=1", "steps=4", "world.agents=64"]
    code, out, err = invoke(evaluation.main, "checkpoint=pretrained", *arguments)
    assert (code, err) == (0, "")
    assert "center, continuous" in out


@every_case
def test_an_action_form_that_a_policy_does_not_have_is_refused(task, action, invoke):
    name, other = f"pretrained/{task}-{action}", "discrete" if action == "continuous" else "continuous"
    for path in (name, str(shipped_path(task, action))):
        sentence = f"{path} has {action} actions, not action={other}: leave action out, or choose another policy."
        for command in (evaluation, play):
            assert invoke(command.main, f"checkpoint={path}", f"action={other}") == (1, "", f"error: {sentence}\n")
        with pytest.raises(UserError, match=re.escape(sentence)):
            load_policy(path, action=other)
    assert load_policy(name, action=action).config.action == action


def test_the_task_parameters_of_a_shipped_policy_can_be_set(invoke):
    code, _, err = invoke(evaluation.main, "checkpoint=pretrained", "task=group", "task.colours=7")
    assert code == 1
    assert "colours=7 is out of range" in err


def test_an_unknown_action_form_is_refused(invoke):
    code, _, err = invoke(evaluation.main, "checkpoint=pretrained", "task=center", "action=jump")
    assert code == 1
    assert "There is no action 'jump'. There are: continuous, discrete." in err

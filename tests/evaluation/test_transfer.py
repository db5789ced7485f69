"""Tables of checkpoints x tasks."""

import csv
import shutil
from pathlib import Path

import pytest

from particle_grid import eval as evaluation
from particle_grid.evaluation import results, scores
from particle_grid.runs import pretrained
from particle_grid.runs.build import build_env, build_policy, policy_player
from particle_grid.sim import tasks
from tests.cases import small

SMALL = ["world.worlds=1", "world.agents=40", "world.height=40", "world.width=40", "world.lifespan=20", "steps=8"]
SIZES = {"worlds": 1, "agents": 40, "height": 40, "width": 40, "lifespan": 20}


def test_each_checkpoint_is_scored_on_each_task_as_if_alone(invoke, monkeypatch):
    measured, measure = [], scores.measure
    monkeypatch.setattr(scores, "measure", lambda env, *args: (measured.append(env.task_name), measure(env, *args))[1])
    arguments = ["tasks=[center,predator_prey]", "seeds=2", "table=out.csv", *SMALL]
    code, out, err = invoke(evaluation.main, "checkpoint=pretrained", *arguments)
    assert (code, err) == (0, "")
    assert sorted(measured) == ["center", "center", "predator_prey", "predator_prey"]  # once for each action form
    with Path("out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 2
    saved = pretrained.load("center", "continuous")
    env = build_env(saved["config"] | {"task": {"name": "predator_prey"}, "world": saved["config"]["world"] | SIZES})
    policy = build_policy(saved["config"], env)
    policy.load_state_dict(saved["policy"])
    alone = measure(env, (1000, 1001), 8).normalise(scores.evaluate(env, policy_player(policy), (1000, 1001), 8))
    there = [
        float(row["normalised_score"])
        for row in rows
        if (row["checkpoint"], row["task"]) == ("pretrained center continuous", "predator_prey")
    ]
    assert there == pytest.approx(alone)
    assert f"{alone.mean():.2f}" in out


def test_a_run_is_called_what_its_folder_is_whatever_a_terminal_s_markup_looks_like(invoke):
    Path("[b]one").mkdir()
    shutil.copy(pretrained.path_of("center", "discrete"), "[b]one/checkpoint.pt")
    code, out, _ = invoke(evaluation.main, "checkpoint=*/checkpoint.pt", "tasks=[center]", "seeds=1", *SMALL)
    assert code == 0
    assert out.count("[b]one") == 2  # as it is played, and in the table


def test_a_file_that_there_is_is_no_pattern_whatever_its_name(invoke):
    Path("[b]one").mkdir()
    shutil.copy(pretrained.path_of("center", "discrete"), "[b]one/checkpoint.pt")
    for tasks_ in ([], ["tasks=[center]"]):
        code, out, err = invoke(evaluation.main, "checkpoint='[b]one/checkpoint.pt'", "seeds=1", *tasks_, *SMALL)
        assert code == 0, err
        assert "policy, sampled" in out or "[b]one on center" in out


@pytest.mark.parametrize(
    ("lifespan", "max_episode_steps", "steps"),
    [(1, 0, 256), (300, 100, 512), (1e9, 0, 4096), (0, 100, 256), (0, 600, 768), (0, 9999, 4096), (0, 0, 4096)],
)
def test_an_evaluation_is_the_longer_the_longer_agents_live(lifespan, max_episode_steps, steps):
    assert (
        scores.steps_for(small("center", "discrete", lifespan=lifespan, max_episode_steps=max_episode_steps)) == steps
    )


def test_tasks_are_those_of_the_checkpoints_if_none_are_named(invoke):
    path = pretrained.path_of("scatter", "discrete")
    code, out, _ = invoke(evaluation.main, f"checkpoint=[{path}]", "seeds=1", *SMALL)
    assert code == 0
    assert "scatter-discrete on scatter" in out
    assert len(tasks.names()) > 1
    assert not any(f"on {task}" in out for task in tasks.names() if task != "scatter")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tasks=[grup]"], "There is no task 'grup'. Did you mean group?"),
        (["tasks=7"], "There is no task '7'"),
        (["tasks=all", "task=group"], "task= is for one checkpoint on one task"),
        (["tasks=all", "video=x.gif"], "video= is for one checkpoint on one task"),
        (["tasks=all", "table=none/x.csv"], "there is no folder none"),
        (["tasks=all", "checkpoint=none-*.pt"], "none-*.pt matches no file"),
        (["checkpoint=5"], "checkpoints=5 cannot be: give a list of paths"),
        (["checkpoint=[]"], "checkpoints=[] cannot be: give a list of paths"),
        (["checkpoint=[1,pretrained]"], "checkpoints=[1, 'pretrained'] cannot be: give a list of paths"),
        (["table=x.csv"], "table=x.csv is for a table: name tasks too"),
    ],
)
def test_what_no_table_can_be_made_of_is_refused_in_a_sentence(invoke, monkeypatch, arguments, message):
    monkeypatch.setattr(results, "baseline_for", None)  # before anything is measured
    code, _, err = invoke(evaluation.main, "checkpoint=pretrained", *arguments)
    assert code == 1
    assert message in err

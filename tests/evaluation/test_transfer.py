"""Tables that score several checkpoints on several tasks."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from particle_grid import eval as evaluation
from particle_grid.evaluation import baseline, match
from particle_grid.evaluation.players import policy_player
from particle_grid.runs.build import build_env, build_policy
from particle_grid.runs.load import load_shipped, shipped_path
from particle_grid.sim import tasks

SMALL = ["world.worlds=1", "world.agents=40", "world.height=40", "world.width=40", "world.lifespan=20", "steps=8"]
SIZES = {"worlds": 1, "agents": 40, "height": 40, "width": 40, "lifespan": 20}


def test_each_checkpoint_gets_the_same_score_on_a_task_as_by_itself(invoke, monkeypatch):
    measured, measure = [], baseline.measure
    monkeypatch.setattr(
        baseline, "measure", lambda env, *args: (measured.append(env.task_name), measure(env, *args))[1]
    )
    arguments = ["tasks=[center,predator_prey]", "seeds=2", "table=out.csv", *SMALL]
    code, out, err = invoke(evaluation.main, "checkpoint=pretrained", *arguments)
    assert (code, err) == (0, "")
    assert sorted(measured) == ["center", "center", "predator_prey", "predator_prey"]  # once for each action form
    with Path("out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 2
    saved = load_shipped("center", "continuous")
    world = replace(saved.config.world, **SIZES)
    env = build_env(replace(saved.config, task="predator_prey", world=world))
    policy = build_policy(saved.config, saved.weights)
    alone = measure(env, (1000, 1001), 8).normalise(match.evaluate(env, policy_player(policy), (1000, 1001), 8))
    there = [
        float(row["normalised_score"])
        for row in rows
        if (row["checkpoint"], row["task"]) == ("pretrained center continuous", "predator_prey")
    ]
    assert there == pytest.approx(alone)
    assert f"{alone.mean():.2f}" in out


def test_a_run_is_named_after_its_folder_even_if_the_name_looks_like_markup(invoke):
    Path("[b]one").mkdir()
    shutil.copy(shipped_path("center", "discrete"), "[b]one/checkpoint.pt")
    code, out, _ = invoke(evaluation.main, "checkpoint=*/checkpoint.pt", "tasks=[center]", "seeds=1", *SMALL)
    assert code == 0
    assert out.count("[b]one") == 2  # in the progress lines and in the table


def test_the_name_of_an_existing_file_is_never_a_pattern(invoke):
    Path("[b]one").mkdir()
    shutil.copy(shipped_path("center", "discrete"), "[b]one/checkpoint.pt")
    for tasks_ in ([], ["tasks=[center]"]):
        code, out, err = invoke(evaluation.main, "checkpoint='[b]one/checkpoint.pt'", "seeds=1", *tasks_, *SMALL)
        assert code == 0, err
        assert "policy, sampled" in out or "[b]one on center" in out


def test_the_tasks_default_to_those_of_the_checkpoints(invoke):
    path = shipped_path("scatter", "discrete")
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
        (["tasks=all", "action=discrete"], "action= is for one checkpoint on one task"),
        (["tasks=all", "video=x.gif"], "video= is for one checkpoint on one task"),
        (["tasks=all", "table=none/x.csv"], "there is no folder none"),
        (["tasks=all", "checkpoint=none-*.pt"], "none-*.pt matches no file"),
        (["checkpoint=5"], "checkpoints=5 is invalid: give a list of paths"),
        (["checkpoint=[]"], "checkpoints=[] is invalid: give a list of paths"),
        (["checkpoint=[1,pretrained]"], "checkpoints=[1, 'pretrained'] is invalid: give a list of paths"),
        (["checkpoint="], "checkpoint= is empty: give the path of a checkpoint, or pretrained"),
        (["table=x.csv"], "table=x.csv needs several tasks: name them"),
    ],
)
def test_an_impossible_table_is_refused_in_a_sentence(invoke, monkeypatch, arguments, message):
    monkeypatch.setattr(baseline, "baseline_for", None)  # must not be called before the refusal
    code, _, err = invoke(evaluation.main, "checkpoint=pretrained", *arguments)
    assert code == 1
    assert message in err

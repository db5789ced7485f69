"""What each change in a chain of arms costs, and whether variants change the gaps between arms."""

from dataclasses import replace

import numpy as np
import pytest

from particle_grid.experiments import stats
from particle_grid.experiments.study.comparisons import chain_rows, gap_rows
from particle_grid.experiments.study.plan import find_plan, read_plan
from particle_grid.experiments.study.scores import StudyResults
from particle_grid.experiments.study.summary import summary_rows

ARMS = ("discrete", "snapped", "gaussian")
CHAINS = {"there": list(ARMS), "back": list(reversed(ARMS))}


def results(scores, steps):
    """Return the results of a study with a chain of three arms.

    Args:
        scores, steps: final scores and steps to the threshold, f64[arms, tasks, seeds].
    """
    smoke = read_plan(find_plan("smoke"))
    arms = {arm: smoke.arms["gaussian"] for arm in ARMS}
    plan = replace(smoke, arms=arms, chains=CHAINS, variants={"only": []}, seeds=list(range(scores.shape[-1])))
    rows = [
        {"phase": "test", "variant": "only", "arm": arm, "task": task, "seed": seed, "steps": 1000, "greedy": 0.0}
        | {"sampled": scores[a, t, seed], "steps_to_0.5": steps[a, t, seed]}
        for a, arm in enumerate(ARMS)
        for t, task in enumerate(plan.tasks)
        for seed in plan.seeds
    ]
    return StudyResults(plan, dict.fromkeys(ARMS, 0), rows, {}, {})


def test_changes_add_up_along_a_chain_and_are_opposite_on_the_way_back():
    generator = np.random.default_rng(0)
    scores, steps = generator.normal(size=(3, 2, 9)), generator.uniform(100, 900, (3, 2, 9))
    rows = chain_rows(results(scores, steps))
    assert len(rows) == 2 * 2 * 3
    found = {(row["before"], row["after"], row["task"]): row for row in rows}
    middle = np.sort(scores, -1)[..., 3:6].sum(-1) + 0.75 * np.sort(scores, -1)[..., [2, 6]].sum(-1)
    levels = dict(zip(ARMS, middle / 4.5, strict=True))  # the middle half of nine runs, by task
    for (before, after, task), row in found.items():
        part = {"all": [0, 1], "center": [0], "forage": [1]}[task]
        assert row["difference"] == pytest.approx((levels[after] - levels[before])[part].mean())
        assert row["difference_low"] < row["difference"] < row["difference_high"]
        assert 0 < row["p"] <= row["p_holm"] <= 1
        assert row["difference"] == pytest.approx(-found[after, before, task]["difference"])
        assert row["ratio_0.5"] == pytest.approx(1 / found[after, before, task]["ratio_0.5"])


def test_a_change_after_which_fewer_runs_reach_the_threshold_needs_more_steps():
    scores = np.zeros((3, 2, 5))
    steps = np.full((3, 2, 5), 500.0)
    steps[1, :, :2] = np.inf  # of the arm in the middle; their last step is 1000
    found = {(row["before"], row["after"], row["task"]): row["ratio_0.5"] for row in chain_rows(results(scores, steps))}
    assert found["discrete", "snapped", "all"] == pytest.approx((2 * 1000 + 3 * 500) / (5 * 500))
    assert found["snapped", "gaussian", "forage"] == pytest.approx(5 * 500 / (2 * 1000 + 3 * 500))
    steps[:] = np.inf
    assert all(np.isnan(row["ratio_0.5"]) for row in chain_rows(results(scores, steps)))


def test_the_change_of_a_gap_is_that_of_the_difference_to_the_reference():
    smoke = read_plan(find_plan("smoke"))
    plan = replace(smoke, seeds=list(range(20)))
    generator = np.random.default_rng(0)
    gaps = {("kinematic", "center"): -0.1, ("kinematic", "forage"): -0.2}
    gaps |= {("inertial", "center"): -0.5, ("inertial", "forage"): -0.2}
    rows = [
        {"phase": "test", "variant": variant, "arm": arm, "task": task, "seed": seed}
        | {"sampled": 1 + gap * (arm == "gaussian") + generator.normal(0, 0.01)}
        for (variant, task), gap in gaps.items()
        for arm in plan.arms
        for seed in plan.seeds
    ]
    results = StudyResults(plan, dict.fromkeys(plan.arms, 0), rows, {}, {})
    assert gap_rows(replace(results, rows=[row for row in rows if row["variant"] == "inertial"])) == []
    found = {row["task"]: row for row in gap_rows(results)}
    assert {(row["variant"], row["first"], row["arm"]) for row in found.values()} == {
        ("inertial", "kinematic", "gaussian")
    }
    for task, gap, change in (("center", -0.5, -0.4), ("forage", -0.2, 0.0), ("all", -0.35, -0.2)):
        assert found[task]["gap"] == pytest.approx(gap, abs=0.01)
        assert found[task]["change"] == pytest.approx(change, abs=0.015)
        assert found[task]["change_low"] < found[task]["change"] < found[task]["change_high"]
    assert found["center"]["change_high"] < -0.3
    assert found["forage"]["change_low"] < 0 < found["forage"]["change_high"]


def test_p_values_are_corrected_for_all_arms_and_tasks_but_not_for_the_null_control(monkeypatch):
    monkeypatch.setattr(StudyResults, "scores_at_kl", StudyResults.matrix)
    scores = np.random.default_rng(0).normal([[[0.0]], [[0.0]], [[0.5]]], 0.5, (3, 2, 9))
    scores[1] = scores[0]  # the null control
    found = results(scores, np.full((3, 2, 9), 500.0))
    found = replace(found, plan=replace(found.plan, arms=found.plan.arms | {"beta": found.plan.arms["gaussian"]}))
    copies = [row | {"arm": "beta", "sampled": 0.7 * row["sampled"]} for row in found.rows if row["arm"] == "gaussian"]
    plan = replace(found.plan, null_control="snapped")
    rows = summary_rows(replace(found, plan=plan, rows=[*found.rows, *copies], chosen=dict.fromkeys(plan.arms, 0)))
    for tasks in (["all"], ["center", "forage"]):
        family = [row for row in rows if row["task"] in tasks and row["arm"] in ("gaussian", "beta")]
        assert len(family) == 2 * len(tasks)
        assert [row["p_holm"] for row in family] == stats.holm([row["p"] for row in family])
        assert all(0 < row["p"] < 1 for row in family)
    assert {row["p_holm"] for row in rows if row["arm"] in ("discrete", "snapped")} == {1.0}

"""The scores of a study are normalised alike for all arms and compared over complete seeds."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from particle_grid.evaluation.baseline import Baseline
from particle_grid.experiments.pool import Job
from particle_grid.experiments.study import scores as study_scores
from particle_grid.experiments.study.first_actions import first_actions
from particle_grid.experiments.study.plan import TEST, RunKey, find_plan, read_plan
from particle_grid.experiments.study.scores import (
    StudyResults,
    collect,
    final_score,
    learning_curve,
    smoothed,
    steps_to,
)
from particle_grid.experiments.study.summary import step_columns, summary_rows
from particle_grid.experiments.study.tables import share_text, steps_text
from particle_grid.runs.curves import read_scalars
from particle_grid.runs.folder import RunFolder
from tests.experiments.fakes import UNIT, write_curve, write_results


def plan(name="smoke"):
    return read_plan(find_plan(name))


def test_all_arms_are_normalised_alike_regardless_of_their_own_scripts(tmp_path):
    reference = Baseline([[1.0], [3.0]], [[10.0], [14.0]])  # means: from 2 to 12
    found = []
    for name, (random, scripted) in {"discrete": (0.0, 8.0), "gaussian": (2.0, 12.0)}.items():
        folder = RunFolder(tmp_path / name)
        write_curve(folder, [(score - random) / (scripted - random) for score in (2.0, 3.0, 4.0, 5.0)])
        write_results(folder, normalised=9.9, sampled=7.0, greedy=2.0, random=random, scripted=scripted)
        results = folder.read_results()
        assert final_score(reference, folder, results) == pytest.approx(0.5)
        assert final_score(reference, folder, results, "greedy") == pytest.approx(0.0)
        found.append(learning_curve(reference, read_scalars(folder), folder, results).values)
    np.testing.assert_allclose(found, [[0.0, 0.1, 0.2, 0.3]] * 2, atol=1e-6)


def test_all_arms_of_a_plan_start_with_actions_of_the_same_size():
    reduced = plan("reduced")
    found = first_actions(reduced, dict.fromkeys(reduced.arms, 0))
    assert set(found) == set(reduced.arms)
    for arm in reduced.arms:
        assert found[arm]["rms"] == pytest.approx(0.5, abs=0.01)
        assert 0 < found[arm]["entropy"] <= np.log(9)
    assert found["discrete"]["entropy"] == pytest.approx(found["snapped"]["entropy"], abs=0.02)


def test_reference_scores_are_measured_once_for_each_task_and_variant(tmp_path, monkeypatch):
    measured = []

    def measure(env, seeds, steps):
        measured.append((env.task_name, env.discrete, env.world.dynamics))
        return Baseline([[0.0]], [[float(len(measured))]])

    monkeypatch.setattr(study_scores.baseline, "measure", measure)
    first = study_scores.measure_reference_scores(plan(), tmp_path)
    assert study_scores.measure_reference_scores(plan(), tmp_path) == first
    dynamics = ("kinematic", "inertial")
    assert measured == [(task, False, each) for each in dynamics for task in ("center", "forage")]


def test_reference_scores_of_earlier_versions_are_read_and_completed(tmp_path, monkeypatch):
    smoke = plan()
    old = {}
    for variant in smoke.variants:
        overrides = list(smoke.overrides(variant, "gaussian", "center", 0, smoke.trials("gaussian")[0]))
        overrides = [
            each.replace("init_action_rms", "first_move").replace("rollout_length", "horizon") for each in overrides
        ]
        old[f"{variant}/center"] = {"overrides": overrides, "random": [[0.0]], "scripted": [[7.0]]}
    (tmp_path / "scales.json").write_text(json.dumps(old))
    monkeypatch.setattr(study_scores.baseline, "measure", lambda env, seeds, steps: UNIT)
    found = study_scores.measure_reference_scores(smoke, tmp_path)
    assert found["kinematic", "center"].scripted == [[7.0]]
    assert found["kinematic", "forage"] == UNIT
    assert json.loads((tmp_path / "scales.json").read_text()) == old
    new = json.loads((tmp_path / "reference_scores.json").read_text())
    assert set(new) == {f"{variant}/{task}" for variant in smoke.variants for task in smoke.tasks}
    (tmp_path / "reference_scores.json").unlink()
    (tmp_path / "scales.json").write_text(json.dumps(new))
    assert study_scores.measure_reference_scores(smoke, tmp_path) == found
    assert [path.name for path in tmp_path.iterdir()] == ["scales.json"]  # nothing was measured


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=30), st.floats(0, 1))
def test_steps_to_a_threshold_agree_with_the_plain_definition(scores, threshold):
    steps = 10 * np.arange(1, len(scores) + 1)
    expected = float("inf")
    for k in range(study_scores.SMOOTH, len(scores) + 1):
        mean = np.mean(scores[k - study_scores.SMOOTH : k])
        if abs(mean - threshold) < 1e-9:
            return  # rounding decides
        if mean >= threshold:
            expected = 10 * k
            break
    assert steps_to(threshold, steps, np.array(scores)) == expected


def test_a_run_without_scores_never_reaches_a_threshold():
    assert steps_to(0.5, np.arange(9), np.full(9, np.nan)) == float("inf")


def test_only_seeds_with_a_run_of_every_arm_and_task_are_compared():
    smoke = plan()
    rows = [
        {"phase": "test", "variant": "kinematic", "arm": arm, "task": task, "seed": seed, "sampled": seed + 0.5}
        for arm in smoke.arms
        for task in smoke.tasks
        for seed in smoke.seeds
        if (arm, task, seed) != ("gaussian", "forage", 0)
    ]
    results = StudyResults(smoke, dict.fromkeys(smoke.arms, 0), rows, {}, {})
    assert results.matrix("kinematic", "discrete").tolist() == [[1.5], [1.5]]


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=30))
def test_smoothed_scores_are_means_of_the_last_iterations(scores):
    expected = [np.mean(scores[max(0, k - study_scores.SMOOTH) : k]) for k in range(1, len(scores) + 1)]
    np.testing.assert_allclose(smoothed(np.array(scores)), expected, atol=1e-9)


def test_relative_thresholds_are_shares_of_where_the_reference_ends(tmp_path):
    relative = replace(plan(), thresholds=[0.48], relative_thresholds=True)
    results = finished(tmp_path, {"discrete": 0.1, "gaussian": 0.1}, relative)
    for variant in relative.variants:
        assert results.threshold_unit(variant, "center") == pytest.approx(0.98, abs=1e-5)  # the last five: 0.96 to 1
    assert {row["steps_to_0.48"] for row in results.rows} == {5000.0}  # the mean of 0.46 to 0.50 is above 0.4704
    assert replace(results, plan=plan()).threshold_unit("kinematic", "center") == 1


@pytest.mark.parametrize("end", [0.1, -1.0, None])
def test_there_is_no_threshold_relative_to_a_reference_that_learned_nothing_or_is_not_there(tmp_path, end):
    relative = replace(plan(), relative_thresholds=True)
    results = finished(tmp_path, {"discrete": 0.1, "gaussian": 0.1}, relative)
    curves = {key: replace(curve, values=curve.values * (end or 1)) for key, curve in results.curves.items()}
    rows = results.rows if end else [row for row in results.rows if row["arm"] == "gaussian"]
    without = replace(results, curves=curves, rows=rows)
    assert np.isnan(without.threshold_unit("kinematic", "center"))
    assert np.isnan(steps_to(float("nan"), np.arange(9), np.arange(9.0)))


def finished(tmp_path, kl, study=None):
    """Return the results of a study whose arms have the same curves, and move by `kl` nats in each iteration."""
    smoke = study or plan()
    jobs = {}
    for variant in smoke.variants:
        for arm in smoke.arms:
            for task in smoke.tasks:
                for seed in smoke.seeds:
                    folder = RunFolder(tmp_path / variant / arm / f"{task}-{seed}")
                    write_curve(folder, [k / 100 for k in range(1, 101)], kl[arm])
                    write_results(folder, sampled=1.0, greedy=1.25, random=0.0, scripted=1.0)
                    folder.write_overrides(["trainer.threads=1"])
                    jobs[RunKey(TEST, variant, arm, 0, task, seed)] = Job(folder, ())
    units = dict.fromkeys([(variant, task) for variant in smoke.variants for task in smoke.tasks], UNIT)
    return collect(smoke, dict.fromkeys(smoke.arms, 0), units, jobs)


def test_scores_are_compared_at_the_divergence_that_every_run_reaches(tmp_path):
    results = finished(tmp_path, {"discrete": 0.1, "gaussian": 0.2})
    np.testing.assert_allclose(results.equal_kl("kinematic"), [10.0, 10.0], rtol=1e-5)
    np.testing.assert_allclose(results.scores_at_kl("kinematic", "discrete"), 0.98, atol=1e-4)  # of the last five
    np.testing.assert_allclose(results.scores_at_kl("kinematic", "gaussian"), 0.48, atol=1e-4)
    for row in summary_rows(results):
        assert row["greedy_minus_sampled"] == pytest.approx(0.25)
        assert row["score_at_equal_kl"] == pytest.approx(0.98 if row["arm"] == "discrete" else 0.48, abs=1e-4)


def test_runs_that_did_not_log_their_divergence_have_no_score_at_it(tmp_path):
    results = finished(tmp_path, {"discrete": 0.1, "gaussian": None})
    assert all(np.isnan(row["score_at_equal_kl"]) for row in summary_rows(results))


def columns_of(steps, budget=1000.0):
    """Return what `step_columns` reads of an arm with these steps to a threshold."""
    steps = np.array([steps])
    return {"steps_to_0.5": steps, "steps": np.full(steps.shape, budget)}


def test_a_run_that_never_reaches_a_threshold_is_censored_and_shows_no_equivalence():
    reference = columns_of([500.0, 501, 502, 503, 504])
    same = step_columns(0.5, columns_of([500.0, 501, 502, 503, 505]), reference)
    assert same["same_steps_0.5"] is True
    assert same["ratio_0.5"] == pytest.approx(1, abs=0.001)
    censored = step_columns(0.5, columns_of([500.0, 501, 502, 503, np.inf]), reference)
    assert censored["same_steps_0.5"] is False
    assert censored["reached_0.5"] == 0.8
    assert censored["ratio_0.5"] == pytest.approx((500 + 501 + 502 + 503 + 1000) / 2510)
    slower = step_columns(0.5, columns_of([700.0, 701, 702, 703, 705]), reference)
    assert slower["same_steps_0.5"] is False
    few = step_columns(0.5, columns_of([500.0, 501]), columns_of([500.0, 501]))
    assert few["same_steps_0.5"] is False
    assert np.isnan(few["ratio_0.5_low"])


def test_a_threshold_that_does_not_exist_has_no_steps_no_share_and_no_ratio():
    nothing = columns_of([np.nan] * 5)
    found = step_columns(0.5, nothing, nothing)
    assert np.isnan([found["steps_to_0.5"], found["reached_0.5"], found["ratio_0.5"]]).all()
    assert found["same_steps_0.5"] is False
    assert steps_text(found, 0.5) == share_text(found["reached_0.5"]) == "unknown"
    row = step_columns(0.5, columns_of([400.0, 500.0, np.inf, np.inf, 300.0]), columns_of([1.0] * 5))
    assert (steps_text(row, 0.5), share_text(row["reached_0.5"])) == ("0.00M (60%)", "60%")


NEAREST = (
    "confirm",
    "ladder",
    "lattice",
    "learner",
)  # plans whose arms all begin with the distribution of discrete moves


@pytest.mark.parametrize("name", ["confirm", "ladder", "still", "lattice", "rates", "learner", "repeat", "resolution"])
def test_every_arm_of_the_next_plans_can_be_built_and_starts_as_its_plan_says(name):
    found = first_actions(plan(name), dict.fromkeys(plan(name).arms, 0))
    assert set(found) == set(plan(name).arms)
    if name in NEAREST:
        for arm, each in found.items():
            assert each["entropy"] == pytest.approx(found["discrete"]["entropy"], abs=0.15), arm
    if name == "still":
        assert found["gaussian_quiet"]["mean"] == pytest.approx(0.25, abs=0.01)
        assert found["discrete"]["mean"] == pytest.approx(0.25, abs=0.01)
        assert found["discrete82"]["entropy"] == pytest.approx(np.log(9), abs=0.01)

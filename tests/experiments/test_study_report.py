"""The page with the results of a study."""

import csv
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from particle_grid import study
from particle_grid.experiments import stats
from particle_grid.experiments.study.plan import find_plan, read_plan
from particle_grid.experiments.study.plots import colours
from particle_grid.experiments.study.report import answer_text, control_text
from particle_grid.experiments.study.scores import StudyResults
from particle_grid.experiments.study.summary import with_interval
from particle_grid.settings.compose import config_folder

PLANS = sorted(path.stem for path in (config_folder() / "study").glob("*.yaml"))


def test_a_report_shows_question_figures_and_plan_on_one_page_and_runs_nothing(trained, capsys):
    assert trained("smoke", "--out", "out", "--report") == 1
    assert "out has no finished run of this plan" in capsys.readouterr().err
    assert not Path("out").exists()
    assert trained("smoke", "--out", "out") == 0
    before = len(trained.done)
    page = Path("out/report.html").read_text()
    assert "Does a study run from end to end?" in page
    assert "tuning: {tasks: [center]" in page
    assert page.count("data:image/png;base64,") == 2 * 7
    assert not re.search(r"https?://", page)
    assert "<td>-0.30</td>" in page, "two seeds have no interval"
    assert page.index("Too few seeds to tell the arms apart") < page.index("<table>")
    assert page.count("<figcaption>") == 2 * 7
    assert page.count("<td>discrete to gaussian</td>") == 2
    assert page.count("<td>gaussian</td><td>forage</td><td>-0.30</td><td>unknown</td><td>not shown</td>") == 2
    assert page.count("<h2>Changes of the gaps</h2>") == 1
    assert page.count("<td>inertial</td><td>gaussian</td>") == 1
    for title in (
        "Single changes",
        "Differences and equivalence",
        "Score at equal KL divergence",
        "Greedy minus sampled",
    ):
        assert page.count(f"<h3>{title}</h3>") == 2
    assert page.count("<td>learning_rate") == 4, "all sets of hyperparameters are listed"
    Path("out/report.html").unlink()
    assert trained("smoke", "--out", "out", "--report") == 0
    assert Path("out/report.html").read_text() == page
    assert len(trained.done) == before


def test_a_plan_without_thresholds_and_chains_is_reported_without_their_figures(trained):
    text = find_plan("smoke").read_text("utf-8")
    text = text.replace("thresholds: [0.5]", "thresholds: []").replace("  range: [discrete, gaussian]", "  {}")
    Path("plain.yaml").write_text(text)
    assert trained("plain.yaml", "--out", "out") == 0
    page = Path("out/report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 * 5
    assert "Single changes" not in page
    assert not Path("out/chains.csv").exists()


def rows_of(**differences):
    """Return the rows of a summary by the differences of the arms and their p-values."""
    return [{"arm": arm, "difference": found, "p_holm": p} for arm, (found, p) in differences.items()]


@pytest.mark.parametrize(
    ("snapped", "gaussian", "answer"),
    [
        (
            (-0.1, 0.01),
            (-0.3, 0.001),
            "Scores compared with discrete, averaged over tasks, which may differ: less: snapped -0.10, gaussian -0.30 "
            "(random actions 0, script 1).",
        ),
        (
            (0.1, 0.04),
            (0.0, 0.06),
            "Scores compared with discrete, averaged over tasks, which may differ: more: snapped +0.10; no difference "
            "shown: gaussian +0.00 (random actions 0, script 1).",
        ),
        (
            (-0.1, np.nan),
            (0.2, np.nan),
            "Too few seeds to tell the arms apart (fewer than 5). Differences to discrete: snapped -0.10, "
            "gaussian +0.20.",
        ),
    ],
)
def test_the_answer_of_a_study_follows_from_the_tests_of_the_differences(snapped, gaussian, answer):
    plan = read_plan(find_plan("reduced"))
    rows = rows_of(discrete=(0.0, 1.0), snapped=snapped, gaussian=gaussian)
    assert answer_text(plan, rows) == answer


@pytest.mark.parametrize("name", ["smoke", "reduced", "axes", "full"])
def test_every_arm_has_a_colour_of_its_own_that_stands_out_from_white(name):
    plan = read_plan(find_plan(name))
    found = colours(plan)
    assert set(found) == set(plan.arms)
    assert len(set(found.values())) == len(plan.arms)
    for colour in found.values():
        red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
        assert 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.5


@pytest.mark.parametrize(
    ("gain", "same", "said"),
    [
        (0.0, False, "has the same scores as discrete, in every run."),
        (0.01, True, "is equivalent to discrete (difference of final scores 0.01 [0.00, 0.02])."),
        (0.01, False, "is not shown to be equivalent to discrete (difference of final scores 0.01 [0.00, 0.02])."),
    ],
)
def test_the_answer_says_whether_the_null_control_equals_the_reference(gain, same, said):
    plan = read_plan(find_plan("ladder"))
    rows = [
        {"phase": "test", "variant": "kinematic", "arm": arm, "task": task, "seed": seed}
        | {"sampled": seed + gain * (arm == "bins3")}
        for arm in plan.arms
        for task in plan.tasks
        for seed in plan.seeds
    ]
    results = StudyResults(plan, dict.fromkeys(plan.arms, 0), rows, {}, {})
    overall = [{"arm": "bins3", "same_score": same, "difference": 0.01, "difference_low": 0.0, "difference_high": 0.02}]
    assert control_text(results, "kinematic", overall) == f" The null control bins3 {said}"
    plain = replace(results, plan=replace(plan, null_control=""))
    assert control_text(plain, "kinematic", overall) == ""


@pytest.mark.parametrize("runs", [2, 4, 5])
def test_few_runs_have_no_interval(runs):
    scores = np.random.default_rng(0).random((3, runs))
    value, *ends = with_interval(stats.mean, scores)
    assert value == stats.mean(scores)
    assert np.isfinite(ends).all() == (runs >= 5)


@pytest.mark.release
def test_a_small_study_runs_from_end_to_end(monkeypatch, tmp_path):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["study", "smoke", "--out", str(out)])
    study.main()
    with (out / "results.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 20
    assert {int(row["steps"]) for row in runs} == {2048}
    jobs = read_plan(find_plan("smoke")).test_jobs(out, json.loads((out / "chosen.json").read_text()))
    [job] = [job for key, job in jobs.items() if key[1:3] + key[4:] == ("inertial", "gaussian", "forage", 1)]
    assert job.folder.read_config()["world"]["dynamics"] == "inertial"
    assert (out / "report.html").stat().st_size > 100_000

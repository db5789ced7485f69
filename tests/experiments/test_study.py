"""A study: its plan, what it chooses, what it reports."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from particle_grid import study
from particle_grid.cli import config_folder
from particle_grid.evaluation import scores
from particle_grid.experiments import stats, study_report, study_scores
from particle_grid.experiments.plan import load_plan
from particle_grid.experiments.pool import Job
from particle_grid.learn.tensorboard import Logger

PLANS = sorted(path.stem for path in (config_folder() / "study").glob("*.yaml"))


def strength(overrides):
    """What the stand-in for training scores with these overrides: gaussian less, and less yet at a low rate."""
    return (
        0.9
        - 0.3 * ("policy.head=gaussian" in overrides)
        - 0.1 * ("trainer.learning_rate=0.002" in overrides)
        - 0.2 * ("task=forage" in overrides)
    )


def fake_run(job):
    """Leaves what a training leaves."""
    job.folder.mkdir(parents=True, exist_ok=True)
    seed = next(int(part.removeprefix("seed=")) for part in job.overrides if part.startswith("seed="))
    score = strength(job.overrides) + 0.01 * seed
    with Logger(job.folder) as logger:
        for k in range(1, 11):
            logger.log(100 * k, {"normalised_score": score * k / 10, "perf/steps_per_second": 1000.0})
    played = {"policy, sampled": score, "policy, greedy": score, "random actions": 0.0, "script": 1.0}
    content = {label: {"scores": [[value], [value]]} for label, value in played.items()}
    (job.folder / "results.json").write_text(json.dumps(content))
    (job.folder / "overrides.yaml").write_text(json.dumps([*job.overrides, "trainer.threads=1"]))


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Runs study's main with a stand-in for training: what was trained, and whom to let fail."""
    done, failing = [], []  # sets of overrides: whoever has all of one

    def run_all(jobs, ended, count):
        failed = []
        for job in jobs:
            if not job.done:
                done.append(job)
                if any(each <= set(job.overrides) for each in failing):
                    failed.append(job)
                    job.folder.mkdir(parents=True, exist_ok=True)
                    (job.folder / "error.txt").write_text("it was told to\n")
                else:
                    fake_run(job)
            ended(job, "it was told to, by [/seed=1]" if job in failed else "")
        return failed

    monkeypatch.setattr(study, "run_all", run_all)
    monkeypatch.setattr(scores, "measure", lambda env: scores.Baseline([[0.0]], [[1.0]]))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["study", *arguments])
        try:
            study.main()
        except SystemExit as exit:
            return exit.code
        return 0

    run.done, run.failing = done, failing
    return run


@pytest.mark.parametrize("name", [pytest.param(x, marks=pytest.mark.slow) if x == "full" else x for x in PLANS])
def test_each_arm_of_a_plan_has_the_same_budget_and_seeds_that_it_was_not_tuned_on(name):
    plan, _ = load_plan(name)
    out = Path("x")
    tuning, tests = plan.tuning_jobs(out), plan.test_jobs(out, dict.fromkeys(plan.arms, plan.tuning.draws - 1))
    for jobs in (tuning, tests):
        assert len({job.folder for job in jobs.values()}) == len({job.overrides for job in jobs.values()}) == len(jobs)
    assert len({sum(key[0] == arm for key in tuning) for arm in plan.arms}) == 1
    assert len({sum(key[1] == arm for key in tests) for arm in plan.arms}) == 1
    assert not {key[-1] for key in tuning} & {key[-1] for key in tests}
    for arm in plan.arms:
        draws = plan.draws(arm)
        assert len(set(draws)) == plan.tuning.draws
        assert {key for key, _ in draws[0]} == set(plan.search | plan.arms[arm].search)
    assert study.check_runs(plan, out) > 0  # every run's config can be composed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("reference: discrete", "reference: discret"), "There is no arm 'discret', the reference. Did you mean"),
        (("tasks: [center], seeds", "tasks: [group], seeds"), "There is no task 'group' in the plan's tasks"),
        (("seeds: [100]", "seeds: [1]"), "seed 1 is both tuned and tested on"),
        (("draws: 2", "draws: 3"), "tuning.draws=3 is more than arm discrete has sets of knobs (2)"),
        (("\nseeds: [0, 1]", "\nseeds: [0]"), "The plan needs two seeds"),
        (("thresholds:", "threshold:"), "There is no key 'threshold'. Did you mean thresholds?"),
        (("policy.hidden=16", "policy.hiden=16"), "There is no key 'hiden' in policy. Did you mean hidden?"),
        (("draws: 2", "draws: two"), "tuning.draws"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_before_anything_runs(trained, capsys, change, message):
    text = (config_folder() / "study" / "smoke.yaml").read_text()
    assert change[0] in text
    Path("mine.yaml").write_text(text.replace(*change))
    assert trained("mine.yaml") == 1
    assert message in capsys.readouterr().err
    assert trained.done == []
    assert not Path("outputs").exists()


def test_a_name_that_there_is_not_and_a_missing_library_are_refused(trained, capsys, monkeypatch):
    assert trained("smok") == 1
    assert "There is no plan 'smok'. Did you mean smoke?" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert trained("smoke") == 1
    assert 'pip install "particle-grid[study]"' in capsys.readouterr().err


def test_a_dry_run_says_what_it_would_take_and_does_nothing(trained, capsys):
    assert trained("smoke", "--dry-run", "--jobs", "2") == 0
    out = capsys.readouterr().out
    assert "Tuning: 4 runs" in out
    assert "Test: 16 runs" in out
    assert re.search(r"20 runs of 0 million agent-steps in all, 0 of them done; 2 at a time; about 0:0\d:\d\d", out)
    assert trained.done == []
    assert list(Path().iterdir()) == []


def test_a_study_chooses_the_better_knobs_tests_them_and_reports_the_difference(trained, capsys):
    assert trained("smoke", "--out", "out") == 0
    assert json.loads(Path("out/chosen.json").read_text()) == {"discrete": 0, "gaussian": 0}
    with Path("out/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    one = next(row for row in rows if (row["phase"], row["arm"], row["task"]) == ("test", "discrete", "center"))
    assert float(one["sampled"]) == pytest.approx(0.9)
    assert float(one["steps_to_0.5"]) == 800  # the mean of five scores, 0.09 apart, reaches it at the eighth
    assert float(one["minutes"]) == pytest.approx(1 / 60)
    with Path("out/summary.csv").open() as file:
        lines = {(line["variant"], line["arm"], line["task"]): line for line in csv.DictReader(file)}
    for variant in ("kinematic", "inertial"):
        both = lines[variant, "gaussian", "all"]
        assert float(both["difference"]) == pytest.approx(-0.3)
        assert float(both["better"]) == 0
        assert float(both["iqm_low"]) <= float(both["iqm"]) <= float(both["iqm_high"])
        assert float(lines[variant, "gaussian", "forage"]["iqm"]) == pytest.approx(0.405)
        assert float(lines[variant, "gaussian", "forage"]["reached_0.5"]) == 0
    page = Path("out/report.html").read_text()
    assert "Does a study run from end to end?" in page
    assert page.count("data:image/png;base64,") == 2 * 4
    assert not re.search(r"https?://", page)
    assert "-0.30 [-0.30, -0.30]" in page
    again = len(trained.done)
    assert trained("smoke", "--out", "out") == 0
    assert len(trained.done) == again == 20  # nothing is repeated


def test_a_report_of_what_is_there_runs_nothing(trained, capsys):
    assert trained("smoke", "--out", "out", "--report") == 1
    assert "out holds no run of this plan that has ended" in capsys.readouterr().err
    assert not Path("out").exists()
    assert trained("smoke", "--out", "out") == 0
    page = Path("out/report.html").read_text()
    for path in (Path("out/report.html"), Path("out/summary.csv")):
        path.unlink()
    before = len(trained.done)
    assert trained("smoke", "--out", "out", "--report") == 0
    assert len(trained.done) == before
    assert Path("out/report.html").read_text() == page


def test_what_failed_is_told_does_not_stop_the_rest_and_leaves_pairs_whole(trained, capsys, monkeypatch):
    trained.failing.append({"seed=1", "world.dynamics=inertial"})
    assert trained("smoke", "--out", "out") == 1  # one seed is left, which has no spread
    said = capsys.readouterr()
    assert "failed: it was told to, by [/seed=1];" in said.out  # no markup to the terminal
    assert "Fewer than two seeds have a run of every arm and task in inertial" in said.err
    trained.failing.clear()
    before = len(trained.done)
    monkeypatch.setattr(study_report, "write", lambda *_: None)
    assert trained("smoke", "--out", "out") == 0
    assert len(trained.done) == before + 4


def three_seeds():
    """A plan with a seed more than two: its file."""
    text = (config_folder() / "study" / "smoke.yaml").read_text()
    Path("three.yaml").write_text(text.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    return "three.yaml"


def test_what_failed_and_what_is_left_out_for_it_is_told_by_the_report_and_the_exit_code(trained, capsys):
    plan = three_seeds()
    trained.failing.append({"seed=1", "policy.head=gaussian", "task=forage", "world.dynamics=inertial"})
    trained.failing.append({"seed=100", "action=discrete", "trainer.learning_rate=0.002"})
    assert trained(plan, "--out", "out") == 1
    told = [
        "Failed in tuning, of 2 runs of each arm: discrete 1, gaussian 0.",
        "Failed in the test, of 12 runs of each arm: discrete 0, gaussian 1.",
        "Left out when knobs were chosen, since a run of it is missing: draw 1 of discrete.",
        "Left out of tables and pictures, of all arms, so that pairs stay pairs: seed 1 in inertial.",
    ]
    said, page = capsys.readouterr(), Path("out/report.html").read_text()
    assert all(f"{line}\n" in said.out and line in page for line in told)
    assert said.err.startswith("error: 2 of 28 runs failed, and the report is of the others: see error.txt of each")
    with Path("out/summary.csv").open() as file:
        runs = {(line["variant"], line["arm"]): line["runs"] for line in csv.DictReader(file) if line["task"] == "all"}
    assert runs == {(v, arm): n for v, n in (("kinematic", "6"), ("inertial", "4")) for arm in ("discrete", "gaussian")}
    before = len(trained.done)
    assert trained(plan, "--out", "out", "--report") == 1
    assert "error: 2 of 28 runs failed" in capsys.readouterr().err
    trained.failing.clear()
    assert trained(plan, "--out", "out") == 0
    assert len(trained.done) == before + 2
    assert not any(line in Path("out/report.html").read_text() for line in told)


def test_a_report_of_a_study_that_goes_on_says_what_has_not_ended(trained, capsys):
    plan = three_seeds()
    assert trained(plan, "--out", "out") == 0
    Path("out/test/kinematic/gaussian/center-2/results.json").unlink()
    assert trained(plan, "--out", "out", "--report") == 0
    for told in (capsys.readouterr().out, Path("out/report.html").read_text()):
        assert "Not ended yet in the test, of 12 runs of each arm: discrete 0, gaussian 1." in told
        assert "so that pairs stay pairs: seed 2 in kinematic." in told


def test_runs_of_the_test_with_knobs_that_are_no_longer_chosen_are_not_taken_for_those_that_are(trained, capsys):
    trained.failing.append({"seed=100", "action=discrete", "trainer.learning_rate=0.001"})
    assert trained("smoke", "--out", "out") == 1
    assert json.loads(Path("out/chosen.json").read_text())["discrete"] == 1
    trained.failing.clear()
    fake_run(load_plan("smoke")[0].tuning_jobs(Path("out"))["discrete", 0, "center", 100])
    files = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    before = len(trained.done)
    for arguments in ((), ("--report",)):
        assert trained("smoke", "--out", "out", *arguments) == 1
        assert (
            "error: out/test/kinematic/discrete/center-0 holds a run that was begun with trainer.learning_rate=0.002, "
            "and this one has trainer.learning_rate=0.001: choose another --out, or take that folder away.\n"
        ) in capsys.readouterr().err
    assert len(trained.done) == before
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == files


def test_a_plan_is_not_changed_when_its_runs_have_been_seen(trained, capsys):
    text = (config_folder() / "study" / "smoke.yaml").read_text()
    Path("out").mkdir()
    Path("out/plan.yaml").write_text(text)
    Path("other.yaml").write_text(text.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    assert trained("other.yaml", "--out", "out") == 1
    told = capsys.readouterr()
    assert "out holds runs of another plan" in told.err
    assert told.out == ""
    assert trained.done == []


def test_knobs_of_which_a_run_failed_are_not_chosen():
    plan, _ = load_plan("smoke")
    scores = {
        ("discrete", 1, "center", 100): 0.1,
        ("gaussian", 0, "center", 100): 0.3,
        ("gaussian", 1, "center", 100): 0.4,
    }
    assert study.choose(plan, scores) == {"discrete": 1, "gaussian": 1}
    with pytest.raises(RuntimeError, match="Arm discrete has no set of knobs"):
        study.choose(plan, {key: value for key, value in scores.items() if key[0] == "gaussian"})


def test_scores_of_all_arms_are_on_one_scale_whatever_their_own_script_scores(tmp_path):
    scale, found = scores.Baseline([[1.0], [3.0]], [[10.0], [14.0]]), []  # from 2 to 12
    for name, own in (("discrete", (0.0, 8.0)), ("gaussian", (2.0, 12.0))):
        job = Job(tmp_path / name, ())
        with Logger(job.folder) as logger:
            for k in range(1, 5):
                raw = 1.0 + k  # of the task
                scalars = {"normalised_score": (raw - own[0]) / (own[1] - own[0]), "perf/steps_per_second": 1000.0}
                logger.log(100 * k, scalars)
        played = {"policy, sampled": 7.0, "policy, greedy": 2.0, "random actions": own[0], "script": own[1]}
        content = {label: {"scores": [[value]], "normalised_scores": [9.9]} for label, value in played.items()}
        (job.folder / "results.json").write_text(json.dumps(content))
        assert study_scores.final(scale, job) == pytest.approx(0.5)
        assert study_scores.final(scale, job, "greedy") == pytest.approx(0.0)
        found.append(study_scores.learning_curve(scale, job)[1])
    np.testing.assert_allclose(found, [[0.0, 0.1, 0.2, 0.3]] * 2, atol=1e-6)


def test_all_arms_of_a_plan_begin_with_moves_of_the_same_size():
    plan, _ = load_plan("reduced")
    found = study_scores.beginnings(plan, dict.fromkeys(plan.arms, 0))
    assert set(found) == set(plan.arms)
    for arm in plan.arms:
        assert found[arm]["rms"] == pytest.approx(0.5, abs=0.01)
        assert 0 < found[arm]["entropy"] <= np.log(9)
    assert found["discrete"]["entropy"] == pytest.approx(found["snapped"]["entropy"], abs=0.02)


def test_the_scale_is_measured_once_for_each_task_and_variant(tmp_path, monkeypatch):
    measured = []

    def measure(env):
        measured.append((env.task_name, env.discrete, env.world.dynamics))
        return scores.Baseline([[0.0]], [[float(len(measured))]])

    monkeypatch.setattr(scores, "measure", measure)
    plan, _ = load_plan("smoke")
    first, again = (study_scores.measure_scales(plan, tmp_path) for _ in range(2))
    assert first == again
    dynamics = ("kinematic", "inertial")
    assert measured == [(task, False, each) for each in dynamics for task in ("center", "forage")]


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=30), st.floats(0, 1))
def test_steps_to_a_threshold_are_those_of_the_plain_definition(scores, threshold):
    steps = 10 * np.arange(1, len(scores) + 1)
    expected = float("inf")
    for k in range(study_scores.SMOOTH, len(scores) + 1):
        mean = np.mean(scores[k - study_scores.SMOOTH : k])
        if abs(mean - threshold) < 1e-9:
            return  # rounding decides
        if mean >= threshold:
            expected = 10 * k
            break
    assert study_scores.steps_to(threshold, steps, np.array(scores)) == expected


def test_a_run_without_scores_never_gets_anywhere():
    assert study_scores.steps_to(0.5, np.arange(9), np.full(9, np.nan)) == float("inf")


def test_only_seeds_with_a_run_of_every_arm_and_task_are_compared():
    plan, _ = load_plan("smoke")
    rows = [
        {"phase": "test", "variant": "kinematic", "arm": arm, "task": task, "seed": seed, "sampled": seed + 0.5}
        for arm in plan.arms
        for task in plan.tasks
        for seed in plan.seeds
        if (arm, task, seed) != ("gaussian", "forage", 0)
    ]
    assert study_report.matrix(plan, rows, "kinematic", "discrete").tolist() == [[1.5], [1.5]]


@pytest.mark.release
def test_a_small_study_runs_from_end_to_end(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["study", "smoke", "--out", str(tmp_path / "out")])
    study.main()
    plan, _ = load_plan("smoke")
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert {int(row["steps"]) for row in rows} == {2048}
    chosen = json.loads((tmp_path / "out" / "chosen.json").read_text())
    job = plan.test_jobs(tmp_path / "out", chosen)["inertial", "gaussian", "forage", 1]
    assert isinstance(job, Job)
    assert "dynamics: inertial" in (job.folder / "config.yaml").read_text()
    assert stats.LEVEL == 0.95
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000

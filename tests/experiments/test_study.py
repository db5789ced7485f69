"""The study command, from a plan to a report, with a substitute for training."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest

from particle_grid.experiments.study.plan import TUNING, RunKey, find_plan, read_plan
from particle_grid.experiments.study.run import choose, time_left
from tests.experiments.fakes import fake_run

pytestmark = pytest.mark.usefixtures("without_figures")
SMOKE = find_plan("smoke").read_text("utf-8")


def smoke():
    return read_plan(find_plan("smoke"))


def rows(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def three_seeds():
    """Write a plan with three seeds, and return its file."""
    Path("three.yaml").write_text(SMOKE.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    return "three.yaml"


def test_an_unknown_name_and_a_missing_library_are_refused(trained, capsys, monkeypatch):
    assert trained("smok") == 1
    assert "There is no plan 'smok'. Did you mean smoke?" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert trained("smoke") == 1
    assert 'pip install "particle-grid[plot]"' in capsys.readouterr().err


def test_a_negative_number_of_jobs_is_refused(trained, capsys):
    assert trained("smoke", "--jobs", "-1") == 1
    assert "error: --jobs -1 is invalid" in capsys.readouterr().err


def test_a_dry_run_estimates_a_study_and_runs_nothing(trained, capsys):
    assert trained("smoke", "--dry-run", "--jobs", "2") == 0
    out = capsys.readouterr().out
    assert "Tuning: 4 runs" in out
    assert "Test: 16 runs" in out
    assert re.search(r"20 runs, 0 million agent-steps in total; 0 runs are done; 2 at a time; about 0:0\d:\d\d", out)
    assert trained.done == []
    assert list(Path().iterdir()) == []


def test_a_study_chooses_the_better_hyperparameters_and_reports_the_difference(trained):
    assert trained("smoke", "--out", "out") == 0
    assert json.loads(Path("out/chosen.json").read_text()) == {"discrete": 0, "gaussian": 0}
    runs = rows("out/results.csv")
    assert list(runs[0])[:6] == ["phase", "variant", "arm", "trial", "task", "seed"]
    assert len(runs) == 20
    one = next(row for row in runs if (row["phase"], row["arm"], row["task"]) == ("test", "discrete", "center"))
    assert float(one["sampled"]) == pytest.approx(0.9)
    assert float(one["steps_to_0.5"]) == 800  # the mean of five scores, 0.09 apart, reaches it at the eighth
    assert float(one["minutes"]) == pytest.approx(1 / 60)
    lines = {(line["variant"], line["arm"], line["task"]): line for line in rows("out/summary.csv")}
    for variant in ("kinematic", "inertial"):
        both = lines[variant, "gaussian", "all"]
        assert float(both["difference"]) == pytest.approx(-0.3)
        assert float(both["better"]) == 0
        assert both["iqm_low"] == both["iqm_high"] == "nan"  # two seeds are too few for an interval
        assert float(lines[variant, "gaussian", "forage"]["iqm"]) == pytest.approx(0.405)
        assert float(lines[variant, "gaussian", "forage"]["reached_0.5"]) == 0
    assert trained("smoke", "--out", "out") == 0
    assert len(trained.done) == 20  # nothing is repeated


def test_failed_runs_do_not_stop_the_others_and_are_repeated_later(trained, capsys):
    trained.failing.append({"seed=1", "world.dynamics=inertial"})
    assert trained("smoke", "--out", "out") == 1  # one seed is left, which has no spread
    said = capsys.readouterr()
    assert "failed: it was told to, by [/seed=1]" in said.out  # printed literally, not as markup
    without = "Without tables, because fewer than two seeds have a finished run of every arm and task: inertial."
    assert without in said.out
    assert without in Path("out/report.html").read_text()
    assert {row["variant"] for row in rows("out/summary.csv")} == {"kinematic"}
    assert said.err.startswith("error: 4 of 20 runs failed")
    trained.failing.clear()
    before = len(trained.done)
    assert trained("smoke", "--out", "out") == 0
    assert len(trained.done) == before + 4


def test_a_study_that_has_only_been_tuned_is_reported_without_a_test(trained, capsys):
    plan = smoke()
    for job in plan.tuning_jobs(Path("out")).values():
        fake_run(job)
    assert trained("smoke", "--out", "out", "--report") == 0
    assert not trained.done
    page = Path("out/report.html").read_text()
    assert "Not finished yet in the test phase, of 8 runs per arm: discrete 8, gaussian 8." in page
    assert "every arm and task: kinematic, inertial." in page
    assert "<th>center</th><th>mean of tasks</th>" in page
    assert page.count("<td>learning_rate") == 4
    assert not Path("out/summary.csv").exists()
    untuned = SMOKE.replace("trials: 2", "trials: 1")
    Path("untuned.yaml").write_text(untuned)
    fake_run(next(iter(read_plan(Path("untuned.yaml")).test_jobs(Path("two"), dict.fromkeys(plan.arms, 0)).values())))
    capsys.readouterr()
    assert trained("untuned.yaml", "--out", "two", "--report") == 1
    assert "error: Fewer than two seeds have a finished run of every arm and task" in capsys.readouterr().err


def test_the_report_and_the_exit_code_tell_which_runs_failed_and_what_is_left_out(trained, capsys):
    plan = three_seeds()
    trained.failing.append({"seed=1", "policy.head=gaussian", "task=forage", "world.dynamics=inertial"})
    trained.failing.append({"seed=100", "action=discrete", "trainer.learning_rate=0.002"})
    assert trained(plan, "--out", "out") == 1
    missing = [
        "Failed in the tuning phase, of 2 runs per arm: discrete 1, gaussian 0.",
        "Failed in the test phase, of 12 runs per arm: discrete 0, gaussian 1.",
        "Trials that could not be chosen because one of their runs is missing: trial 1 of discrete.",
        "Left out of all tables and figures, so that all arms have the same seeds: seed 1 in inertial.",
    ]
    said = capsys.readouterr()
    page = Path("out/report.html").read_text()
    assert all(f"{line}\n" in said.out and line in page for line in missing)
    assert said.err.startswith("error: 2 of 28 runs failed, and the report covers only the others: see error.txt")
    runs = {(row["variant"], row["arm"]): row["runs"] for row in rows("out/summary.csv") if row["task"] == "all"}
    assert runs == {(v, arm): n for v, n in (("kinematic", "6"), ("inertial", "4")) for arm in ("discrete", "gaussian")}
    before = len(trained.done)
    assert trained(plan, "--out", "out", "--report") == 1
    assert "error: 2 of 28 runs failed" in capsys.readouterr().err
    trained.failing.clear()
    assert trained(plan, "--out", "out") == 0
    assert len(trained.done) == before + 2
    assert not any(line in Path("out/report.html").read_text() for line in missing)


def test_the_report_of_an_unfinished_study_says_what_is_missing(trained, capsys):
    plan = three_seeds()
    assert trained(plan, "--out", "out") == 0
    Path("out/test/kinematic/gaussian/center-2/results.json").unlink()
    assert trained(plan, "--out", "out", "--report") == 0
    for text in (capsys.readouterr().out, Path("out/report.html").read_text()):
        assert "Not finished yet in the test phase, of 12 runs per arm: discrete 0, gaussian 1." in text
        assert "so that all arms have the same seeds: seed 2 in kinematic." in text


def test_test_runs_with_hyperparameters_that_were_not_chosen_are_refused(trained, capsys):
    trained.failing.append({"seed=100", "action=discrete", "trainer.learning_rate=0.001"})
    assert trained("smoke", "--out", "out") == 1
    assert json.loads(Path("out/chosen.json").read_text())["discrete"] == 1
    trained.failing.clear()
    fake_run(smoke().tuning_jobs(Path("out"))[RunKey(TUNING, "kinematic", "discrete", 0, "center", 100)])
    files = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    before = len(trained.done)
    for arguments in ((), ("--report",)):
        assert trained("smoke", "--out", "out", *arguments) == 1
        assert (
            "error: out/test/kinematic/discrete/center-0 holds a run that was started with "
            "trainer.learning_rate=0.002, and this one has trainer.learning_rate=0.001: choose another --out, or "
            "remove that folder.\n"
        ) in capsys.readouterr().err
    assert len(trained.done) == before
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == files


def test_a_folder_with_runs_of_another_plan_is_refused(trained, capsys):
    Path("out").mkdir()
    Path("out/plan.yaml").write_text(SMOKE)
    assert trained(three_seeds(), "--out", "out") == 1
    said = capsys.readouterr()
    assert "out holds runs of another plan" in said.err
    assert said.out == ""
    assert trained.done == []


def test_trials_with_a_missing_run_are_not_chosen():
    def key(arm, trial):
        return RunKey(TUNING, "kinematic", arm, trial, "center", 100)

    plan = smoke()
    scores = {key("discrete", 1): 0.1, key("gaussian", 0): 0.3, key("gaussian", 1): 0.4}
    assert choose(plan, scores) == {"discrete": 1, "gaussian": 1}
    with pytest.raises(RuntimeError, match="Arm discrete has no set of hyperparameters"):
        choose(plan, {each: score for each, score in scores.items() if each.arm == "gaussian"})


def test_the_remaining_time_is_estimated_from_runs_that_did_not_compile():
    compiling = 100.0
    running = 10.0
    total = 10
    ends = [compiling, compiling + 0.5]
    assert time_left(ends, total, 2) == ""
    for k in range(2, total):
        ends.append(compiling + 0.5 * (k % 2) + running * (k // 2))
        assert time_left(ends, total, 2) == f"{running * (total - len(ends)) / 2 / 60:.0f} minutes left"

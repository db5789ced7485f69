"""The page with the results of a study."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest

from particle_grid import study
from particle_grid.experiments.plan import find_plan, read_plan


def test_a_report_shows_question_figures_and_plan_on_one_page_and_runs_nothing(trained, capsys):
    assert trained("smoke", "--out", "out", "--report") == 1
    assert "out has no finished run of this plan" in capsys.readouterr().err
    assert not Path("out").exists()
    assert trained("smoke", "--out", "out") == 0
    before = len(trained.done)
    page = Path("out/report.html").read_text()
    assert "Does a study run from end to end?" in page
    assert "tuning: {tasks: [center]" in page
    assert page.count("data:image/png;base64,") == 2 * 4
    assert not re.search(r"https?://", page)
    assert "-0.30 [-0.30, -0.30]" in page
    Path("out/report.html").unlink()
    assert trained("smoke", "--out", "out", "--report") == 0
    assert Path("out/report.html").read_text() == page
    assert len(trained.done) == before


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

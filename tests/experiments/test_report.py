"""The report of a sweep lists every run with its scores and its outcome."""

import base64
import csv
import io
import os
import re
import sys
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from particle_grid import baselines, report, train
from particle_grid.evaluation import match
from particle_grid.experiments.sweep import ending
from particle_grid.experiments.sweep_report import Sweep, SweepRun, load_run, load_sweep, run_rows
from particle_grid.learn.loggers.tensorboard import TensorBoardLogger
from particle_grid.runs.folder import FINISHED, HYDRA, RunFolder
from tests.experiments.fakes import write_results, write_yaml
from tests.test_train import BATCH, TINY

FILES = ["groups.csv", "report.html", "runs.csv"]
KEYS = ["task", "trainer.gamma", "seed"]


@pytest.fixture
def write_run(tmp_path):
    """Write a run's folder as train does: its values of KEYS, its final score, its curve, and why it ended."""

    def run(task, gamma, seed, final=None, curve=(), error=None, pruned=None, resume=None):
        folder = RunFolder(tmp_path / "sweep" / f"{task}_{gamma}_{seed}")
        trainer = {"gamma": gamma, "rollout_length": 32}
        config = {"task": {"name": task}, "trainer": trainer, "seed": seed, "resume": resume}
        write_yaml(folder.path / HYDRA / "config.yaml", config)
        overrides = [f"{key}={value}" for key, value in zip(KEYS, (task, gamma, seed), strict=True)]
        overrides = [f"resume={resume}"] if resume else [*overrides, "trainer.rollout_length=32"]
        write_yaml(folder.path / HYDRA / "overrides.yaml", overrides)
        if curve:
            write_yaml(folder.config, config)
            with closing(TensorBoardLogger(folder.path)) as logger:
                for k, score in enumerate(curve, 1):
                    logger.log(1000 * k, {"perf/steps_per_second": 100.0, "env/normalised_score": score})
        if final is not None:
            write_results(folder, sampled=final, greedy=final / 2)
        if error:
            folder.error.write_text(error)
        if pruned:
            folder.write_pruned(pruned)
        return folder

    return run


@pytest.fixture
def sweep(write_run):
    """Eight runs, of which one failed, one was pruned and one was interrupted."""
    for gamma, level in ((0.9, 0.5), (0.5, 0.2)):
        for seed in (0, 1):
            write_run("group", gamma, seed, level + 0.01 * seed, (0.0, level / 2, level))
    write_run("forage", 0.9, 0, 0.8, (0.0, 0.7))
    write_run("forage", 0.5, 0, curve=(0.1, 0.2))
    write_run("forage", 0.5, 1, curve=(0.0,), pruned="at 1000 steps its normalised score of 0.000 is too low")
    write_run("forage", -1.0, 0, error="Traceback\n  somewhere\nerror: trainer.gamma=-1 is invalid: choose another.\n")
    return Path("sweep")


def run_report(invoke, *arguments):
    """Run the command and return its output."""
    code, out, err = invoke(report.main, "sweep", *arguments)
    assert (code, err) == (0, "")
    return out


def rows(path="sweep/report/runs.csv"):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_is_listed_with_its_distinguishing_settings_scores_and_outcome(invoke, sweep):
    out = run_report(invoke)
    assert "5 finished, 1 pruned, 1 failed, 1 unfinished" in out
    assert "forage_-1.0_0 (failed): trainer.gamma=-1 is invalid: choose another.\n" in out
    listed = rows()
    assert all(f" {row['run']} " in out for row in listed)
    assert list(listed[0])[:4] == ["run", "task.name", "trainer.gamma", "seed"]  # without settings that all runs share
    assert len(listed) == 8
    assert [row["run"] for row in listed[:2]] == ["forage_0.9_0", "group_0.9_1"]  # the best ones first
    by_name = {row["run"]: row for row in listed}
    best = by_name["forage_0.9_0"]
    assert (float(best["sampled"]), float(best["greedy"]), int(best["steps"])) == pytest.approx((0.8, 0.4, 2000))
    assert float(best["minutes"]) == pytest.approx(2000 / 100 / 60)
    ends = {name: row["status"] for name, row in by_name.items() if row["status"] != "finished"}
    assert ends == {"forage_0.5_0": "unfinished", "forage_0.5_1": "pruned", "forage_-1.0_0": "failed"}
    assert by_name["forage_0.5_1"]["reason"].startswith("at 1000 steps")


def test_runs_that_differ_only_in_their_seed_form_a_group(invoke, sweep):
    run_report(invoke, "--out", "elsewhere")
    groups = {(row["task.name"], row["trainer.gamma"]): row for row in rows("elsewhere/groups.csv")}
    assert list(groups) == [("forage", "0.9"), ("group", "0.9"), ("group", "0.5")]
    group = groups["group", "0.9"]
    assert int(group["runs"]) == 2
    found = [float(group[key]) for key in ("interquartile_mean", "lowest", "highest")]
    assert found == pytest.approx([0.505, 0.5, 0.51])
    assert not (sweep / "report").exists()


def test_the_page_has_all_tables_and_pictures_that_are_not_empty(invoke, sweep, write_run):
    for seed in range(2, 8):
        write_run("group", 0.9, seed, 0.5 + 0.01 * seed)
    out = run_report(invoke)
    assert all(f"Saved: sweep/report/{name}\n" in out for name in FILES)
    page = Path("sweep/report/report.html").read_text()
    of_group = [f"group: {what}" for what in ("learning curves", "settings and scores", "what scores depend on")]
    titles = ["forage: learning curves", *of_group, "Over seeds", "Runs"]
    assert re.findall(r"<h2>(.*?)</h2>", page) == titles
    pictures = re.findall(r'src="data:image/png;base64,(.*?)"', page)
    assert len(pictures) == 4
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert min(image.size) > 150
            assert sum(count > 0 for count in image.convert("L").histogram()) > 10
    assert all(f"<td>{row['run']}</td>" in page for row in rows())


def test_fewer_than_ten_runs_do_not_show_what_scores_depend_on(invoke, write_run):
    for seed in range(9):
        write_run("group", 0.9 if seed % 2 else 0.5, seed, 0.1 * (seed % 2) + 0.001 * seed)
    run_report(invoke)
    assert "depend on" not in Path("sweep/report/report.html").read_text()
    write_run("group", 0.9, 9, 0.1)
    run_report(invoke)
    assert "depend on" in Path("sweep/report/report.html").read_text()


def test_training_shorter_than_a_minute_has_seconds(invoke, sweep):
    assert " 0:20 " in run_report(invoke)  # 2000 steps at 100 per second


def test_a_single_run_without_a_result_gives_a_report_without_figures(invoke, write_run):
    write_run("group", 0.9, 0)
    assert "1 unfinished" in run_report(invoke)
    assert [path.name for path in sorted(Path("sweep/report").iterdir())] == FILES


def test_without_matplotlib_the_report_has_tables_and_advice(invoke, write_run, monkeypatch):
    for seed in range(3):
        write_run("group", 0.9, seed, 0.5)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = run_report(invoke)
    assert "No figures: " in out
    assert 'pip install "particle-grid[plot]"\n' in out
    assert [path.name for path in sorted(Path("sweep/report").iterdir())] == FILES
    assert len(rows()) == 3


def test_a_run_that_was_resumed_in_another_folder_names_that_folder(invoke, write_run):
    old = write_run("group", 0.9, 0, curve=(0.1,))
    write_run("group", 0.9, 1, curve=(0.2,), final=0.5, resume=f"'{old.checkpoint}'")
    write_run("group", 0.9, 2, curve=(0.2,), final=0.5, resume="sweep/group_0.9_2/checkpoint.pt")  # in its own folder
    out = run_report(invoke)
    assert "2 finished, 1 continued" in out
    assert "group_0.9_0 (continued): resumed in group_0.9_1" in out


def test_a_refused_or_resuming_command_does_not_change_the_settings_listed_for_a_run(invoke, monkeypatch):
    monkeypatch.setattr(match, "STEPS", 8)
    arguments = [*TINY, "task=center", "policy=mlp", "clips=0", "evaluations=0", f"trainer.total_steps={BATCH}"]
    assert invoke(train.main, *arguments, "hydra.run.dir=run")[0] == 0
    folder = RunFolder(Path("run"))
    named = load_run(folder).named
    assert {"task.name", "clips", "world.agents"} < {*named}
    assert invoke(train.main, "task=forage", "seed=7", "hydra.run.dir=run")[0] == 1
    assert load_run(folder).named == named
    more = ["resume=run/checkpoint.pt", f"trainer.total_steps={2 * BATCH}"]
    assert invoke(train.main, *more, "hydra.run.dir=run")[0] == 0
    assert load_run(folder).named == named


@pytest.mark.parametrize("folder", [".", "none"])
def test_a_folder_without_runs_is_refused_in_a_sentence(invoke, folder):
    code, out, err = invoke(report.main, folder)
    assert (code, out) == (1, "")
    assert (
        err
        == f"error: {folder} holds no runs: give the folder of a sweep, such as outputs/..._sweep, that has begun.\n"
    )


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(("results.json", text) for text in (b"", b"{", b"[]", b"\xff", b"[" * 50_000, b'{"policy, sampled": 1}')),
        ("results.json", b'{"sampled": {"scores": [[1]], "normalised_scores": ["a"]}}'),
        ("results.json", b'{"sampled": {"scores": [[1]], "normalised_scores": []}}'),
        ("results.json", b'{"sampled": {"scores": [[1]], "normalised_scores": [1e999999, 1]}}'),
        *(("config.yaml", text) for text in (b"a: [", b"[1]", b"\xff", b"[" * 50_000)),
        *((".hydra/overrides.yaml", text) for text in (b"a: [", b"a: 1", b"\xff")),
    ],
)
def test_a_damaged_run_is_listed_with_its_file_among_the_others(write_run, file, content):
    other = write_run("group", 0.9, 0, 0.5)
    folder = write_run("group", 0.9, 1, 0.5, (0.1,))
    (folder.path / file).write_bytes(content)
    good, damaged = load_sweep(folder.path.parent).runs
    assert (good.folder.name, good.status) == (other.name, "finished")
    assert (damaged.folder.name, damaged.status) == (folder.name, "damaged")
    assert str(folder.path) in damaged.reason
    assert "Remove this run's folder" in damaged.reason


def test_a_device_or_a_pipe_in_place_of_a_file_makes_a_damaged_run(invoke, write_run):
    device = write_run("group", 0.9, 0, curve=(0.1,))
    device.results.symlink_to("/dev/zero")
    pipe = write_run("group", 0.9, 1)
    os.mkfifo(pipe.config)
    out = run_report(invoke)
    assert "2 damaged" in out
    assert f"{device.name} (damaged): " in out


def test_reasons_that_look_like_markup_are_printed_literally(invoke, write_run):
    write_run("group", 0.9, 0, error="error: outputs/[test]/x.pt holds [/x].\n")
    assert "group_0.9_0 (failed): outputs/[test]/x.pt holds [/x]." in run_report(invoke)


def test_list_values_are_compared_by_their_content(invoke, write_run):
    for seed in (0, 1):
        write_run("group", [0.9, 1], seed, 0.5 + seed / 10)
        write_run("group", [0.5], seed, 0.2 + seed / 10)
    run_report(invoke)
    groups = [(row["trainer.gamma"], row["runs"]) for row in rows("sweep/report/groups.csv")]
    assert groups == [("[0.9, 1]", "2"), ("[0.5]", "2")]
    assert "group: settings and scores" in Path("sweep/report/report.html").read_text()


def test_settings_are_never_interpreted_as_formulas_mathtext_or_environment_variables(invoke, write_run, monkeypatch):
    monkeypatch.setenv("SECRET", "secret")
    for seed, gamma in enumerate(["=1+1", "$\\frac$", "${oc.env:SECRET}", "-0.5"]):
        write_run("group", gamma, seed, 0.1 * seed, (0.0, 0.1))
    run_report(invoke)
    assert {row["trainer.gamma"] for row in rows()} == {"'=1+1", "$\\frac$", "${oc.env:SECRET}", "-0.5"}


def test_a_finished_run_keeps_its_score_without_a_complete_curve(invoke, write_run):
    folder = write_run("group", 0.9, 0, 0.5)
    write_run("group", 0.9, 1, 0.4, (0.1, 0.2))
    (folder.path / "events.out.tfevents.1").write_bytes(b"\0" * 30 + b"perf/steps_per_second" + b"\0" * 30)
    out = run_report(invoke)
    assert "2 finished" in out
    assert "group_0.9_0 (finished): its learning curve is not complete" in out
    assert [float(row["sampled"]) for row in rows()] == [0.5, 0.4]


def test_no_text_of_a_run_can_control_the_terminal(invoke, write_run):
    write_run("a\033[31m", 0.9, 0, 0.5, (0.1,))
    write_run("group", 0.9, 1, 0.5, (0.1,))
    write_run("group", 0.9, 2, error="error: \033]0;title\007")
    out = run_report(invoke)
    assert "\\x1b]0;title\\x07" in "".join(row["reason"] for row in rows())
    assert "\033" not in out + Path("sweep/report/runs.csv").read_text()


def test_values_that_do_not_fit_a_table_become_text(invoke, write_run):
    for seed in range(6):
        path = write_run("group", 0.9, seed, 0.1 * seed, (0.1,)).config
        path.write_text(path.read_text().replace(f"seed: {seed}", f"seed: {10**400 + seed}"))
    Path("sweep/group_0.9_0/.hydra/overrides.yaml").write_text("- ???\n")
    run_report(invoke)
    assert len(rows()) == 6


def test_no_score_is_printed_as_minus_zero(tmp_path):
    assert ending(-1e-9, RunFolder(tmp_path)) == "normalised score 0.000"
    assert baselines.by_team([[-1e-9, -0.5]]) == "   0.0000 /   -0.5000"
    run = SweepRun(RunFolder(tmp_path), FINISHED, sampled=-1e-9, greedy=-1e-9)
    assert run_rows(Sweep([run], []))[1][1:3] == ["0.000", "0.000"]

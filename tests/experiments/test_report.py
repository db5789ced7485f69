"""The report of a sweep: what it says about each run."""

import csv
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from particle_grid import report, train
from particle_grid.evaluation import match
from particle_grid.experiments.sweep_report import load_run, load_sweep
from particle_grid.learn.tensorboard import Logger
from particle_grid.runs.folder import HYDRA, RunFolder
from tests.experiments.fakes import write_results, write_yaml
from tests.test_train import BATCH, TINY

KEYS = ["task", "trainer.gamma", "seed"]


@pytest.fixture
def leave(tmp_path):
    """Leaves a run's folder as train does: its values of KEYS, its final score, its curve, and why it ended."""

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
            with Logger(folder.path) as logger:
                for k, score in enumerate(curve, 1):
                    logger.log(1000 * k, {"perf/steps_per_second": 100.0, "normalised_score": score})
        if final is not None:
            write_results(folder, sampled=final, greedy=final / 2)
        if error:
            folder.error.write_text(error)
        if pruned:
            folder.write_pruned(pruned)
        return folder

    return run


@pytest.fixture
def sweep(leave):
    """Eight runs, of which one failed, one was pruned and one was interrupted."""
    for gamma, level in ((0.9, 0.5), (0.5, 0.2)):
        for seed in (0, 1):
            leave("group", gamma, seed, level + 0.01 * seed, (0.0, level / 2, level))
    leave("forage", 0.9, 0, 0.8, (0.0, 0.7))
    leave("forage", 0.5, 0, curve=(0.1, 0.2))
    leave("forage", 0.5, 1, curve=(0.0,), pruned="at 1000 steps its normalised score of 0.000 is too low")
    leave("forage", -1.0, 0, error="Traceback\n  somewhere\nerror: trainer.gamma=-1 is invalid: choose another.\n")
    return Path("sweep")


def ask(invoke, *arguments):
    """Run the command, and return what it prints."""
    code, out, err = invoke(report.main, "sweep", *arguments)
    assert (code, err) == (0, "")
    return out


def rows(path="sweep/report/runs.csv"):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_is_listed_with_what_tells_it_apart_its_scores_and_how_it_ended(invoke, sweep):
    out = ask(invoke)
    assert "5 finished, 1 pruned, 1 failed, 1 unfinished" in out
    assert "forage_-1.0_0 (failed): trainer.gamma=-1 is invalid: choose another.\n" in out
    listed = rows()
    assert all(f" {row['run']} " in out for row in listed)
    assert list(listed[0])[:4] == ["run", "task.name", "trainer.gamma", "seed"]  # not what all have in common
    assert len(listed) == 8
    assert [row["run"] for row in listed[:2]] == ["forage_0.9_0", "group_0.9_1"]  # the best ones first
    by_name = {row["run"]: row for row in listed}
    best = by_name["forage_0.9_0"]
    assert (float(best["sampled"]), float(best["greedy"]), int(best["steps"])) == pytest.approx((0.8, 0.4, 2000))
    assert float(best["minutes"]) == pytest.approx(2000 / 100 / 60)
    ends = {name: row["status"] for name, row in by_name.items() if row["status"] != "finished"}
    assert ends == {"forage_0.5_0": "unfinished", "forage_0.5_1": "pruned", "forage_-1.0_0": "failed"}
    assert by_name["forage_0.5_1"]["reason"].startswith("at 1000 steps")


def test_runs_that_differ_only_in_their_seed_are_one_group(invoke, sweep):
    ask(invoke, "--out", "elsewhere")
    groups = {(row["task.name"], row["trainer.gamma"]): row for row in rows("elsewhere/groups.csv")}
    assert list(groups) == [("forage", "0.9"), ("group", "0.9"), ("group", "0.5")]
    group = groups["group", "0.9"]
    assert int(group["runs"]) == 2
    found = [float(group[key]) for key in ("interquartile_mean", "lowest", "highest")]
    assert found == pytest.approx([0.505, 0.5, 0.51])
    assert not (sweep / "report").exists()


def test_figures_show_something(invoke, sweep):
    out = ask(invoke)
    for name in ("parallel.png", "importance.png", "curves.png"):
        assert name in out
        with Image.open(sweep / "report" / name) as image:
            assert min(image.size) > 150
            assert sum(count > 0 for count in image.convert("L").histogram()) > 10


def test_one_run_without_a_result_makes_a_report_without_figures(invoke, leave):
    leave("group", 0.9, 0)
    assert "1 unfinished" in ask(invoke)
    assert [path.name for path in sorted(Path("sweep/report").iterdir())] == ["groups.csv", "runs.csv"]


def test_without_matplotlib_there_are_tables_and_advice(invoke, leave, monkeypatch):
    for seed in range(3):
        leave("group", 0.9, seed, 0.5)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    out = ask(invoke)
    assert "No figures: " in out
    assert 'pip install "particle-grid[sweep]"\n' in out
    assert [path.name for path in sorted(Path("sweep/report").iterdir())] == ["groups.csv", "runs.csv"]
    assert len(rows()) == 3


def test_a_run_that_was_resumed_in_another_folder_says_where_it_continues(invoke, leave):
    old = leave("group", 0.9, 0, curve=(0.1,))
    leave("group", 0.9, 1, curve=(0.2,), final=0.5, resume=f"'{old.checkpoint}'")
    leave("group", 0.9, 2, curve=(0.2,), final=0.5, resume="sweep/group_0.9_2/checkpoint.pt")  # in its own
    out = ask(invoke)
    assert "2 finished, 1 continued" in out
    assert "group_0.9_0 (continued): resumed in group_0.9_1" in out


def test_a_run_keeps_the_keys_it_was_started_with_when_a_command_is_refused_or_resumes_it(invoke, monkeypatch):
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
    assert err == f"error: {folder} holds no runs: give the folder of a sweep, such as outputs/..._sweep.\n"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(("results.json", text) for text in (b"", b"{", b"[]", b"\xff", b"[" * 50_000, b'{"policy, sampled": 1}')),
        ("results.json", b'{"sampled": {"scores": [[1]], "normalised_scores": ["a"]}}'),
        ("results.json", b'{"sampled": {"scores": [[1]], "normalised_scores": []}}'),
        ("results.json", b'{"sampled": {"scores": [[1]], "normalised_scores": [1e999999, 1]}}'),
        *(("config.yaml", text) for text in (b"a: [", b"[1]", b"\xff", b"[" * 50_000)),
        *((".hydra/overrides.yaml", text) for text in (b"a: [", b"a: 1", b"\xff")),
        ("events.out.tfevents.1", b"\0" * 30 + b"perf/steps_per_second" + b"\0" * 30),
    ],
)
def test_a_damaged_run_is_listed_with_its_file_beside_the_others(leave, file, content):
    other = leave("group", 0.9, 0, 0.5)
    folder = leave("group", 0.9, 1, 0.5, () if file.startswith("events") else (0.1,))
    (folder.path / file).write_bytes(content)
    good, damaged = load_sweep(folder.path.parent).runs
    assert (good.folder.name, good.status) == (other.name, "finished")
    assert (damaged.folder.name, damaged.status) == (folder.name, "damaged")
    assert str(folder.path) in damaged.reason
    assert "Remove this run's folder" in damaged.reason


def test_a_device_or_a_pipe_in_the_place_of_a_file_is_a_damaged_run(invoke, leave):
    device = leave("group", 0.9, 0, curve=(0.1,))
    device.results.symlink_to("/dev/zero")
    pipe = leave("group", 0.9, 1)
    os.mkfifo(pipe.config)
    out = ask(invoke)
    assert "2 damaged" in out
    assert f"{device.name} (damaged): " in out


def test_reasons_are_printed_as_they_are_even_if_they_look_like_markup(invoke, leave):
    leave("group", 0.9, 0, error="error: outputs/[test]/x.pt holds [/x].\n")
    assert "group_0.9_0 (failed): outputs/[test]/x.pt holds [/x]." in ask(invoke)


def test_values_that_are_lists_are_compared_by_their_content(invoke, leave):
    for seed in (0, 1):
        leave("group", [0.9, 1], seed, 0.5 + seed / 10)
        leave("group", [0.5], seed, 0.2 + seed / 10)
    ask(invoke)
    groups = [(row["trainer.gamma"], row["runs"]) for row in rows("sweep/report/groups.csv")]
    assert groups == [("[0.9, 1]", "2"), ("[0.5]", "2")]
    assert {"parallel.png", "importance.png"} < {path.name for path in Path("sweep/report").iterdir()}


def test_a_config_is_neither_a_formula_nor_mathematics_and_reads_no_environment(invoke, leave, monkeypatch):
    monkeypatch.setenv("SECRET", "secret")
    for seed, gamma in enumerate(["=1+1", "$\\frac$", "${oc.env:SECRET}", "-0.5"]):
        leave("group", gamma, seed, 0.1 * seed, (0.0, 0.1))
    ask(invoke)
    assert {row["trainer.gamma"] for row in rows()} == {"'=1+1", "$\\frac$", "${oc.env:SECRET}", "-0.5"}


def test_nothing_that_a_run_says_controls_the_terminal(invoke, leave):
    leave("a\033[31m", 0.9, 0, 0.5, (0.1,))
    leave("group", 0.9, 1, 0.5, (0.1,))
    leave("group", 0.9, 2, error="error: \033]0;title\007")
    out = ask(invoke)
    assert "\\x1b]0;title\\x07" in "".join(row["reason"] for row in rows())
    assert "\033" not in out + Path("sweep/report/runs.csv").read_text()


def test_values_that_no_table_can_hold_are_text(invoke, leave):
    for seed in range(6):
        path = leave("group", 0.9, seed, 0.1 * seed, (0.1,)).config
        path.write_text(path.read_text().replace(f"seed: {seed}", f"seed: {10**400 + seed}"))
    Path("sweep/group_0.9_0/.hydra/overrides.yaml").write_text("- ???\n")
    ask(invoke)
    assert len(rows()) == 6

"""What is said of the runs of a sweep."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from particle_grid import report, train
from particle_grid.evaluation import match
from particle_grid.experiments import sweep_plots
from particle_grid.learn.tensorboard import Logger
from tests.test_train import BATCH, TINY

KEYS = ["task", "trainer.gamma", "seed"]


@pytest.fixture
def leave(tmp_path):
    """Leaves a run's folder as train does: by its values of KEYS, what it scored in the end, its curve, other files."""

    def run(task, gamma, seed, final=None, curve=(), **files):
        folder = tmp_path / "sweep" / f"{task}_{gamma}_{seed}"
        config = {
            "task": {"name": task},
            "trainer": {"gamma": gamma, "rollout_length": 32},
            "seed": seed,
            "resume": None,
        }
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(config), folder / ".hydra" / "config.yaml")
        overrides = [f"{key}={value}" for key, value in zip(KEYS, (task, gamma, seed), strict=True)]
        OmegaConf.save(
            OmegaConf.create([*overrides, "trainer.rollout_length=32"]), folder / ".hydra" / "overrides.yaml"
        )
        if curve:
            OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
            with Logger(folder) as logger:
                for k, score in enumerate(curve):
                    logger.log(1000 * (k + 1), {"perf/steps_per_second": 100.0, "normalised_score": score})
        if final is not None:
            results = {f"policy, {kind}": {"normalised_scores": [final - 0.1, final + 0.1]} for kind in ("sampled",)}
            results["policy, greedy"] = {"normalised_scores": [final / 2]}
            (folder / "results.json").write_text(json.dumps(results))
        for name, text in files.items():
            (folder / f"{name}.txt").write_text(text)

    return run


@pytest.fixture
def sweep(leave):
    """Eight runs, of which one failed, one was pruned and one was cut off."""
    for gamma, level in ((0.9, 0.5), (0.5, 0.2)):
        for seed in (0, 1):
            leave("group", gamma, seed, level + 0.01 * seed, (0.0, level / 2, level))
    leave("forage", 0.9, 0, 0.8, (0.0, 0.7))
    leave("forage", 0.5, 0, curve=(0.1, 0.2))
    leave("forage", 0.5, 1, curve=(0.0,), pruned="at 1000 steps its normalised score of 0.000 is too low\n")
    leave("forage", -1.0, 0, error="Traceback\n  somewhere\nerror: trainer.gamma=-1 cannot be: choose another.\n")
    return Path("sweep")


def ask(invoke, *arguments):
    return invoke(report.main, *arguments)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_is_listed_with_what_tells_it_apart_its_scores_and_how_it_ended(invoke, sweep):
    code, out, err = ask(invoke, "sweep")
    assert (code, err) == (0, "")
    assert "5 finished, 1 pruned, 1 failed, 1 unfinished" in out
    assert "failed: trainer.gamma=-1 cannot be: choose another." in out
    listed = rows(sweep / "report" / "runs.csv")
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


def test_runs_that_differ_in_their_seed_alone_are_one_group(invoke, sweep):
    ask(invoke, "sweep", "--out", "elsewhere")
    groups = {(row["task.name"], row["trainer.gamma"]): row for row in rows(Path("elsewhere/groups.csv"))}
    assert list(groups) == [("forage", "0.9"), ("group", "0.9"), ("group", "0.5")]
    group = groups["group", "0.9"]
    assert int(group["runs"]) == 2
    assert [float(group[key]) for key in ("interquartile_mean", "lowest", "highest")] == pytest.approx(
        [0.505, 0.5, 0.51]
    )
    assert not (sweep / "report").exists()


def test_pictures_show_something(invoke, sweep):
    _, out, _ = ask(invoke, "sweep")
    for name in ("parallel.png", "importance.png", "curves.png"):
        assert name in out
        with Image.open(sweep / "report" / name) as image:
            assert min(image.size) > 150
            assert sum(count > 0 for count in image.convert("L").histogram()) > 10


def test_one_run_without_a_result_makes_a_report_without_pictures(invoke, leave):
    leave("group", 0.9, 0)
    code, out, err = ask(invoke, "sweep")
    assert (code, err) == (0, "")
    assert "1 unfinished" in out
    assert [path.name for path in sorted(Path("sweep/report").iterdir())] == ["groups.csv", "runs.csv"]


def test_reasons_are_shown_as_they_are_whatever_a_terminal_s_markup_looks_like(invoke, leave):
    leave("group", 0.9, 0, error="error: outputs/[test]/x.pt holds [/x].\n")
    code, out, err = ask(invoke, "sweep")
    assert (code, err) == (0, "")
    assert "failed: outputs/[test]/x.pt holds [/x]." in out


def test_values_that_are_lists_are_compared_by_what_they_hold(invoke, leave):
    for seed in (0, 1):
        leave("group", [0.9, 1], seed, 0.5 + seed / 10)
        leave("group", [0.5], seed, 0.2 + seed / 10)
    code, _, err = ask(invoke, "sweep")
    assert (code, err) == (0, "")
    folder = Path("sweep/report")
    assert [(row["trainer.gamma"], row["runs"]) for row in rows(folder / "groups.csv")] == [
        ("[0.9, 1]", "2"),
        ("[0.5]", "2"),
    ]
    assert {"parallel.png", "importance.png"} < {path.name for path in folder.iterdir()}


def test_what_a_run_was_begun_with_is_said_of_it_whatever_is_refused_or_goes_on_in_its_folder(invoke, monkeypatch):
    monkeypatch.setattr(match, "STEPS", 8)
    arguments = [*TINY, "task=center", "clips=0", f"trainer.total_steps={BATCH}"]
    assert invoke(train.main, *arguments, "hydra.run.dir=run")[0] == 0
    named = report.load_run(Path("run")).named
    assert {"task.name", "clips", "world.agents"} < {*named}
    assert invoke(train.main, "task=forage", "seed=7", "hydra.run.dir=run")[0] == 1
    assert report.load_run(Path("run")).named == named
    more = ["resume=run/checkpoint.pt", f"trainer.total_steps={2 * BATCH}"]
    assert invoke(train.main, *more, "hydra.run.dir=run")[0] == 0
    assert report.load_run(Path("run")).named == named


@pytest.mark.parametrize("folder", [".", "none"])
def test_a_folder_without_runs_is_refused_in_a_sentence(invoke, folder):
    code, out, err = ask(invoke, folder)
    assert (code, out) == (1, "")
    assert err == f"error: {folder} holds no runs: give the folder of a sweep, such as outputs/..._sweep.\n"


def test_without_matplotlib_there_are_tables_and_the_way_to_get_pictures_is_said(invoke, sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = ask(invoke, "sweep")
    assert (code, err) == (0, "")
    assert "No pictures: " in out
    assert 'pip install "particle-grid[sweep]"\n' in out
    assert [path.name for path in sorted((sweep / "report").iterdir())] == ["groups.csv", "runs.csv"]
    assert len(rows(sweep / "report" / "runs.csv")) == 8


@pytest.mark.parametrize(
    ("file", "content"),
    [
        *(("results.json", text) for text in (b"", b"{", b"[]", b"\xff", b"[" * 50_000, b'{"policy, sampled": 1}')),
        ("results.json", b'{"policy, sampled": {"normalised_scores": ["a"]}}'),
        ("results.json", b'{"policy, sampled": {"normalised_scores": []}}'),
        ("results.json", b'{"policy, sampled": {"normalised_scores": [1e999999, 1]}}'),
        *(("config.yaml", text) for text in (b"a: [", b"[1]", b"\xff", b"[" * 50_000)),
        *((".hydra/overrides.yaml", text) for text in (b"a: [", b"a: 1", b"\xff")),
        ("events.out.tfevents.1", b"\0" * 30 + b"perf/steps_per_second" + b"\0" * 30),
    ],
)
def test_a_damaged_run_is_told_with_its_file_and_the_others_are_reported(invoke, sweep, file, content):
    folder = sweep / "group_0.9_1"
    for old in folder.glob("events*" if file.startswith("events") else "none"):
        old.unlink()
    (folder / file).write_bytes(content)
    code, out, err = ask(invoke, "sweep")
    assert (code, err) == (0, "")
    assert "4 finished, 1 pruned, 1 failed, 1 unfinished, 1 damaged" in out
    row = next(row for row in rows(sweep / "report" / "runs.csv") if row["run"] == folder.name)
    assert row["status"] == "damaged"
    assert str(folder) in row["reason"]
    assert "Remove this run's folder" in row["reason"]


def test_what_a_config_says_is_no_formula_and_no_mathematics_and_reads_no_environment(invoke, leave, monkeypatch):
    monkeypatch.setenv("SECRET", "secret")
    for seed, gamma in enumerate(["=1+1", "$\\frac$", "${oc.env:SECRET}", "-0.5"]):
        leave("group", gamma, seed, 0.1 * seed, (0.0, 0.1))
    code, _, err = ask(invoke, "sweep")
    assert (code, err) == (0, "")
    values = {row["trainer.gamma"] for row in rows(Path("sweep/report/runs.csv"))}
    assert values == {"'=1+1", "$\\frac$", "${oc.env:SECRET}", "-0.5"}


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6, unique=True), st.integers(1, 4))
def test_the_share_of_the_variance_lies_between_none_and_all_and_knows_no_unit(means, spread):
    values, noise = [k for k in "abc" for _ in range(8)], np.linspace(-spread, spread, 24)
    scores = np.repeat(means[:3], 8) + np.random.default_rng(0).permutation(noise)
    share = sweep_plots.share_of_variance(values, scores)
    assert 0 <= share <= 1
    assert sweep_plots.share_of_variance(values, 3 * scores + 7) == pytest.approx(share)


def test_what_decides_has_all_the_variance_and_chance_has_none_on_average():
    values = ["a", "b"] * 10
    assert sweep_plots.share_of_variance(values, np.array([0.0, 1.0] * 10)) == 1
    generator = np.random.default_rng(1)
    by_chance = [sweep_plots.share_of_variance(values, generator.normal(size=20)) for _ in range(200)]
    assert np.mean(by_chance) < 0.05
    sizes = np.linspace(0, 1, 40)
    assert sweep_plots.share_of_variance(list(sizes), sizes) > 0.8  # many numbers are sorted into groups
    assert np.isnan(sweep_plots.share_of_variance(["a", "b", "c"], np.arange(3.0)))


def test_optuna_finds_the_key_that_matters_where_there_are_enough_runs():
    pytest.importorskip("optuna")
    generator = np.random.default_rng(0)
    rates, forms = generator.uniform(1e-4, 1e-1, 40), generator.choice(["discrete", "continuous"], 40)
    scores = np.log(rates) + 0.01 * generator.normal(size=40)
    shares = sweep_plots.ped_anova({"rate": rates.tolist(), "form": forms.tolist()}, scores)
    assert shares["rate"] > 0.8 > 0.2 > shares["form"]


def test_numbers_lie_on_an_axis_by_their_size_and_words_at_equal_distances():
    place, ticks = sweep_plots.axis_of([0.001, 0.1, 0.01, 0.02, 0.05])
    assert [place(x) for x in (0.001, 0.01, 0.1)] == pytest.approx([0, 0.5, 1])
    assert [place(x) for x in ticks] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    place, _ = sweep_plots.axis_of([1, 2, 3, 4, 5])
    assert [place(x) for x in (1, 3, 5)] == [0, 0.5, 1]
    place, ticks = sweep_plots.axis_of(["b", "a", "b", None])
    assert ticks == ["b", "a", None]
    assert [place(x) for x in ticks] == pytest.approx([1 / 6, 1 / 2, 5 / 6])


def test_a_device_or_a_pipe_in_the_place_of_a_file_is_a_damaged_run(invoke, sweep):
    (sweep / "group_0.9_1" / "results.json").unlink()
    (sweep / "group_0.9_1" / "results.json").symlink_to("/dev/zero")
    (sweep / "group_0.9_0" / "config.yaml").unlink()
    os.mkfifo(sweep / "group_0.9_0" / "config.yaml")
    code, out, err = ask(invoke, "sweep")
    assert (code, err) == (0, "")
    assert "2 damaged" in out


def test_nothing_that_a_run_says_steers_the_terminal(invoke, leave):
    leave("a\033[31m", 0.9, 0, 0.5, (0.1,))
    leave("group", 0.9, 1, 0.5, (0.1,))
    leave("group", 0.9, 2)
    Path("sweep/group_0.9_2/error.txt").write_text("error: \033]0;title\007")
    code, out, err = ask(invoke, "sweep")
    assert (code, err) == (0, "")
    assert "\\x1b]0;title\\x07" in "".join(row["reason"] for row in rows(Path("sweep/report/runs.csv")))
    assert "\033" not in out + Path("sweep/report/runs.csv").read_text()


def test_values_that_no_table_can_hold_are_text(invoke, leave):
    for seed in range(6):
        leave("group", 0.9, seed, 0.1 * seed, (0.1,))
        path = Path(f"sweep/group_0.9_{seed}/config.yaml")
        path.write_text(path.read_text().replace(f"seed: {seed}", f"seed: {10**400 + seed}"))
    Path("sweep/group_0.9_0/.hydra/overrides.yaml").write_text("- ???\n")
    code, _, err = ask(invoke, "sweep")
    assert (code, err) == (0, "")
    assert len(rows(Path("sweep/report/runs.csv"))) == 6

"""Files that a study finds again: whatever happened to them, it says in one sentence which one cannot be used."""

import json
import shutil
from pathlib import Path

import pytest

from particle_grid import study
from particle_grid.cli import config_folder
from particle_grid.experiments.plan import load_plan
from tests.experiments.test_study import fake_run

RUN = "test/kinematic/gaussian/center-1/"
SCORES = ("policy, sampled", "policy, greedy", "random actions", "script")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of a study of which all runs have ended."""
    out = tmp_path_factory.mktemp("study") / "out"
    plan, text = load_plan("smoke")
    for job in [*plan.tuning_jobs(out).values(), *plan.test_jobs(out, dict.fromkeys(plan.arms, 0)).values()]:
        fake_run(job)
    (out / "plan.yaml").write_text(text)
    keys = [f"{variant}/{task}" for variant in plan.variants for task in plan.tasks]
    (out / "scales.json").write_text(json.dumps({key: {"random": [[0.0]], "scripted": [[1.0]]} for key in keys}))
    return out


@pytest.fixture
def out(ended, tmp_path):
    shutil.copytree(ended, tmp_path / "out")
    return tmp_path / "out"


def results(**changed):
    """The content of results.json, with other scores for some labels."""
    played = {label: {"scores": [[0.5], [0.5]]} for label in SCORES}
    return json.dumps(played | {label.replace("_", " "): value for label, value in changed.items()}).encode()


def scales(**changed):
    entry = {"random": [[0.0]], "scripted": [[1.0]]} | changed
    keys = [f"{variant}/{task}" for variant in ("kinematic", "inertial") for task in ("center", "forage")]
    return json.dumps(dict.fromkeys(keys, entry)).encode()


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        *((RUN + "results.json", text, "cannot be read") for text in (b"", b"{", b"\xff", b"[" * 50_000)),
        (RUN + "results.json", b" " * (1 << 24) + b"{}", "it has more than 16 MiB"),
        *(
            (RUN + "results.json", text, "is not a run's results: its scores of")
            for text in (b"{}", b"[]", b"1", b"null")
        ),
        (RUN + "results.json", results(script=1), "its scores of 'script' are not finite numbers"),
        (RUN + "results.json", results(script={"scores": []}), "its scores of 'script' are not finite numbers"),
        (RUN + "results.json", results(script={"scores": [[1], [1, 2]]}), "its scores of 'script' are not finite"),
        (RUN + "results.json", results(script={"scores": [[10**400]]}), "its scores of 'script' are not finite"),
        (RUN + "results.json", results(script={"scores": [[float("nan")]]}), "its scores of 'script' are not finite"),
        ("scales.json", b"{", "cannot be read"),
        ("scales.json", b"[1]", "is damaged: it has no finite scores [seeds][teams] for kinematic/center"),
        ("scales.json", scales(random=3), "is damaged"),
        ("scales.json", scales(random=[[0.0, 1.0]]), "is damaged"),
        ("scales.json", scales(scripted=[[float("nan")]]), "is damaged"),
        ("scales.json", scales(overrides=["task=group"]), "is of another plan, which sets kinematic/center otherwise"),
        (RUN + "overrides.yaml", b"a: [", "cannot be read"),
        (RUN + "overrides.yaml", b"a: 1", "cannot be read: it is not a list"),
        (RUN + "events", b"\xff" * 1000, "has no whole learning curve"),
    ],
)
def test_a_damaged_file_is_named_with_the_reason_and_the_remedy(invoke, out, file, content, reason):
    if file.endswith("events"):
        [path] = (out / RUN).glob("events.out.tfevents.*")
    else:
        path = out / file
    path.write_bytes(content)
    code, _, err = invoke(study.main, "smoke", "--out", "out", "--report")
    assert (code, err.count("\n")) == (1, 1)
    assert str(Path("out", file.removesuffix("/events").rpartition("/")[0])) in err
    assert reason in err
    assert "Remove this" in err
    assert not Path("out/report.html").exists()


def test_a_curve_that_ends_before_its_run_did_is_damaged(invoke, out):
    (out / RUN / "config.yaml").write_text("trainer: {total_steps: 1000000}\n")
    code, _, err = invoke(study.main, "smoke", "--out", "out", "--report")
    assert (code, err.count("\n")) == (1, 1)
    assert "center-1 has no whole learning curve" in err


def test_a_plan_whose_runs_have_no_scores_is_refused_before_they_are_made(invoke, tmp_path):
    plan = Path(config_folder() / "study" / "smoke.yaml").read_text("utf-8")
    (tmp_path / "plan.yaml").write_text(plan.replace("evaluations=1", "evaluations=0"))
    code, _, err = invoke(study.main, "plan.yaml", "--dry-run")
    assert code == 1
    assert "evaluations=0 leaves no score for a study to compare" in err


def test_a_table_that_cannot_be_written_leaves_the_old_ones(invoke, out):
    (out / "chosen.json").write_text("{")  # for people: it is never read
    assert invoke(study.main, "smoke", "--out", "out", "--report")[0] == 0
    assert json.loads((out / "chosen.json").read_text()) == {"discrete": 0, "gaussian": 0}
    before = {name: (out / name).read_bytes() for name in ("results.csv", "summary.csv", "report.html")}
    (out / "results.csv").unlink()
    (out / "results.csv").mkdir()
    code, _, err = invoke(study.main, "smoke", "--out", "out", "--report")
    assert (code, err.count("\n")) == (1, 1)
    assert "out/results.csv could not be written" in err
    assert (out / "summary.csv").read_bytes() == before["summary.csv"]
    assert (out / "report.html").read_bytes() == before["report.html"]

"""If a file that a study reads back is damaged, one sentence names it, the reason and the remedy."""

import json
import shutil
from pathlib import Path

import pytest

from particle_grid import study
from particle_grid.experiments.study.plan import find_plan, read_plan
from tests.experiments.fakes import fake_run, reference_scores

RUN = "test/kinematic/gaussian/center-1/"
RESULTS = RUN + "results.json"
pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study whose runs are all finished."""
    out = tmp_path_factory.mktemp("study") / "out"
    plan = read_plan(find_plan("smoke"))
    for job in [*plan.tuning_jobs(out).values(), *plan.test_jobs(out, dict.fromkeys(plan.arms, 0)).values()]:
        fake_run(job)
    (out / "plan.yaml").write_bytes(find_plan("smoke").read_bytes())
    (out / "reference_scores.json").write_bytes(reference_scores())
    return out


@pytest.fixture
def out(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def results(scores):
    """Return the content of results.json with these scores of the scripted policy."""
    entry = {"scores": [[0.5], [0.5]], "normalised_scores": [0.5, 0.5]}
    players = dict.fromkeys(("sampled", "greedy", "random"), entry)
    return json.dumps(players | {"scripted": entry | {"scores": scores}}).encode()


def report(invoke):
    return invoke(study.main, "smoke", "--out", "out", "--report")


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        *((RESULTS, text, "cannot be read") for text in (b"", b"{", b"\xff", b"[" * 50_000)),
        (RESULTS, b" " * (1 << 24) + b"{}", "it has more than 16 MiB"),
        (RESULTS, b"{}", "has no scores of 'random'"),
        *((RESULTS, text, "is not a run's results") for text in (b"[]", b"1", b"null")),
        *(
            (RESULTS, results(scores), "its scores of 'scripted' are not finite numbers")
            for scores in (1, [], [[1], [1, 2]], [[10**400]], [[float("nan")]])
        ),
        ("reference_scores.json", b"{", "cannot be read"),
        ("reference_scores.json", b"[1]", "is damaged: it has no finite scores [seeds][teams] of kinematic/center"),
        *(
            ("reference_scores.json", reference_scores(**changed), "is damaged")
            for changed in ({"random": 3}, {"random": [[0.0, 1.0]]}, {"scripted": [[float("nan")]]})
        ),
        *(
            ("reference_scores.json", reference_scores(overrides=overrides), "belongs to another plan, which has other")
            for overrides in (["task=group"], 3)
        ),
        (RUN + "overrides.yaml", b"a: [", "cannot be read"),
        (RUN + "overrides.yaml", b"a: 1", "cannot be read: it is not a list"),
        (RUN + "events", b"\xff" * 1000, "has no complete learning curve"),
        (RUN + "config.yaml", b"trainer: {total_steps: 1000000}\n", "has no complete learning curve"),  # incomplete
    ],
)
def test_a_damaged_file_is_named_with_the_reason_and_the_remedy(invoke, out, file, content, reason):
    path = next((out / RUN).glob("events.out.tfevents.*")) if file.endswith("events") else out / file
    path.write_bytes(content)
    code, _, err = report(invoke)
    assert (code, err.count("\n")) == (1, 1)
    assert str(Path("out", file).parent) in err
    assert reason in err
    assert "Remove this" in err
    assert not Path("out/report.html").exists()


def test_a_plan_whose_runs_have_no_scores_is_refused_before_they_start(invoke, tmp_path):
    plan = find_plan("smoke").read_text("utf-8")
    (tmp_path / "plan.yaml").write_text(plan.replace("evaluations=1", "evaluations=0"))
    code, _, err = invoke(study.main, "plan.yaml", "--dry-run")
    assert code == 1
    assert "evaluations=0 leaves no score for a study to compare" in err


def test_a_table_that_cannot_be_written_keeps_the_old_tables(invoke, out):
    (out / "chosen.json").write_text("{")  # for human readers only; the program never reads it
    assert report(invoke)[0] == 0
    assert json.loads((out / "chosen.json").read_text()) == {"discrete": 0, "gaussian": 0}
    before = {name: (out / name).read_bytes() for name in ("results.csv", "summary.csv", "report.html")}
    (out / "results.csv").unlink()
    (out / "results.csv").mkdir()
    code, _, err = report(invoke)
    assert (code, err.count("\n")) == (1, 1)
    assert "out/results.csv could not be written" in err
    assert (out / "summary.csv").read_bytes() == before["summary.csv"]
    assert (out / "report.html").read_bytes() == before["report.html"]

"""The plans of studies: those that ship run to their end, and those that are invalid are refused in one sentence."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from particle_grid import study
from particle_grid.cli import config_folder
from particle_grid.experiments import study_config
from particle_grid.experiments.plan import load_plan

REFUSED = "p.yaml cannot be (used|read)"
FOLDER = config_folder() / "study"
SMOKE = (FOLDER / "smoke.yaml").read_text("utf-8")
PLANS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SMALL = [
    *("world.worlds=1", "world.agents=32", "world.height=48", "world.width=48", "world.lifespan=20"),
    *(
        "policy.hidden=16",
        "trainer.rollout_length=8",
        "trainer.minibatch=64",
        "trainer.total_steps=2000",
        "evaluations=1",
    ),
]


def shrunk(name, arms, tasks, variants):
    """Write a plan with the first few arms, tasks and variants of a shipped one, and two seeds, on small worlds."""
    plan = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    kept = list(dict.fromkeys([plan["reference"], plan["scale"], *plan["arms"]]))[:arms]
    plan["arms"] = {arm: plan["arms"][arm] for arm in kept}
    for arm in plan["arms"].values():
        arm["overrides"] += SMALL
    plan["tasks"] = {key: plan["tasks"][key] for key in list(plan["tasks"])[-tasks:]}
    plan["variants"] = {key: plan["variants"][key] for key in list(plan["variants"])[-variants:]}
    plan["seeds"] = plan["seeds"][:2]
    tuning = plan["tuning"]
    tuning |= {"tasks": list(plan["tasks"])[-1:] if tuning["tasks"] else [], "seeds": tuning["seeds"][:1]}
    tuning["draws"] = min(tuning["draws"], 2)
    OmegaConf.save(OmegaConf.create(plan), f"{name}.yaml")
    return f"{name}.yaml"


def runs_to_its_end(plan):
    command = [sys.executable, "-m", "particle_grid.study", plan, "--out", "out"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "report.html" in process.stdout
    with Path("out/summary.csv").open() as file:
        assert {line["arm"] for line in csv.DictReader(file)} == set(OmegaConf.load(plan).arms)
    assert Path("out/report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_a_shipped_plan_that_tunes_nothing_runs_to_its_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs_to_its_end(shrunk("axes", arms=2, tasks=1, variants=1))


@pytest.mark.release
@pytest.mark.parametrize("name", PLANS)
def test_every_shipped_plan_runs_to_its_end(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs_to_its_end(shrunk(name, arms=3, tasks=2, variants=2))


@pytest.mark.parametrize("name", PLANS)
def test_the_configs_of_a_plan_are_what_hydra_composes(name):
    plan, _ = load_plan(name)
    jobs = [*plan.tuning_jobs(Path()).values(), *plan.test_jobs(Path(), dict.fromkeys(plan.arms, 0)).values()]
    for job in [jobs[0], jobs[len(jobs) // 3], jobs[-1]]:
        expected = OmegaConf.to_container(study_config.composed(job.overrides), resolve=True)
        assert study_config.run_config(job.overrides) == expected


@pytest.mark.parametrize(
    "overrides",
    [
        ("world={agents: 7, height: 20}", "task=forage"),
        ("experiment=smoke", "trainer.rollout_length=16", "task=puffer", "task.text='a=b, [c]'"),
        ("~clips", "++evaluations=2", "+mine=3"),
        ("name=${task.name}-x", "action=continuous", "policy.head=beta"),
    ],
)
def test_overrides_of_every_kind_mean_what_they_mean_to_hydra(overrides):
    expected = OmegaConf.to_container(study_config.composed(overrides), resolve=True)
    assert study_config.run_config(overrides) == expected


def refused(invoke, content, *arguments):
    """Return the sentence with which a plan is refused, before anything is written."""
    Path("p.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = invoke(study.main, "p.yaml", "--out", "out/here", *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    assert "PARTICLE_GRID_TRACEBACK" not in err  # that is how errors end that nobody foresaw
    assert [path.name for path in Path().iterdir()] == ["p.yaml"]
    return err


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "..", "", "a/b", "a\\b", "-x", ".x", "x" * 300, "a\tb", "\u202ex"]
)
@pytest.mark.parametrize("kind", ["arm", "variant", "task"])
def test_names_that_could_lead_out_of_the_folder_are_refused(invoke, kind, name):
    plan = OmegaConf.to_container(OmegaConf.create(SMOKE))
    group, old = {"arm": ("arms", "gaussian"), "variant": ("variants", "inertial"), "task": ("tasks", "forage")}[kind]
    plan[group][name] = plan[group].pop(old)
    if kind == "arm":
        plan["scale"] = name
    assert f"{name!r} is not a name for the {kind} of a plan" in refused(invoke, OmegaConf.to_yaml(plan))


@pytest.mark.parametrize("name", ["../train", "/etc/passwd", "..", ""])
def test_the_name_of_a_plan_is_no_path(invoke, name):
    code, _, err = invoke(study.main, name)
    assert code == 1
    assert err.startswith(f"error: There is no plan {name!r}.")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("\nseeds: [0, 1]", "\nseeds: -1", "seeds"),
        ("\nseeds: [0, 1]", '\nseeds: "a"', "seeds"),
        ("\nseeds: [0, 1]", "\nseeds: [-1, 1]", "seeds=[-1, 1] cannot be: give different whole numbers from 0 on"),
        ("\nseeds: [0, 1]", "\nseeds: [0, 0]", "seeds=[0, 0] cannot be: give different whole numbers"),
        ("\nseeds: [0, 1]", "\nseeds: [0, 99999999999999999999]", "below 2**63"),
        ("\nseeds: [0, 1]", "\nseeds: [2020-01-01, 1]", "seeds=['2020-01-01', 1]"),
        ("\nseeds: [0, 1]", f"\nseeds: {[*range(200, 6700)]}", "split it into several plans"),
        ("draws: 2", "draws: 0", "The plan needs two seeds, a draw, a task and a variant at least."),
        ("draws: 2", "draws: 1000000000", "is more than arm discrete has sets of knobs (2)"),
        ("[1.0e-3, 2.0e-3]", "[]", "is more than arm discrete has sets of knobs (0)"),
        ("[1.0e-3, 2.0e-3]", f"{[*range(1001)]}\n  trainer.gamma: {[*range(1001)]}", "1,002,001 sets of knobs"),
        ("[1.0e-3, 2.0e-3]", "3", "search.trainer.learning_rate"),
        ("[1.0e-3, 2.0e-3]", "[{a: 1}, 2]", "cannot be read: write key=value"),
        ("[1.0e-3, 2.0e-3]", "[fast, 2]", "trainer.learning_rate=fast cannot be"),
        ("thresholds: [0.5]", "thresholds: [.nan]", "thresholds=[nan] cannot be: give different finite numbers."),
        ("- clips=0", "- resume=x.pt", "a study gives resume to each run"),
        ("- clips=0", "- +seed=3", "a study gives seed to each run"),
        ("- clips=0", "- hydra.run.dir=/tmp/x", "a study gives hydra.run.dir to each run"),
        ("- clips=0", "- --multirun", "'--multirun' cannot be an override: write KEY=VALUE"),
        ("- clips=0", "- {a: b}", "cannot be an override: write KEY=VALUE"),
        ("- clips=0", "- world.agents=-3", "agents=-3 is too small"),
        ("scale: gaussian", "scale: ???", "Missing mandatory value: scale"),
        ("arms:  #", "arms: 3\nx:  #", "There is no key 'x'"),
    ],
)
def test_values_of_a_plan_that_are_invalid_are_refused_in_a_sentence(invoke, old, new, reason):
    assert old in SMOKE
    assert reason in refused(invoke, SMOKE.replace(old, new, 1))


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "content",
    [
        *(b"\xff\xfe\x80", "\0", "a: [", "- a\n- b\n", SMOKE + "seeds: [4, 5]\n", "[" * 20_000, "x" * 1_000_000),
        *(ALIASES, "question: !!python/object/apply:os.system ['touch done']\n", "question: ${question}\n", ""),
    ],
)
def test_a_file_that_is_no_plan_is_refused_in_a_sentence(invoke, content):
    assert re.match(f"error: {REFUSED}", refused(invoke, content))


def test_a_damaged_copy_of_the_plan_is_refused_in_a_sentence(invoke):
    Path("out").mkdir()
    Path("out/plan.yaml").write_text("a: [")
    code, _, err = invoke(study.main, "smoke", "--out", "out")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: out/plan.yaml cannot be read")


def test_the_time_left_is_that_of_runs_that_did_not_compile():
    slow, fast, total = 100.0, 10.0, 10
    ends = [slow, slow + 0.5]
    assert study.time_left(ends, total, 2) == ""
    for k in range(2, total):
        ends.append(slow + 0.5 * (k % 2) + fast * (k // 2))
        assert study.time_left(ends, total, 2) == f"{fast * (total - len(ends)) / 2 / 60:.0f} minutes left"

"""Plans of studies: shipped plans treat all arms equally, and invalid plans are refused in one sentence."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from particle_grid import study
from particle_grid.experiments.study import plan
from particle_grid.experiments.study.plan import find_plan, read_plan
from particle_grid.settings.compose import config_folder

FOLDER = config_folder() / "study"
SMOKE = (FOLDER / "smoke.yaml").read_text("utf-8")
PLANS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SMALL = [
    *("world.worlds=1", "world.agents=32", "world.height=48", "world.width=48", "world.lifespan=20"),
    *("policy.hidden=16", "trainer.rollout_length=8", "trainer.minibatch=64", "trainer.total_steps=2000"),
    "evaluations=1",
]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PLANS)
def test_each_arm_of_a_plan_has_the_same_budget_and_is_tested_with_new_seeds(name):
    plan = read_plan(find_plan(name))
    tuning = plan.tuning_jobs(Path("x"))
    tests = plan.test_jobs(Path("x"), dict.fromkeys(plan.arms, plan.tuning.trials - 1))
    for jobs in (tuning, tests):
        assert len({job.folder for job in jobs.values()}) == len({job.overrides for job in jobs.values()}) == len(jobs)
        assert len({sum(key.arm == arm for key in jobs) for arm in plan.arms}) == 1
    assert not {key.seed for key in tuning} & {key.seed for key in tests}
    for arm in plan.arms:
        trials = plan.trials(arm)
        assert len(set(trials)) == plan.tuning.trials
        assert trials[0] == tuple((key, values[0]) for key, values in plan.space(arm).items())


def test_the_folders_of_runs_have_stable_names():
    plan = read_plan(find_plan("smoke"))
    tuning = {job.folder.path.as_posix() for job in plan.tuning_jobs(Path("x")).values()}
    assert tuning == {f"x/tuning/{arm}/{k}/center-100" for arm in plan.arms for k in range(2)}
    tests = {job.folder.path.as_posix() for job in plan.test_jobs(Path("x"), dict.fromkeys(plan.arms, 1)).values()}
    assert "x/test/inertial/gaussian/forage-1" in tests


def test_a_plan_of_an_earlier_version_equals_the_equivalent_current_plan():
    new = SMOKE.replace(
        "  trainer.learning_rate: [1.0e-3, 2.0e-3]", "  trainer.env_splits: [1, 2]\n  policy.init_action_rms: [0.5]"
    )
    old = new
    for name, old_name in {
        "reference_scores:": "scale:",
        "trials:": "draws:",
        "policy.init_action_rms": "policy.first_move",
        "trainer.rollout_length": "trainer.horizon",
        "trainer.env_splits": "trainer.lanes",
    }.items():
        assert name in new
        old = old.replace(name, old_name)
    Path("old.yaml").write_text(old)
    Path("new.yaml").write_text(new)
    assert read_plan(Path("old.yaml")) == read_plan(Path("new.yaml"))


def shrunk(name, arms, tasks, variants):
    """Write a shipped plan reduced to its first arms, tasks and variants, two seeds, and small worlds."""
    plan = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    kept = list(dict.fromkeys([plan["reference"], plan["reference_scores"], *plan["arms"]]))[:arms]
    plan["arms"] = {arm: plan["arms"][arm] for arm in kept}
    for arm in plan["arms"].values():
        arm["overrides"] += SMALL
    chains = {label: [arm for arm in chain if arm in kept] for label, chain in plan.get("chains", {}).items()}
    plan["chains"] = {label: chain for label, chain in chains.items() if len(chain) > 1}
    plan["tasks"] = {key: plan["tasks"][key] for key in list(plan["tasks"])[-tasks:]}
    plan["variants"] = {key: plan["variants"][key] for key in list(plan["variants"])[-variants:]}
    plan["seeds"] = plan["seeds"][:2]
    tuning = plan["tuning"]
    tuning |= {"tasks": list(plan["tasks"])[-1:] if tuning["tasks"] else [], "seeds": tuning["seeds"][:1]}
    tuning["trials"] = min(tuning["trials"], 2)
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
def test_a_shipped_plan_without_tuning_runs_from_end_to_end():
    runs_to_its_end(shrunk("axes", arms=2, tasks=1, variants=1))


@pytest.mark.release
@pytest.mark.parametrize("name", PLANS)
def test_every_shipped_plan_runs_from_end_to_end(name):
    runs_to_its_end(shrunk(name, arms=3, tasks=2, variants=2))


@pytest.mark.release
@pytest.mark.parametrize("name", ["ladder", "still"])
def test_every_arm_of_a_plan_with_its_own_settings_runs_from_end_to_end(name):
    runs_to_its_end(shrunk(name, arms=None, tasks=1, variants=1))


def refused(invoke, content, *arguments):
    """Return the sentence with which a plan is refused before anything is written."""
    Path("p.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = invoke(study.main, "p.yaml", "--out", "out/here", *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    assert "PARTICLE_GRID_TRACEBACK" not in err  # the message of unforeseen errors mentions it
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
        plan["reference_scores"] = name
    assert f"{name!r} is not a valid name of {kind}s" in refused(invoke, OmegaConf.to_yaml(plan))


@pytest.mark.parametrize("name", ["../train", "/etc/passwd", "..", ""])
def test_the_name_of_a_plan_is_not_a_path(invoke, name):
    code, _, err = invoke(study.main, name)
    assert code == 1
    assert err.startswith(f"error: There is no plan {name!r}.")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("reference: discrete", "reference: discret", "There is no arm 'discret', which reference names. Did you mean"),
        ("reference_scores: gaussian", "reference_scores: ???", "Missing mandatory value: reference_scores"),
        ("thresholds: [0.5]", "thresholds: [0.5]\nnull_control: bins3", "There is no arm 'bins3', which null_control"),
        ("thresholds: [0.5]", "thresholds: [0.5]\nsteps_per_second: 0", "steps_per_second=0 is invalid: give a whole"),
        ("thresholds: [0.5]", "thresholds: [0.5, 1.5]\nrelative_thresholds: true", "give shares above 0 and up to 1"),
        ("range: [discrete, gaussian]", "range: [discrete, beta]", "There is no arm 'beta', which chains.range names"),
        (
            "range: [discrete, gaussian]",
            "range: [discrete]",
            "chains.range=['discrete'] is invalid: give two different",
        ),
        ("range: [discrete, gaussian]", "range: [gaussian, gaussian]", "is invalid: give two different arms or more"),
        ("tasks: [center], seeds", "tasks: [group], seeds", "There is no task 'group', which tuning.tasks names"),
        ("seeds: [100]", "seeds: [1]", "Seed 1 is used for both tuning and testing"),
        ("\nseeds: [0, 1]", "\nseeds: [0]", "The plan needs at least two seeds"),
        ("\nseeds: [0, 1]", "\nseeds: -1", "seeds"),
        ("\nseeds: [0, 1]", '\nseeds: "a"', "seeds"),
        ("\nseeds: [0, 1]", "\nseeds: [-1, 1]", "seeds=[-1, 1] is invalid: give different whole numbers"),
        ("\nseeds: [0, 1]", "\nseeds: [0, 0]", "seeds=[0, 0] is invalid: give different whole numbers"),
        ("\nseeds: [0, 1]", "\nseeds: [0, 99999999999999999999]", "below 2**63"),
        ("\nseeds: [0, 1]", "\nseeds: [2020-01-01, 1]", "seeds=['2020-01-01', 1]"),
        ("trials: 2", "trials: 0", "The plan needs at least two seeds, one trial, one task and one variant."),
        ("trials: 2", "trials: two", "tuning.trials"),
        ("trials: 2", "trials: 3", "tuning.trials=3 is more than arm discrete has sets of hyperparameters (2)"),
        ("trials: 2", "trials: 2, draws: 2", "draws"),
        ("[1.0e-3, 2.0e-3]", "[]", "is more than arm discrete has sets of hyperparameters (0)"),
        ("[1.0e-3, 2.0e-3]", f"{[*range(1001)]}\n  trainer.gamma: {[*range(1001)]}", "1,002,001 sets of hyperp"),
        ("[1.0e-3, 2.0e-3]", "3", "search.trainer.learning_rate"),
        ("[1.0e-3, 2.0e-3]", "[{a: 1}, 2]", "cannot be read: close brackets"),
        ("[1.0e-3, 2.0e-3]", "[fast, 2]", "trainer.learning_rate=fast is invalid"),
        ("thresholds: [0.5]", "thresholds: [.nan]", "thresholds=[nan] is invalid: give different finite numbers."),
        ("thresholds:", "threshold:", "There is no key 'threshold'. Did you mean thresholds?"),
        ("policy.hidden=16", "policy.hiden=16", "There is no key 'hiden' in policy. Did you mean hidden?"),
        ("- clips=0", "- resume=x.pt", "a study sets resume for each run"),
        ("- clips=0", "- +seed=3", "a study sets seed for each run"),
        ("- clips=0", "- hydra.run.dir=/tmp/x", "a study sets hydra.run.dir for each run"),
        ("- clips=0", "- --multirun", "'--multirun' is not an override: write KEY=VALUE"),
        ("- clips=0", "- {a: b}", "is not an override: write KEY=VALUE"),
        ("- clips=0", "- world.agents=-3", "agents=-3 is too small"),
        ("arms:  #", "arms: 3\nx:  #", "There is no key 'x'"),
    ],
)
def test_an_invalid_plan_is_refused_in_a_sentence(invoke, old, new, reason):
    assert old in SMOKE
    assert reason in refused(invoke, SMOKE.replace(old, new, 1))


def test_a_plan_of_too_many_runs_is_refused(invoke, monkeypatch):
    monkeypatch.setattr(plan, "MOST_RUNS", 19)
    assert "The plan has 20 runs, more than 19: split it into several plans." in refused(invoke, SMOKE)


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
def test_a_file_that_is_not_a_plan_is_refused_in_a_sentence(invoke, content):
    assert re.match("error: p.yaml (cannot be read|is not a valid plan)", refused(invoke, content))


def test_a_damaged_copy_of_the_plan_is_refused_in_a_sentence(invoke):
    Path("out").mkdir()
    Path("out/plan.yaml").write_text("a: [")
    code, _, err = invoke(study.main, "smoke", "--out", "out")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("error: out/plan.yaml cannot be read")

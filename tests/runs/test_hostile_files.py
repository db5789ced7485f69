"""Crafted, damaged and then signed checkpoints are refused in a sentence, or are sound."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from particle_grid import eval as evaluation
from particle_grid import train
from particle_grid.evaluation import match
from particle_grid.experiments.pool import Job
from particle_grid.learn import checkpoint
from particle_grid.runs.folder import RunFolder
from particle_grid.runs.load import load_checkpoint
from tests.runs.hostile import SECONDS, TRAPS, archived, problem, rewritten, signed, unsigned
from tests.test_train import BATCH, ROOT, TINY


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Return a small checkpoint of a training run with every part that one can have."""
    folder = tmp_path_factory.mktemp("good")
    arguments = [*TINY, "task=center", "trainer.fast=off", f"trainer.total_steps={2 * BATCH}", "clips=0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(match, "STEPS", 8)
        assert problem(train.main, *arguments, "hydra.run.dir=run") == ("", 0)
    return folder / "run" / "checkpoint.pt"


def put(path, keys, value):
    """Write a signed checkpoint in which one value is replaced."""
    state = checkpoint.load(path)
    inner = state
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value(inner[keys[-1]]) if callable(value) else value
    Path("crafted.pt").write_bytes(signed(archived(state)))


def refused(call, main, *arguments):
    """Return the one sentence with which a command refuses its arguments."""
    code, out, err = call(main, *arguments)
    assert (code, err.count("\n")) == (1, 1), (out, err)
    assert err.startswith("error: ")
    assert "PARTICLE_GRID_TRACEBACK" not in err, err  # marks an unforeseen error
    assert err.rstrip("\n").isprintable()
    return err


def test_a_file_that_unpacks_to_more_than_its_size_is_refused_before_unpacking(call, good):
    content = unsigned(good)
    for name, change in (
        ("compressed", {"compression": zipfile.ZIP_DEFLATED}),
        ("bomb", {"compression": zipfile.ZIP_DEFLATED, "members": {"archive/data/0": bytes(1 << 24)}}),
    ):
        Path(f"{name}.pt").write_bytes(signed(rewritten(content, **change)))
        assert "it unpacks to more than it holds" in refused(call, evaluation.main, f"checkpoint={name}.pt")


def test_instructions_that_torch_never_writes_are_refused_and_not_executed(call, good):
    for name, instructions in TRAPS.items():
        Path("trapped.pt").write_bytes(signed(rewritten(unsigned(good), {"archive/data.pkl": instructions})))
        with pytest.raises(ValueError, match=r"is not a checkpoint or is damaged|has no config"):
            load_checkpoint("trapped.pt", resume=True)
        assert not Path("trap").exists(), name
    assert "is not a checkpoint or is damaged" in refused(call, evaluation.main, "checkpoint=trapped.pt")


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (["steps"], -5, "steps is -5"),
        (["steps"], float("nan"), "steps is nan"),
        (["steps"], "many", "steps is 'many'"),
        (["steps"], (1 << 63) - 1, "steps is 9223372036854775807, more than a run can make"),
        (["policy"], "weights", "policy is not a group of weights"),
        (["policy", "actor.weight"], lambda x: x.fill_(float("nan")), "policy.actor.weight is not finite"),
        (["policy", "critic.bias"], lambda x: x.fill_(float("inf")), "policy.critic.bias is not finite"),
        (["policy", "actor.weight"], lambda x: x[:1], "The weights do not fit the policy"),
        # Nothing of this size is allocated.
        (["config", "policy", "hidden"], 16384, "The weights do not fit the policy"),
        (["config", "policy", "vision"], 3, "config.policy.vision is not an option of a policy"),
        (["config", "world"], [1], "config.world is not a group of settings"),
        (["config", "world", "agents"], "many", "agents='many' is not a whole number"),
        (["config", "world", "mass"], 3, "config.world.mass is not a setting that worlds have"),
        (["config", "task"], "group", "config.task is not a group of settings"),
        (["config", "task", "buf"], {}, "config.task.buf is not a parameter of a task"),
        (["config", "name"], "${oc.env:HOME}", "'${oc.env:HOME}', which refers to another value"),
        (["config", "name"], "a\x1b[31mb", r"config.name is 'a\x1b[31mb', not a name"),
        (["config", "seed"], -1, "config.seed is -1"),
        (["config", "action", "name"], "jump", "config.action.name is 'jump', not discrete or continuous"),
        (["config"], None, "it has no config"),
    ],
)
def test_impossible_values_in_a_checkpoint_are_refused_in_one_sentence(call, good, keys, value, reason):
    """The same holds for `play`, `rank` and `transfer`, which use the same reader."""
    put(good, keys, value)
    assert reason in refused(call, evaluation.main, "checkpoint=crafted.pt", "seeds=1", "steps=2")


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (["config", "trainer"], 3, "config.trainer is not a group of settings"),
        (["config", "trainer", "gamma"], "${oc.env:HOME}", "which refers to another value"),
        (["envs"], [], "envs is not a list of the states of worlds"),
        (["envs", 0, "grid"], None, "has no 'grid'"),
        (["envs", 0, "grid"], lambda x: x.bfloat16(), "envs is not a list of the states of worlds"),
        (["optimiser", "state", 0, "momentum_buffer"], lambda x: x[:1].clone(), "policy or device differs"),
        (["optimiser", "state", 1, "exp_avg"], lambda x: x[:1].clone(), "policy or device differs"),
        (["optimiser", "state", 0], None, "policy or device differs"),
        (["optimiser", "param_groups"], "any", None),  # the run uses its own settings
        (["state", 0], lambda x: x[:1], "state is of other agents than it has"),
        (["state", 0], lambda x: x[:, :1].clone(), "policy or device differs"),
        (["generator"], lambda x: x.float(), "generator is not that of a generator"),
        (["starts"], lambda x: x.float(), "starts is not a mask of agents"),
        (["opponents"], [{"frozen": -(10**18), "selves": []}], "opponents.frozen is -"),
    ],
)
def test_a_state_that_no_run_can_resume_is_refused_in_one_sentence(call, good, keys, value, reason):
    state = checkpoint.load(good)
    if keys[0] == "state":  # a tuple
        state["state"] = [value(state["state"][0]), *state["state"][1:]]
        Path("crafted.pt").write_bytes(signed(archived(state)))
    else:
        put(good, keys, value)
    if reason is None:
        assert call(train.main, "resume=crafted.pt", f"trainer.total_steps={3 * BATCH}", "hydra.run.dir=run")[0] == 0
    else:
        assert reason in refused(call, train.main, "resume=crafted.pt", "hydra.run.dir=run")
        assert not Path("run/checkpoint.pt").exists()
        assert not Path("run/results.json").exists()


@pytest.mark.parametrize("keys", [["task", "name"], ["policy", "name"], ["policy", "head"]])
def test_a_module_named_only_by_a_checkpoint_is_not_imported(call, good, keys, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('trap').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    put(good, ["config", *keys], "evil:Class")
    ways = [(train.main, "resume=crafted.pt"), (evaluation.main, "checkpoint=crafted.pt")]
    ways += [(evaluation.main, "checkpoint=[crafted.pt]")] * (keys[0] == "task")
    for main, argument in ways:
        assert "add allow=[evil:Class] to the command line, or allow=['evil:Class'] to the call" in refused(
            call, main, argument
        )
        assert not Path("trap").exists()
        assert "evil" not in sys.modules
        assert "evil:Class" in refused(call, main, argument, "allow=[evil:Class]")  # which is not a class
        assert Path("trap").exists()
        Path("trap").unlink()
        del sys.modules["evil"]
    if keys[0] == "task":  # with a task other than the named one
        assert call(evaluation.main, "checkpoint=crafted.pt", "task=scatter", "seeds=1", "steps=2")[0] == 0
        assert not Path("trap").exists()


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", ".", "''", "a\\b", '"a\x1b[31mb"', "x" * 201, "null"])
def test_a_name_never_leads_to_another_folder(call, name, tmp_path):
    ways = [("hydra.run.dir=run",), ("-m", "hydra.sweep.dir=sweep", "hydra/hydra_logging=disabled")]
    for arguments in ((), *(ways if name == "../../x" else ())):
        code, _, err = call(train.main, *arguments, f"name={name}")
        assert code == 1
        assert "cannot be part of a folder's name" in err
        assert err.count("\n") == 1
        assert err[:-1].isprintable()
        assert not [path for path in tmp_path.rglob("*") if path.is_dir() and path.name != "sweep"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"sampled": 1, "version": 2}',
        '{"policy, sampled": {"normalised_scores": "high"}}',
        "[" * 100_000,
        "\x00",
    ],
)
def test_files_that_are_not_results_are_refused_in_a_sentence(content, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"results\.json (cannot be read|is not a run's results).* Remove this run's folder"
    ):
        RunFolder(tmp_path).read_results()


def test_the_classes_of_users_are_allowed_when_a_study_resumes_a_run(tmp_path):
    job = Job(RunFolder(tmp_path), ("task=corners:Corners", "seed=0", "policy.head=laplace:Laplace"))
    (tmp_path / "checkpoint.pt").touch()
    assert "allow=[corners:Corners,laplace:Laplace]" in job.arguments


def assault(good, seeds):
    """Let a separate process read attacked files, and return what went wrong by seed."""
    problems = {}
    seeds = list(seeds)
    while seeds:
        folder = good.parent / f"attack-{seeds[0]}"
        folder.mkdir()
        command = [
            sys.executable,
            "-m",
            "tests.runs.hostile",
            str(good),
            str(folder),
            str(seeds[0]),
            str(seeds[-1] + 1),
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with (folder / "said.txt").open("w") as file:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
            try:
                code = process.wait(60 + SECONDS * len(seeds))
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        lines = [json.loads(line) for line in (folder / "done.jsonl").read_text().splitlines()]
        problems |= {line["seed"]: line["problem"] for line in lines if line["problem"]}
        if code == 0:
            break
        lost = lines[-1]["seed"] + 1 if lines else seeds[0]
        problems[lost] = f"the process ended with {code}: {(folder / 'said.txt').read_text()[-300:]}"
        seeds = [seed for seed in seeds if seed > lost]
    return problems


@pytest.mark.slow
def test_signed_attacks_give_a_sentence_or_a_sound_state(good):
    assert assault(good, range(48)) == {}


@pytest.mark.release
def test_five_thousand_signed_attacks_give_a_sentence_or_a_sound_state(good):
    assert assault(good, range(5000)) == {}

"""Invariants of the commands: what users see when something is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from particle_grid import ParticleGrid, rank
from particle_grid import eval as evaluation
from particle_grid.cli import command
from particle_grid.evaluation import match
from particle_grid.learn.config import TrainerConfig
from particle_grid.settings import compose as module
from particle_grid.settings.compose import VERSION_BASE, config_folder, register_groups, run_config, typed
from particle_grid.settings.invocation import Invocation
from particle_grid.sim import tasks
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError
from particle_grid.support.renamed import SETTINGS


@command("train")
def dummy(config: DictConfig, call: Invocation) -> None:
    """Fail in the way that the seed selects, or print the config."""
    run_config(config)
    if config.seed == 1:
        raise UserError("seed=1 is invalid: choose another one.")
    if config.seed == 2:
        print(int("two"))
    if config.seed == 3:
        raise KeyboardInterrupt
    if config.seed == 4:
        raise KeyError("bug")
    if config.seed == 5:
        Path("none/file").read_text()
    print(json.dumps(OmegaConf.to_container(config, resolve=True)))


@pytest.fixture
def run(invoke, monkeypatch):
    """Run the dummy command with arguments in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    return lambda *arguments: invoke(dummy, *arguments)


@pytest.mark.parametrize(
    ("argument", "wrong", "nearest", "listed"),
    [
        ("trainer.totl_steps=1", "key 'totl_steps' in trainer", "total_steps", "minibatch"),
        ("task=grup", "task 'grup'", "group", "predator_prey"),
        ("taks=group", "key 'taks'", "task", "world"),
        ("foo=1", "key 'foo'", None, "seed"),
        ("+foo=1", "key 'foo'", None, "seed"),
        ("++foo=1", "key 'foo'", None, "seed"),
        ("task.colors=3", "key 'colors' in task", "colours", "scale"),
        ("+task.colors=3", "key 'colors' in task", "colours", "scale"),
        ("experiment=smok", "experiment 'smok'", "smoke", "smoke"),
        ("trainer.foo.bar=1", "key 'foo' in trainer", None, "minibatch"),
    ],
)
def test_a_misspelt_word_fails_at_once_and_the_error_lists_the_valid_ones(run, argument, wrong, nearest, listed):
    code, out, err = run(argument)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: There is no {wrong}. ")
    assert (f"Did you mean {nearest}?" in err) if nearest else ("Did you mean" not in err)
    assert listed in err.partition("There are: ")[2]
    assert not list(Path().iterdir())  # no folder for a run that did not start


def test_overrides_presets_and_interpolations_reach_the_config(run):
    code, out, err = run("+experiment=smoke", "task=forage", "action=continuous", "world.height=99", "++seed=7")
    config = json.loads(out)
    assert (code, err) == (0, "")
    assert config["task"] == {"name": "forage", "food": 0.05, "food_reward": 1.0, "tolerance": 0.0}
    assert (config["world"]["height"], config["world"]["width"]) == (99, 128)
    assert config["trainer"]["seed"] == 7
    assert config["name"] == "forage_continuous_seed7"
    [folder] = Path("outputs").iterdir()
    assert folder.name.endswith("_forage_continuous_seed7")


def test_the_message_of_a_user_error_is_printed_unchanged(run):
    assert run("seed=1") == (1, "", "error: seed=1 is invalid: choose another one.\n")


@pytest.mark.parametrize(("seed", "kind"), [(2, "ValueError: invalid literal")])
def test_any_other_value_error_gives_one_line_that_names_its_place(run, seed, kind):
    code, _, err = run(f"seed={seed}")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith(f"error: {kind}")
    assert "PARTICLE_GRID_TRACEBACK=1 shows" in err


def test_an_unusable_path_is_named_with_the_reason_and_the_remedy(run):
    code, _, err = run("seed=5")
    assert code == 1
    assert (
        err == "error: none/file cannot be used (No such file or directory): choose another path, or repair that one.\n"
    )


def test_a_bug_shows_its_traceback(run):
    code, _, err = run("seed=4")
    assert code == 1
    assert err.startswith("Traceback")
    assert re.fullmatch(r"error: KeyError: 'bug' \(test_cli.py:\d+\)", err.splitlines()[-1])


def test_an_environment_variable_shows_the_traceback_of_a_user_error(run, monkeypatch):
    monkeypatch.setenv("PARTICLE_GRID_TRACEBACK", "1")
    code, _, err = run("seed=1")
    assert code == 1
    assert err.startswith("Traceback")
    assert err.endswith("error: seed=1 is invalid: choose another one.\n")


def test_ctrl_c_prints_one_line_and_has_its_own_exit_code(run):
    code, out, err = run("seed=3")
    assert (code, out.count("\n"), err) == (130, 1, "interrupted\n")


def test_ctrl_c_in_a_sweep_says_how_to_resume_the_sweep(run):
    code, out, err = run("-m", "seed=3,0", "hydra.sweep.dir=mine", "hydra/hydra_logging=disabled")
    assert (code, err) == (130, "interrupted\n")
    assert out == "To resume the sweep: the same command with hydra.sweep.dir=mine.\n"


def test_a_run_refused_at_its_start_leaves_no_folder_and_keeps_existing_ones(run):
    assert run("seed=1")[0] == 1
    assert not [*Path("outputs").iterdir()]
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    assert run("seed=1", "hydra.run.dir=mine")[0] == 1
    assert sorted(path.name for path in Path("mine").iterdir()) == [".hydra", "notes.txt"]


def test_a_sweep_reports_a_failing_job_and_runs_the_others(run):
    code, out, err = run("-m", "seed=0,1,4,6", "hydra/hydra_logging=disabled")
    assert code == 1
    assert [json.loads(line)["seed"] for line in out.splitlines()] == [0, 6]
    assert "error in job 1 (seed=1): seed=1 is invalid: choose another one.\n" in err
    assert "error in job 2 (seed=4): KeyError: 'bug'" in err
    assert "Error executing job" not in err
    [folder] = Path("outputs").iterdir()
    jobs = sorted(path.name.rpartition("_")[0] for path in folder.iterdir() if path.is_dir())
    assert jobs == [f"group_discrete_seed{seed}" for seed in (0, 1, 4, 6)]


def test_a_misspelt_value_in_a_sweep_fails_before_the_first_job(run):
    code, out, err = run("-m", "task=forage,grup", "hydra/hydra_logging=disabled")
    assert (code, out) == (1, "")
    assert err.startswith("error: There is no task 'grup'. Did you mean group?")


def test_a_group_of_another_command_is_refused_in_a_sentence(invoke):
    code, _, err = invoke(evaluation.main, "checkpoint=pretrained", "policy=mlp")
    assert (code, err) == (
        1,
        "error: policy cannot be chosen here, because a checkpoint has its own: leave it out (--help lists the "
        "settings).\n",
    )


def test_commands_that_do_not_train_have_no_settings_of_the_trainer(invoke):
    code, _, err = invoke(rank.main, "checkpoints=[pretrained]", "trainer.gamma=0.5")
    assert code == 1
    assert err.startswith("error: There is no key 'trainer'.")
    assert "trainer" not in err.partition("There are: ")[2]


def test_a_task_without_a_yaml_file_is_configured_by_its_class(run, monkeypatch):
    @dataclass(frozen=True)
    class MyTask:
        size: int = 3

    monkeypatch.setattr(tasks, "names", lambda: ["my_task", "group"])
    load = tasks.load
    monkeypatch.setattr(tasks, "load", lambda name: MyTask if name == "my_task" else load(name))
    _, out, _ = run("task=my_task", "task.size=4")
    assert json.loads(out)["task"] == {"name": "my_task", "size": 4}
    _, _, err = run("task.syze=4", "task=my_task")
    assert "There is no key 'syze' in task. Did you mean size?" in err
    del ConfigStore.instance().repo["task"]["my_task.yaml"]


@pytest.mark.parametrize("name", tasks.names())
def test_the_command_line_starts_from_the_defaults_of_the_task_class(name):
    register_groups()
    with initialize_config_dir(str(config_folder()), **VERSION_BASE):
        node = OmegaConf.to_container(compose("train", [f"task={name}"]).task, resolve=True)
    assert node == {"name": name} | {field.name: field.default for field in fields(tasks.load(name))}


def test_environment_class_and_command_line_start_from_the_same_world():
    register_groups()
    with initialize_config_dir(str(config_folder()), **VERSION_BASE):
        config = compose("train", ["task=group"])
    own = tasks.load("group").settings if hasattr(tasks.load("group"), "settings") else {}
    assert typed(World, config.world) == World(**own.get("world", {}))
    assert ParticleGrid().world == World()
    assert ParticleGrid().discrete == (config.action.name == "discrete")
    assert typed(TrainerConfig, config.trainer) == TrainerConfig(**own.get("trainer", {}))


def test_every_command_evaluates_with_the_same_seeds():
    evaluated = OmegaConf.load(config_folder() / "eval.yaml")
    assert tuple(range(evaluated.seed, evaluated.seed + evaluated.seeds)) == match.SEEDS
    assert OmegaConf.load(config_folder() / "rank.yaml").seed == match.SEEDS[0]


def test_no_config_file_repeats_a_default():
    """The dataclass is the only home of a default: a config file holds only what differs."""
    homes = {"world": World(), "trainer": TrainerConfig()}
    for path in config_folder().rglob("*.yaml"):
        node = OmegaConf.load(path)
        for group, defaults in homes.items():
            values = OmegaConf.select(node, group, default=None) or {}
            same = [key for key, value in values.items() if value == getattr(defaults, key)] if path.parent.name else []
            assert not same, f"{path.name} repeats the default of {group}.{same[0]}"


@pytest.mark.parametrize(("old", "new"), SETTINGS.items())
def test_a_renamed_setting_is_refused_with_its_new_name(run, old, new):
    code, out, err = run(f"{old}=1")
    assert (code, out) == (1, "")
    assert err == f"error: {old} is now called {new}: use that name.\n"


def test_every_setting_in_the_configs_has_a_comment():
    for path in config_folder().rglob("*.yaml"):
        settings, _, _ = path.read_text("utf-8").partition("\nhydra:")
        for line in settings.splitlines():
            is_setting = re.match(r"\w+: ", line) and not line.startswith("name: ")
            assert not is_setting or "  # " in line, f"{path.name}: {line}"


@dataclass(frozen=True)
class Settings:
    steps: int
    rate: float = 0.5
    on: bool = True
    label: str | None = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps={self.steps} is negative.")


def settings(**values):
    return typed(Settings, OmegaConf.create({"part": values}).part)


def test_a_typed_node_is_converted_and_checked_by_its_class():
    assert settings(steps=5e6, rate=1, label="a") == Settings(5_000_000, 1.0, True, "a")
    assert isinstance(settings(steps=5e6).steps, int)
    with pytest.raises(ValueError, match="steps=-1 is negative"):
        settings(steps=-1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": "many"}, "part.steps=many is invalid: give a whole number"),
        ({"steps": 1.5}, "part.steps=1.5 is invalid: give a whole number"),
        ({"steps": None}, "part.steps=null is invalid: give a whole number"),
        ({"steps": 1, "on": 3.5}, "part.on=3.5 is invalid: give true or false, such as true"),
        ({"steps": 1, "on": 2}, "part.on=2 is invalid: give true or false"),
        ({"steps": 1, "label": [1]}, r"part.label=\[1\] is invalid: give a word or null"),
        ({}, "part.steps is required"),
        ({"steps": 1, "rat": 1}, "There is no key 'rat' in part. Did you mean rate?"),
    ],
)
def test_a_typed_node_names_the_invalid_value(values, message):
    with pytest.raises(ValueError, match=message):
        settings(**values)


def test_an_installed_package_reads_its_own_configs(monkeypatch, tmp_path):
    assert config_folder().samefile(Path(module.__file__).parents[2] / "conf")
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    assert config_folder() == tmp_path / "conf"


def test_another_hydra_application_finds_the_configs_in_the_package(tmp_path):
    path = "hydra:\n  searchpath: [pkg://particle_grid.conf]\n"
    (tmp_path / "app.yaml").write_text(f"defaults:\n  - action: continuous\n  - _self_\n{path}")
    with initialize_config_dir(str(tmp_path), **VERSION_BASE):
        assert compose("app").action.name == "continuous"


def test_a_process_with_a_user_error_exits_with_one_line(tmp_path):
    code = "from tests.test_cli import dummy; dummy()"
    process = subprocess.run(
        [sys.executable, "-c", code, f"hydra.run.dir={tmp_path}", "seed=1"], capture_output=True, text=True
    )
    assert process.returncode == 1
    assert process.stderr == "error: seed=1 is invalid: choose another one.\n"


@pytest.mark.parametrize("name", ["train", "report", "study"])
def test_ctrl_c_during_the_start_of_a_command_shows_no_traceback(name, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", f"particle_grid.{name}", "--help"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        said = ""
        while "numpy" not in said:  # in the middle of its imports
            said = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in rest


@pytest.mark.slow
def test_foreign_or_invalid_torchrun_variables_are_ignored_or_refused(tmp_path):
    def run(**variables):
        command = [sys.executable, "-m", "particle_grid.train", "task=center", "hydra.run.dir=run"]
        small = ["experiment=smoke", "trainer.total_steps=64", "world.agents=32", "evaluations=0", "clips=0"]
        environment = os.environ | {"PYTHONPATH": str(config_folder().parent)} | variables
        return subprocess.run([*command, *small], cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert "The environment variable WORLD_SIZE=abc is not a number" in run(WORLD_SIZE="abc").stderr
    assert "RANK=2 is not below WORLD_SIZE=2: start the processes with" in run(WORLD_SIZE="2", RANK="2").stderr
    process = run(RANK="1")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "run" / "results.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

"""What --help says: every setting, and the command as it was typed."""

import importlib
import re
import sys
from dataclasses import fields

import pytest
from omegaconf import OmegaConf

from particle_grid import train
from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.policy import OPTIONS
from particle_grid.settings.compose import compose_train, config_folder
from particle_grid.settings.help import of_class
from particle_grid.settings.run_config import flatten
from particle_grid.sim import tasks
from particle_grid.sim.world import World
from particle_grid.support.text import as_written
from tests.cases import CASES


@pytest.mark.parametrize("name", ["train", "eval", "play", "rank", "export", "web", "baselines"])
def test_help_explains_every_setting_of_a_command(invoke, name):
    code, out, err = invoke(importlib.import_module(f"particle_grid.{name}").main, "--help")
    assert (code, err) == (0, "")
    assert f"  python -m particle_grid.{name}" in out
    explained = {line.partition("=")[0] for line in out.splitlines() if re.match(r"[\w.]+=\S*(?: |$)", line)}
    config = OmegaConf.load(config_folder() / f"{name}.yaml")
    wanted = {key for key in config if key not in ("defaults", "hydra", "show")}
    wanted |= {f"show.{key}" for key in config.get("show", ())}
    wanted |= {key for entry in config.defaults if OmegaConf.is_dict(entry) for key in entry if " " not in key}
    if name == "train":
        wanted |= {f"trainer.{field.name}" for field in fields(TrainerConfig)} - {"trainer", "world"}
        wanted |= {f"world.{field.name}" for field in fields(World)} | {"seed", "clips", "evaluations"}
        wanted -= {"trainer", "world"}
        wanted |= {f"task.{field.name}" for field in fields(tasks.load("group"))} | {f"policy.{key}" for key in OPTIONS}
    assert wanted <= explained
    assert (", ".join(tasks.names()) in out) == (name != "rank")


@pytest.mark.parametrize(("task", "action"), CASES)
def test_help_shows_the_settings_of_a_run_with_the_same_choices(invoke, task, action):
    chosen = [f"task={task}", f"action={action}", "policy=mlp", "trainer.clip=0.1", "seed=7", "logger=[csv,wandb]"]
    code, out, err = invoke(train.main, "--help", *chosen)
    assert (code, err) == (0, "")
    shown = dict(re.findall(r"^([\w.]+)=(\S*)", out, re.MULTILINE))
    settings = dict(flatten(OmegaConf.to_container(compose_train(chosen), resolve=True)))
    assert {shown[each] for each in ("task", "action", "policy")} == {task, action, "mlp"}
    for key in settings.keys() - {"name", "task.name", "action.name", "policy.name"}:
        assert shown[key] == as_written(settings[key]), key
    assert not {key for key in shown if key.startswith(("task.", "policy."))} - settings.keys()


def test_help_shows_which_preset_is_chosen(invoke):
    assert "\nexperiment=smoke " in invoke(train.main, "--help", "experiment=smoke")[1]


@pytest.mark.parametrize("name", tasks.names())
def test_every_parameter_of_a_task_is_explained(name):
    explained = dict(of_class(tasks.load(name)))
    assert [key.partition("=")[0] for key in explained] == [field.name for field in fields(tasks.load(name))]
    assert all(explained.values())


@pytest.mark.parametrize("typed", ["particle-grid report", "particle-grid-report", "python -m particle_grid.report"])
@pytest.mark.parametrize("name", ["report", "study"])
def test_help_shows_a_command_as_it_was_typed(name, typed, monkeypatch, capsys):
    typed = typed.replace("report", name)
    place = f"particle_grid/{name}.py" if typed.startswith("python") else typed
    monkeypatch.setattr(sys, "argv", [place, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(f"particle_grid.{name}").main()
    out = capsys.readouterr().out
    assert out.startswith(f"usage: {typed} ")
    assert f"\n  {typed} " in out
    assert len(re.findall("particle.grid.(?:report|study)", out)) == out.count(typed)

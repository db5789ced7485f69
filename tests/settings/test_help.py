"""What --help says: every setting, and the command as it was typed."""

import importlib
import re
import sys
from dataclasses import fields

import pytest
from omegaconf import OmegaConf

from particle_grid.learn.config import TrainerConfig
from particle_grid.learn.policy import OPTIONS
from particle_grid.settings.compose import config_folder
from particle_grid.settings.help import keys, of_class
from particle_grid.sim import tasks
from particle_grid.sim.world import World


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


@pytest.mark.parametrize("name", tasks.names())
def test_help_explains_every_parameter_of_the_chosen_task(name):
    explained = dict(of_class(tasks.load(name)))
    parameters = fields(tasks.load(name))
    assert [key.partition("=")[0] for key in explained] == [field.name for field in parameters]
    table = keys("task", name)
    assert all(explained.values())
    assert all(f"task.{key} " in table for key in explained) if explained else "has no parameters" in table


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

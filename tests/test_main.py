"""`python -m particle_grid` lists commands, tasks, policies, heads and plans."""

import importlib
import sys
import tomllib
from pathlib import Path

import pytest

import particle_grid
from particle_grid import __main__ as module
from particle_grid import train
from particle_grid.env import ACTIONS
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import POLICIES
from particle_grid.sim import tasks

ROOT = Path(__file__).parents[1]


@pytest.fixture
def listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["particle_grid"])
    module.main()
    return capsys.readouterr().out


def test_every_command_task_policy_head_and_plan_is_listed_with_its_purpose(listed):
    lines = {line.split()[0]: line.split()[1:] for line in listed.splitlines() if line.startswith("  ")}
    plans = [path.stem for path in (module.config_folder() / "study").glob("*.yaml")]
    for name in [*module.COMMANDS, *module.AUTHORING, *tasks.names(), *POLICIES, *plans]:
        assert len(lines[name]) > 1, name
    assert "Train a policy" in listed
    assert {"discrete,", "snapped,", "gaussian,"} <= set(lines["reduced"])
    assert all(word in listed for word in [*HEADS, *ACTIONS])


def test_every_file_that_defines_a_command_is_listed():
    runs = [path.stem for path in module.PACKAGE.glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")]
    assert set(module.COMMANDS) == set(runs) - {"__main__"}


def test_an_unknown_command_is_refused_with_the_nearest_one(call):
    code, out, err = call(module.main, "trian", "task=group")
    assert (code, out) == (1, "")
    assert err.startswith("error: There is no command 'trian'. Did you mean train?")


@pytest.mark.parametrize("name", [*module.COMMANDS, *module.AUTHORING])
def test_a_command_runs_by_its_name_and_says_which_version_it_is(call, name):
    version = f"particle_grid {particle_grid.__version__}\n"
    assert call(module.main, name, "--version") == (0, version, "")
    assert call(importlib.import_module(module.module_of(name)).main, "--version") == (0, version, "")


def test_the_list_and_the_version_have_their_usual_options(call, listed):
    assert call(module.main, "--help") == (0, listed, "")
    assert call(module.main, "--version") == (0, f"particle_grid {particle_grid.__version__}\n", "")


def test_every_command_has_a_script():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert scripts.pop("particle-grid") == "particle_grid.__main__:main"
    assert scripts == {f"particle-grid-{name}": f"particle_grid.{name}:main" for name in module.COMMANDS}


def test_a_shell_completes_the_arguments_of_a_command(invoke):
    code, out, err = invoke(train.main, "--shell-completion", "install=bash")
    assert (code, err) == (0, "")
    assert "complete" in out

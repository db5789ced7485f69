"""`python -m particle_grid` lists commands, tasks, policies, heads and plans."""

import sys

import pytest

from particle_grid import __main__ as module
from particle_grid import train
from particle_grid.env import ACTIONS
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import POLICIES
from particle_grid.sim import tasks


@pytest.fixture
def listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["particle_grid"])
    module.main()
    return capsys.readouterr().out


def test_every_command_task_policy_head_and_plan_is_listed_with_its_purpose(listed):
    lines = {line.split()[0]: line.split()[1:] for line in listed.splitlines() if line.startswith("  ")}
    plans = [path.stem for path in (module.config_folder() / "study").glob("*.yaml")]
    for name in [*module.COMMANDS, *tasks.names(), *POLICIES, *plans]:
        assert len(lines[name]) > 1, name
    assert "Train a policy" in listed
    assert {"discrete,", "snapped,", "gaussian,"} <= set(lines["reduced"])
    assert all(word in listed for word in [*HEADS, *ACTIONS])


def test_every_file_that_defines_a_command_is_listed():
    runs = [path.stem for path in module.PACKAGE.glob("*.py") if '__name__ == "__main__"' in path.read_text("utf-8")]
    assert set(module.COMMANDS) == set(runs) - {"__main__"}


def test_an_argument_is_refused_with_the_way_to_run_a_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["particle_grid", "train"])
    with pytest.raises(SystemExit, match=r"error: train is not an argument: .* python -m particle_grid.train --help"):
        module.main()


def test_a_shell_completes_the_arguments_of_a_command(invoke):
    code, out, err = invoke(train.main, "--shell-completion", "install=bash")
    assert (code, err) == (0, "")
    assert "complete" in out

"""Run a command by its name, or list commands, tasks, policies, heads and plans: python -m particle_grid."""

import ast
import importlib
import os
import sys
from collections.abc import Mapping

from omegaconf import OmegaConf

from particle_grid.cli import VERSION, ending_in_one_line
from particle_grid.env import ACTIONS
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import POLICIES
from particle_grid.settings.compose import PACKAGE, config_folder
from particle_grid.sim import tasks
from particle_grid.sim.task import purpose
from particle_grid.support.errors import UserError, unknown
from particle_grid.support.output import lasting_output
from particle_grid.support.registry import registered
from particle_grid.support.text import first_line

COMMANDS = ("train", "eval", "play", "rank", "export", "web", "study", "report", "baselines")
AUTHORING = ("new", "check")  # commands for authors of tasks, policies and heads


def module_of(command: str) -> str:
    """Return the name of the module of a command."""
    return f"particle_grid.authoring.{command}" if command in AUTHORING else f"particle_grid.{command}"


def command_purpose(command: str) -> str:
    """Return what a command is for. Its module is not imported, which would take seconds."""
    file = PACKAGE.parent.joinpath(*module_of(command).split(".")).with_suffix(".py")
    return first_line(ast.get_docstring(ast.parse(file.read_text("utf-8"))))


def task_purpose(name: str) -> str:
    """Return what a task is about, or why it cannot be loaded."""
    try:
        return purpose(tasks.load(name))
    except ValueError as error:
        return str(error)


def plans() -> dict[str, str]:
    """Return the study plans that ship with the package, each with its arms."""
    paths = sorted((config_folder() / "study").glob("*.yaml"))
    return {path.stem: ", ".join(OmegaConf.load(path).arms) for path in paths}


def show(title: str, lines: Mapping[str, str]) -> None:
    """Print a title, and names with what they stand for."""
    print(f"\n{title}")
    for name, text in lines.items():
        print(f"  {name:13s}  {text}")


@lasting_output()
def main() -> None:
    """Run the command that the first argument names. Without one, print the list."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in (*COMMANDS, *AUTHORING):
        sys.argv[:2] = [f"particle-grid {name}"]
        if os.getcwd() not in sys.path:  # `python -m` has it, a script has not
            sys.path.append(os.getcwd())
        importlib.import_module(module_of(name)).main()
    elif name == "--version":
        print(VERSION)
    elif name in ("--help", "-h"):
        list_everything()
    else:
        with ending_in_one_line():
            raise UserError(unknown(f"command {name!r}", name, [*COMMANDS, *AUTHORING]))


def list_everything() -> None:
    """Print the commands, and what they can be given."""
    print(f"{VERSION}: the same tasks with discrete and with continuous actions")
    show("Commands: python -m particle_grid.NAME --help", {name: command_purpose(name) for name in COMMANDS})
    show(
        "For tasks, policies and heads of your own: python -m particle_grid NAME --help",
        {name: command_purpose(name) for name in AUTHORING},
    )
    show(f"Tasks: task=NAME, with action={' or '.join(ACTIONS)}", {name: task_purpose(name) for name in tasks.names()})
    policies = {name: first_line(kind.__doc__) for name, kind in POLICIES.items()} | registered("policy")
    show("Policies: policy=NAME", policies)
    print(f"\nHeads for continuous actions: policy.head={', '.join([*HEADS, *registered('head')])}")
    show("Study plans and their arms: python -m particle_grid.study NAME", plans())
    print("\nA class of your own is named module:Class wherever a name is expected: see docs/own.md")


if __name__ == "__main__":
    main()

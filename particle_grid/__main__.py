"""Says what there is: python -m particle_grid."""

import ast
import inspect
import sys
from collections.abc import Mapping

from omegaconf import OmegaConf

from particle_grid import __version__
from particle_grid.cli import PACKAGE, config_folder
from particle_grid.env import ACTIONS
from particle_grid.learn.heads import HEADS
from particle_grid.learn.policy import POLICIES
from particle_grid.sim import tasks
from particle_grid.support.output import lasting_output
from particle_grid.support.registry import registered

COMMANDS = ("train", "eval", "play", "rank", "study", "report", "baselines")


def first_line(text: str | None) -> str:
    """The first sentence of a docstring, on one line, up to its colon before an example."""
    return " ".join((text or "").split("\n\n")[0].split()).partition(": python -m")[0].rstrip(".")


def purpose(command: str) -> str:
    """What a command is for. Its module is not imported, which would take seconds."""
    return first_line(ast.get_docstring(ast.parse((PACKAGE / f"{command}.py").read_text("utf-8"))))


def task_purpose(name: str) -> str:
    """What a task is about; for one that cannot be loaded, why not."""
    try:
        return first_line(inspect.getdoc(inspect.getmodule(tasks.load(name))))
    except ValueError as error:
        return str(error)


def plans() -> dict[str, str]:
    """The plans of a study that come with the package, each with its arms."""
    paths = sorted((config_folder() / "study").glob("*.yaml"))
    return {path.stem: ", ".join(OmegaConf.load(path).arms) for path in paths}


def show(title: str, lines: Mapping[str, str]) -> None:
    print(f"\n{title}")
    for name, text in lines.items():
        print(f"  {name:13s}  {text}")


@lasting_output()
def main() -> None:
    if len(sys.argv) > 1:
        sys.exit(
            f"error: {sys.argv[1]} is not taken: a command is a module, as in python -m particle_grid.train --help"
        )
    print(f"particle_grid {__version__}: the same tasks with discrete and with continuous actions")
    show("Commands: python -m particle_grid.NAME --help", {name: purpose(name) for name in COMMANDS})
    show(f"Tasks: task=NAME, with action={' or '.join(ACTIONS)}", {name: task_purpose(name) for name in tasks.names()})
    policies = {name: first_line(kind.__doc__) for name, kind in POLICIES.items()} | registered("policy")
    show("Policies: policy=NAME", policies)
    print(f"\nHeads of continuous actions: policy.head={', '.join([*HEADS, *registered('head')])}")
    show("Plans of a study, and their arms: python -m particle_grid.study NAME", plans())
    print("\nTasks, policies and heads of your own: module:Class, as docs/own.md says")


if __name__ == "__main__":
    main()

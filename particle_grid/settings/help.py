"""What --help says of a command's settings: their values, and the comments that stand beside them in the sources."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, ListConfig, OmegaConf

from particle_grid.learn.config import TrainerConfig
from particle_grid.settings.compose import config_folder
from particle_grid.settings.resolvers import register
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim import tasks
from particle_grid.sim.world import World
from particle_grid.support.registry import is_place
from particle_grid.support.text import as_written

WIDTH = 110  # characters of a line
COLUMN = 28  # where the comments begin
CLASSES = {"run": RunConfig, "trainer": TrainerConfig, "world": World}
# A setting in a file of conf/: its indentation, key, value and comment; and one in the source of a dataclass.
SETTING = re.compile(r"( *)(?:- )?(\w+):(?: (.*?))?  # (.*)")
FIELD = re.compile(r" {4}(\w+): .*?(?:  # (.*))?")
OPTION = re.compile(r' {4}"(\w+)": .*,  # (.*)')  # an option of a policy


def of_file(text: str) -> Iterator[tuple[str, str]]:
    """Yield each key of a file in conf/ with its default, and its comment. Hydra's own part is left out."""
    parents: dict[int, str] = {}
    for line in text.partition("\nhydra:")[0].splitlines():
        if not (found := SETTING.fullmatch(line)):
            continue
        indent, key, value, comment = found.groups()
        inner = "" if line.lstrip().startswith("-") else parents.get(len(indent), "")
        parents[len(indent) + 2] = f"{inner}{key}."
        yield f"{inner}{key}{_default(value)}", comment


def _default(value: str | None) -> str:
    """Return what follows a key: its default, if it has one that can be typed."""
    if value is None:
        return ".KEY=VALUE"
    return "=..." if "${" in value or value == "???" else f"={value}"


def of_class(cls: Any) -> Iterator[tuple[str, str]]:
    """Yield each field of a dataclass with its default, and its comment, if it has one."""
    comments: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(cls).splitlines():
        if line.startswith("    #: "):
            above.append(line.removeprefix("    #: "))
        elif found := FIELD.fullmatch(line):
            comments[found[1]] = (found[2] or " ".join(above)).rstrip(".")
            above = []
    for field in fields(cls):
        yield f"{field.name}={as_written(field.default)}", comments.get(field.name, "")


def of_command(name: str) -> Iterator[tuple[str, str]]:
    """Yield each setting of a file in conf/, or of one of CLASSES, with its default, and its comment."""
    if name in CLASSES:
        prefix = "" if name == "run" else f"{name}."
        described = (row for row in of_class(CLASSES[name]) if row[1])  # groups have no comment
        yield from ((f"{prefix}{key}", comment) for key, comment in described)
    else:
        yield from of_file((config_folder() / f"{name}.yaml").read_text("utf-8"))


def of_policy(name: str) -> Iterator[tuple[str, str]]:
    """Yield each option of a policy with its default, and its comment, if it has one."""
    from particle_grid.learn import policy  # now: PyTorch takes a second to import

    comments = dict(OPTION.findall(inspect.getsource(policy)))
    for key, default in policy.options_of(policy.policy_class(name)).items():
        yield f"{key}={as_written(default)}", comments.get(key, "")


def keys(name: str, *, _root_: DictConfig) -> str:
    """Return settings as a table, with the values that they have on this command line: ${keys:eval} in a help text.

    Args:
        name: of a file in conf/, one of CLASSES, or task or policy, which stand for those that are chosen.
    """
    choice = _root_[name].name if name in OF_CHOICE else ""
    rows = OF_CHOICE[name](choice) if choice else of_command(name)
    prefix = f"{name}." if choice else ""
    named = ((f"{prefix}{row}", comment) for row, comment in rows)
    return _table((_current(row, _root_), comment) for row, comment in named) or "none"


def _current(row: str, config: DictConfig) -> str:
    """Return `key=default` with the value in a config instead, unless the default cannot be typed."""
    key, _, default = row.partition("=")
    groups = config.hydra.runtime.choices
    value = groups[key] if key in groups else OmegaConf.select(config, key)
    if isinstance(value, ListConfig):
        value = OmegaConf.to_container(value)
    return row if default in ("...", "VALUE") else f"{key}={as_written(value)}"


OF_CHOICE: dict[str, Callable[[str], Iterator[tuple[str, str]]]] = {
    "task": lambda name: of_class(tasks.load(name)),
    "policy": of_policy,
}


def choices(group: str) -> str:
    """Return the choices of a group of Hydra's config: ${choices:task} in a help text."""
    files = [path.stem for path in (config_folder() / group).glob("*.yaml")]
    stored = [Path(name).stem for name in ConfigStore.instance().repo.get(group, {})]
    return ", ".join(sorted(name for name in {*files, *stored} if not is_place(name)))


def _table(rows: Iterator[tuple[str, str]]) -> str:
    """Return settings and comments as two columns."""
    lines = []
    for key, comment in rows:
        wrapped = textwrap.wrap(comment, WIDTH - COLUMN) or [""]
        start = key.ljust(COLUMN - 1)
        if len(start) >= COLUMN:  # the comment begins below a long key
            lines.append(start.rstrip())
            start = " " * (COLUMN - 1)
        lines += [f"{start} {wrapped[0]}".rstrip(), *[" " * COLUMN + line for line in wrapped[1:]]]
    return "\n".join(lines)


register(keys, choices)

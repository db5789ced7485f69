"""What --help says of a command's settings: their defaults, and the comments that stand beside them in the sources."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from particle_grid.learn.config import TrainerConfig
from particle_grid.settings.compose import config_folder
from particle_grid.settings.resolvers import register
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.world import World
from particle_grid.support.text import as_written

WIDTH = 110  # characters of a line
COLUMN = 28  # where the comments begin
CLASSES = {"run": RunConfig, "trainer": TrainerConfig, "world": World}
# A setting in a file of conf/: its indentation, key, value and comment; and one in the source of a dataclass.
SETTING = re.compile(r"( *)(?:- )?(\w+):(?: (.*?))?  # (.*)")
FIELD = re.compile(r" {4}(\w+): .*?(?:  # (.*))?")


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
    """Yield each field of a dataclass that has a comment, with its default, and the comment."""
    defaults = {field.name: field.default for field in fields(cls)}
    above: list[str] = []
    for line in inspect.getsource(cls).splitlines():
        if line.startswith("    #: "):
            above.append(line.removeprefix("    #: "))
        elif (found := FIELD.fullmatch(line)) and (comment := found[2] or " ".join(above)) and found[1] in defaults:
            yield f"{found[1]}={as_written(defaults[found[1]])}", comment.rstrip(".")
            above = []


def keys(name: str) -> str:
    """Return the settings of a file in conf/, or of one of CLASSES, as a table: ${keys:eval} in a help text."""
    if name in CLASSES:
        prefix = "" if name == "run" else f"{name}."
        return _table(prefix, of_class(CLASSES[name]))
    return _table("", of_file((config_folder() / f"{name}.yaml").read_text("utf-8")))


def choices(group: str) -> str:
    """Return the choices of a group of Hydra's config: ${choices:task} in a help text."""
    files = [path.stem for path in (config_folder() / group).glob("*.yaml")]
    stored = [Path(name).stem for name in ConfigStore.instance().repo.get(group, {})]
    return ", ".join(sorted({*files, *stored}))


def _table(prefix: str, rows: Iterator[tuple[str, str]]) -> str:
    """Return settings and comments as two columns."""
    lines = []
    for key, comment in rows:
        wrapped = textwrap.wrap(comment, WIDTH - COLUMN)
        start = f"{prefix}{key}".ljust(COLUMN - 1)
        if len(start) >= COLUMN:  # the comment begins below a long key
            lines.append(start)
            start = " " * (COLUMN - 1)
        lines += [f"{start} {wrapped[0]}", *[" " * COLUMN + line for line in wrapped[1:]]]
    return "\n".join(lines)


register(keys, choices)

"""Tables (CSV) and values (JSON, YAML) that one command writes and another, or a spreadsheet, reads."""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from particle_grid.support import atomic
from particle_grid.support.errors import UserError

T = TypeVar("T")
FORMULA = "=", "+", "-", "@", "\t", "\r", "\n"  # a spreadsheet evaluates a text that starts with one of these
LARGEST = 1 << 24  # bytes of a JSON file; ours are far smaller
LARGEST_YAML = 1 << 18  # bytes of a YAML file


def escaped(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe precedes a text that would be one.

    An apostrophe also precedes a text that starts with one, so that `original` can undo it. Numbers do not change.
    """
    if not isinstance(value, str) or not value.startswith((*FORMULA, "'")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def original(text: str) -> str:
    """Return the text that `escaped` was called with."""
    return text.removeprefix("'")


def line(cells: Iterable[Any]) -> str:
    """Return a line of a CSV file, including its end."""
    text = io.StringIO(newline="")
    csv.writer(text).writerow([escaped(cell) for cell in cells])
    return text.getvalue()


def write_table(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file, whose first row names the columns. Raise OSError if it cannot be written."""
    atomic.write(path, "".join(map(line, rows)).encode())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file of one or more rows with the same keys."""
    write_table(path, [list(rows[0]), *(row.values() for row in rows)])


def read_table(path: Path, columns: Sequence[str], remedy: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line of a CSV file, and its cells by column.

    Raises:
        UserError: for a file that is not such a table.
    """
    with path.open(newline="", encoding="utf-8") as file:
        yield from parse_table(file, path, columns, remedy)


def parse_table(
    lines: Iterable[str], path: Path, columns: Sequence[str], remedy: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield what `read_table` does, from lines of the file `path`. Raise UserError as it does."""
    number = 0
    try:
        reader = csv.reader(lines)
        if next(reader, None) != list(columns):
            raise ValueError(f"its first line is not {','.join(columns)}")
        for cells in reader:
            number = reader.line_num
            if len(cells) != len(columns):
                raise ValueError(f"it has {len(cells)} cells instead of {len(columns)}")
            yield number, dict(zip(columns, map(original, cells), strict=True))
    except (ValueError, csv.Error) as error:
        place = f"{path}, line {number}" if number else str(path)
        raise UserError(f"{place} is not part of the table that is expected here: {error}.", remedy) from None


def read_text(path: Path, largest: int = LARGEST, errors: str = "strict") -> str:
    """Return the text of a file. Raise ValueError for a device, a pipe, or a file of more bytes than the largest."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    if path.stat().st_size > largest:
        size = f"{largest >> 20} MiB" if largest >> 20 else f"{largest >> 10} KiB"
        raise ValueError(f"it has more than {size}")
    return path.read_text("utf-8", errors)


def read_json(path: Path, remedy: str) -> Any:
    """Return the content of a JSON file. Raise UserError if it is not JSON."""
    try:
        return json.loads(read_text(path, LARGEST))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}.", remedy) from None


def read_yaml(path: Path, kind: type[T], remedy: str) -> T:
    """Return the content of a YAML file, a DictConfig or a ListConfig.

    Raises:
        UserError: for a file that holds anything else.
    """
    try:
        text = read_text(path, LARGEST_YAML)
        if _has_aliases(yaml.compose(text, yaml.SafeLoader)):
            raise ValueError("it has aliases (*NAME), which could expand beyond memory; write them out")
        node = OmegaConf.create(text)
        if not isinstance(node, kind):
            raise ValueError("it is a list" if isinstance(node, ListConfig) else "it is not a list")
    except (ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}.", remedy) from None
    return node


def _has_aliases(root: yaml.Node | None) -> bool:
    """Return whether a node is in more than one place of a YAML document."""
    seen = set[int]()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            return True
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            stack += node.value
        elif isinstance(node, yaml.MappingNode):
            stack += itertools.chain.from_iterable(node.value)
    return False

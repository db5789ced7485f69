"""Tables (CSV) and values (JSON) that one command writes, and another one, or a spreadsheet, reads."""

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

T = TypeVar("T")
FORMULA = "=", "+", "-", "@", "\t", "\r", "\n"  # a spreadsheet runs a text that begins with one of these
LARGEST, LARGEST_YAML = 1 << 24, 1 << 18  # bytes of a JSON and of a YAML file; those here stay far below


def escaped(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe precedes a text that would be one.

    An apostrophe also precedes a text that begins with one, so that `original` can undo it. Numbers stay the same."""
    if not isinstance(value, str) or not value.startswith((*FORMULA, "'")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def original(text: str) -> str:
    """Return the text that `escaped` was given."""
    return text.removeprefix("'")


def line(cells: Iterable[Any]) -> str:
    """Return a line of a CSV file, with its end."""
    text = io.StringIO(newline="")
    csv.writer(text).writerow([escaped(cell) for cell in cells])
    return text.getvalue()


def write_table(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file, the first row of which names the columns. Raise OSError where it cannot be written."""
    atomic.write(path, "".join(map(line, rows)).encode())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file of rows that have the same keys, one at least."""
    write_table(path, [list(rows[0]), *(row.values() for row in rows)])


def read_table(path: Path, columns: Sequence[str], remedy: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line of a CSV file, and its cells by column.

    Raises:
        ValueError: for a file that is not such a table; the sentence ends with the remedy."""
    number = 0
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            if next(reader, None) != list(columns):
                raise ValueError(f"its first line is not {','.join(columns)}")
            for cells in reader:
                number = reader.line_num
                if len(cells) != len(columns):
                    raise ValueError(f"it has {len(cells)} cells instead of {len(columns)}")
                yield number, dict(zip(columns, map(original, cells), strict=True))
    except (ValueError, csv.Error) as error:
        place = f"{path}, line {number}" if number else str(path)
        raise ValueError(f"{place}, is not part of the table that it should be: {error}. {remedy}") from None


def read_text(path: Path, largest: int = LARGEST, errors: str = "strict") -> str:
    """Return the text of a file. Raise ValueError for a device, a pipe, or a file of more bytes than the largest."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    if path.stat().st_size > largest:
        size = f"{largest >> 20} MiB" if largest >> 20 else f"{largest >> 10} KiB"
        raise ValueError(f"it has more than {size}")
    return path.read_text("utf-8", errors)


def read_json(path: Path, remedy: str) -> Any:
    """Return what a JSON file holds. Raise ValueError for a file that is not JSON, with the remedy as last sentence."""
    try:
        return json.loads(read_text(path, LARGEST))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}. {remedy}") from None


def read_yaml(path: Path, kind: type[T], remedy: str) -> T:
    """Return what a YAML file holds, a DictConfig or a ListConfig.

    Raises:
        ValueError: for a file that holds anything else; the sentence ends with the remedy."""
    try:
        text = read_text(path, LARGEST_YAML)
        if _has_aliases(yaml.compose(text, yaml.SafeLoader)):
            raise ValueError("it has aliases (*NAME), which could make it larger than memory; write out what they mean")
        node = OmegaConf.create(text)
        if not isinstance(node, kind):
            raise ValueError("it is a list" if isinstance(node, ListConfig) else "it is not a list")
    except (ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}. {remedy}") from None
    return node


def _has_aliases(root: yaml.Node | None) -> bool:
    """Return whether a node is in more than one place of a YAML document."""
    seen, stack = set[int](), [root]
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

"""Long measurements in a CSV file: a row for each, written when it is there, so that the same command resumes."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from timing import announced

from particle_grid.support import atomic, records


def completed(
    what: str,
    path: Path,
    names: tuple[str, ...],
    wanted: Iterable[tuple[Any, ...]],
    measure: Callable[..., dict[str, Any]],
) -> list[dict[str, Any]]:
    """Return the rows of a CSV file, after measuring those that it lacks.

    Args:
        what: is being done, for the reports of progress.
        path: of the file, whose folder need not exist.
        names: of the columns that identify a row.
        wanted: their values, for each row.
        measure: returns the row for such values.
    """
    atomic.check_place(path, make=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file)
    done = {tuple(row[name] for name in names) for row in rows}
    for key in announced(what, [key for key in wanted if tuple(map(str, key)) not in done]):
        rows.append(measure(*key))
        records.write_rows(path, rows)
    return rows

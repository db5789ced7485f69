"""Logging to a CSV file with a line for each value of each scalar."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from particle_grid.support import records
from particle_grid.support.errors import UserError

COLUMNS = ("step", "name", "value")
LARGEST = 1 << 63  # steps stay below it


class CsvLogger:
    """Writes scalars to a CSV file, over agent-steps. It has no place for hyperparameters and films.

    Args:
        path: of the file.
        step: where a resumed run continues. What the interrupted run wrote after that step is removed.

    Raises:
        UserError: if the file of a resumed run is not such a table.
        OSError: from every method, in one sentence, if it can no longer be written.
    """

    essential = True

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path = path
        rows = read_rows(path, "Move it away.") if step and path.exists() else ()
        records.write_table(path, [COLUMNS, *(row for row in rows if row[0] <= step)])
        self._file = path.open("ab", buffering=0)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write a line for each scalar, at `step` agent-steps."""
        text = "".join(records.line([step, name, float(value)]) for name, value in scalars.items())
        rest = memoryview(text.encode())
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written ({error.strerror}): check the folder and its free space, and resume "
                f"from the run's last checkpoint."
            ) from error

    def hyperparameters(self, values: Mapping[str, str | bool | float]) -> None:
        """Write nothing: they are in the run's config."""

    def log_gif(self, name: str, gif: bytes, step: int) -> None:
        """Write nothing."""

    def finished(self) -> None:
        """Write nothing."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(path: Path, remedy: str) -> Iterator[tuple[int, str, float]]:
    """Yield the step, name and value of each line, without a last line that is being written or was cut off.

    Raises:
        UserError: for a file that is not such a table.
    """
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1].decode("utf-8", "replace")
    for number, row in records.parse_table(io.StringIO(whole, newline=""), path, COLUMNS, remedy):
        try:
            step = int(row["step"])
            value = float(row["value"])
        except ValueError:
            step = -1
        if not 0 <= step < LARGEST:
            raise UserError(f"{path}, line {number}, is not a step, a name and a value.", remedy)
        yield step, row["name"], value

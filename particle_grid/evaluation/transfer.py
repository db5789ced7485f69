"""Scores of policies on other tasks than their own: a table of policies x tasks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from particle_grid.sim import tasks
from particle_grid.support import records, registry
from particle_grid.support.errors import UserError, unknown

ALL = "all"  # stands for all registered tasks


def named_tasks(names: object) -> list[str]:
    """Return the tasks that a command line names: one, a list, ALL, or none for None.

    Raises:
        UserError: for a task that does not exist.
    """
    if names == ALL:
        return tasks.names()
    several = names if isinstance(names, Iterable) and not isinstance(names, str) else [names]
    found = [str(name) for name in several if name is not None]
    for name in found:
        if not registry.is_place(name) and name not in tasks.names():
            raise UserError(unknown(f"task {name!r}", name, tasks.names()))
    return found


@dataclass(frozen=True)
class Transfer:
    """Normalised scores of policies on tasks. scores: f64[policies, tasks, seeds], of sampled actions."""

    policies: Sequence[str]
    tasks: Sequence[str]
    seeds: Sequence[int]
    scores: np.ndarray

    def show(self, console: Console) -> None:
        """Print the mean over seeds as a table."""
        seeded = f"mean of {len(self.seeds)} seeds" if len(self.seeds) > 1 else "one seed"
        console.print(f"Sampled actions, {seeded}; 0: random actions, 1: the task's script", soft_wrap=True)
        table = Table("normalised score", *self.tasks)
        for name, row in zip(self.policies, self.scores.mean(2), strict=True):
            table.add_row(name, *(f"{mean:z.2f}" for mean in row))
        console.print(table)

    def write(self, path: Path) -> None:
        """Write all scores as CSV.

        Raises:
            OSError: if the file cannot be written.
        """
        rows = [
            [self.policies[i], self.tasks[j], self.seeds[k], score] for (i, j, k), score in np.ndenumerate(self.scores)
        ]
        records.write_table(path, [["checkpoint", "task", "seed", "normalised_score"], *rows])

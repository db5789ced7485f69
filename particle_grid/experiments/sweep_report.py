"""The runs of a sweep: what tells them apart, how they ended, what they scored. As tables and as CSV files."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Column, Table

from particle_grid.evaluation import web_page
from particle_grid.experiments.stats import interquartile_mean
from particle_grid.runs.curves import read_curve
from particle_grid.runs.folder import FAILED, FINISHED, HYDRA, PRUNED, UNFINISHED, RunFolder
from particle_grid.settings.invocation import by_key
from particle_grid.settings.run_config import flatten
from particle_grid.support import atomic, records
from particle_grid.support.errors import UserError
from particle_grid.support.text import printable

Picture = tuple[str, bytes]  # a title, and a PNG file
CONTINUED = "continued"  # in another folder
DAMAGED = "damaged"
STATUSES = (FINISHED, PRUNED, FAILED, CONTINUED, UNFINISHED, DAMAGED)


@dataclass(frozen=True)
class SweepRun:
    """What the folder of a run says about it.

    config: flat, with keys such as `trainer.gamma`. named: keys that its command line gave. status: one of STATUSES.
    reason: why it failed or was pruned, which file is damaged, or where it continues. resumed: name of the folder of
    the run that it resumed, if any. sampled, greedy: final normalised scores, NaN if there are none. minutes: of
    training, at its median speed. steps, scores: its learning curve; the scores are NaN for a task of two teams.
    """

    folder: RunFolder
    status: str
    reason: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    named: tuple[str, ...] = ()
    resumed: str = ""
    sampled: float = math.nan
    greedy: float = math.nan
    minutes: float = math.nan
    steps: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def name(self) -> str:
        return printable(self.folder.name)

    @property
    def scored(self) -> bool:
        return not math.isnan(self.sampled)

    @property
    def last_step(self) -> int:
        return int(self.steps[-1]) if len(self.steps) else 0


@dataclass(frozen=True)
class Sweep:
    """Runs, the best one first. keys: those that tell them apart."""

    runs: list[SweepRun]
    keys: list[str]

    @property
    def group_keys(self) -> list[str]:
        """Return the keys that tell groups of runs apart: all except the seed."""
        return [key for key in self.keys if key != "seed"]

    def groups(self) -> dict[tuple[Any, ...], list[float]]:
        """Return the final scores of runs that differ only in their seeds, by their values of the group keys.

        The best group comes first.
        """
        groups: dict[tuple[Any, ...], list[float]] = {}
        for run in self.runs:
            if run.scored:
                groups.setdefault(tuple(run.config.get(key) for key in self.group_keys), []).append(run.sampled)
        return dict(sorted(groups.items(), key=lambda item: -middle(item[1])))

    def counts(self) -> str:
        """Return how many runs ended in which way, as in "3 finished, 1 failed"."""
        count = {status: sum(run.status == status for run in self.runs) for status in STATUSES}
        return ", ".join(f"{number} {status}" for status, number in count.items() if number)


def load_sweep(folder: Path) -> Sweep:
    """Return all runs below a folder.

    Raises:
        UserError: if there are none.
    """
    runs = [load_run(RunFolder(path.parent)) for path in sorted(folder.rglob(HYDRA))]
    if not runs:
        raise UserError(
            f"{folder} holds no runs: give the folder of a sweep, such as outputs/..._sweep, that has begun."
        )
    runs = sorted(_continued(runs), key=lambda run: (not run.scored, -run.sampled))
    return Sweep(runs, varied(runs))


def load_run(folder: RunFolder) -> SweepRun:
    """Return what the folder of a run says about it; if a file of it is damaged, only which file that is."""
    try:
        return read_run(folder)
    except (ValueError, OSError) as error:
        return SweepRun(folder, DAMAGED, printable(str(error)))


def read_run(folder: RunFolder) -> SweepRun:
    """Return what the folder of a run says about it.

    Raises:
        UserError or OSError: if a file of it is damaged.
    """
    config = {printable(key): _cell(value) for key, value in flatten(folder.read_config())}
    overrides = by_key(folder.read_overrides())
    named = [printable(key if key in config else f"{key}.name") for key in overrides]  # task=group sets task.name
    results = folder.read_results()
    sampled = results.mean("sampled")
    greedy = results.mean("greedy")
    run = SweepRun(
        folder=folder,
        status=folder.status(),
        reason=printable(folder.reason()),
        config=config,
        named=tuple(key for key in named if key in config),
        resumed=_resumed(overrides),
        sampled=math.nan if sampled is None else sampled,
        greedy=math.nan if greedy is None else greedy,
    )
    if not folder.trained:
        return run
    try:
        curve = read_curve(folder)
    except UserError:
        if not run.scored:
            raise
        return replace(run, reason="its learning curve is not complete")
    return replace(run, steps=curve.steps, scores=curve.values, minutes=curve.minutes)


def _cell(value: Any) -> Any:
    """Return a value of a config as a table shows it. Lists become text, so that all values can be compared."""
    too_large = isinstance(value, int) and abs(value) >> 63  # for a float
    return printable(str(value)) if too_large or isinstance(value, list | str) else value


def _resumed(overrides: Mapping[str, str]) -> str:
    """Return the name of the folder of the run that these overrides resume, or nothing."""
    path = overrides.get("resume", "").partition("=")[2].strip("'\"")
    return Path(path).parent.name if path else ""


def _continued(runs: Sequence[SweepRun]) -> list[SweepRun]:
    """Return runs, marking those as CONTINUED that another run has resumed in a different folder."""
    by_resumed = {run.resumed: run for run in runs if run.resumed not in ("", run.folder.name)}
    return [
        replace(run, status=CONTINUED, reason=f"resumed in {by_resumed[run.folder.name].name}")
        if run.status == UNFINISHED and run.folder.name in by_resumed
        else run
        for run in runs
    ]


def varied(runs: Sequence[SweepRun]) -> list[str]:
    """Return the keys that tell runs apart: those that a command line gave and that have several values."""
    known = [run for run in runs if run.config]  # not those that are damaged
    keys = dict.fromkeys(key for run in known for key in run.named)
    return [key for key in keys if len({run.config.get(key) for run in known}) > 1]


def middle(scores: Sequence[float]) -> float:
    """Return the interquartile mean of runs."""
    return float(interquartile_mean(np.array([scores])))


def short_key(key: str) -> str:
    """Return a key as a command line names it."""
    return key.removesuffix(".name")


def run_rows(sweep: Sweep) -> list[list[str]]:
    """Return the names of columns, and a row for each run."""
    rows = [["run", *map(short_key, sweep.keys), "sampled", "greedy", "steps", "training", "status"]]
    for run in sweep.runs:
        values = [_shown(run.config.get(key)) for key in sweep.keys]
        numbers = [_score(run.sampled), _score(run.greedy), f"{run.last_step:,}"]
        rows.append([run.name, *values, *numbers, _duration(run.minutes), run.status])
    return rows


def reasons(sweep: Sweep) -> list[str]:
    """Return a line for each run about which there is more to say than its status."""
    return [f"{run.name} ({run.status}): {run.reason}" for run in sweep.runs if run.reason]


def group_rows(sweep: Sweep) -> list[list[str]]:
    """Return the names of columns, and a row for each group of runs; nothing if every group has a single run."""
    groups = sweep.groups()
    if all(len(scores) == 1 for scores in groups.values()):
        return []
    rows = [[*map(short_key, sweep.group_keys), "runs", "sampled, IQM", "lowest to highest"]]
    for values, scores in groups.items():
        spread = f"{min(scores):z.3f} to {max(scores):z.3f}"
        rows.append([*map(_shown, values), str(len(scores)), f"{middle(scores):z.3f}", spread])
    return rows


def on_terminal(title: str, rows: Sequence[Sequence[str]]) -> Table:
    """Return rows, of which the first names the columns, as a table for a terminal."""
    table = Table(*(Column(name, overflow="fold") for name in rows[0]), title=title)
    for row in rows[1:]:
        table.add_row(*row)
    return table


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration(minutes: float) -> str:
    """Return minutes as 3:07, or nothing if there are none."""
    return "" if math.isnan(minutes) else "{}:{:02}".format(*divmod(round(60 * minutes), 60))


def _score(value: float) -> str:
    return "" if math.isnan(value) else f"{value:z.3f}"


def write(out: Path, sweep: Sweep, pictures: Sequence[Picture]) -> list[Path]:
    """Write runs.csv, with a row for each run; groups.csv, with a row for each group; and report.html, with everything.

    Returns:
        The files.
    """
    out.mkdir(parents=True, exist_ok=True)
    runs: list[list[Any]] = [["run", *sweep.keys, "status", "reason", "sampled", "greedy", "steps", "minutes"]]
    for run in sweep.runs:
        values = [run.config.get(key) for key in sweep.keys]
        numbers = [run.sampled, run.greedy, run.last_step, run.minutes]
        runs.append([run.name, *values, run.status, run.reason, *numbers])
    groups: list[list[Any]] = [[*sweep.group_keys, "runs", "interquartile_mean", "lowest", "highest"]]
    for key, scores in sweep.groups().items():
        groups.append([*key, len(scores), middle(scores), min(scores), max(scores)])
    records.write_table(out / "runs.csv", runs)
    records.write_table(out / "groups.csv", groups)
    atomic.write(out / "report.html", _page(sweep, pictures).encode())
    return [out / name for name in ("report.html", "runs.csv", "groups.csv")]


def _page(sweep: Sweep, pictures: Sequence[Picture]) -> str:
    """Return a page with the tables and the pictures of a sweep."""
    parts = [f"<p>{html.escape(sweep.counts())}. Scores are normalised: 0 is random actions, 1 is the script.</p>"]
    parts += [f"<h2>{html.escape(title)}</h2>{web_page.image(data, title)}" for title, data in pictures]
    if groups := group_rows(sweep):
        parts.append(f"<h2>Over seeds</h2>{web_page.table(groups[0], groups[1:])}")
    rows = run_rows(sweep)
    parts.append(f"<h2>Runs</h2>{web_page.table(rows[0], rows[1:])}")
    parts += [f"<p>{html.escape(line)}</p>" for line in reasons(sweep)]
    return web_page.page("A sweep", "\n".join(parts))

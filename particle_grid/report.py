"""What the runs of a sweep say, as tables, CSV and pictures: python -m particle_grid.report outputs/SWEEP."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from particle_grid.cli import EXPECTED, printable
from particle_grid.cli import report as complain
from particle_grid.experiments import sweep, sweep_plots
from particle_grid.experiments.pool import REASON, REPAIR, RESULT, curve, read_overrides
from particle_grid.experiments.stats import interquartile_mean
from particle_grid.experiments.sweep_plots import name
from particle_grid.support import records
from particle_grid.support.output import lasting_output

ASKED = Path(".hydra") / "overrides.yaml"  # Hydra leaves it in the folder of each run that has begun
STATUSES = FINISHED, PRUNED, FAILED, UNFINISHED, DAMAGED = "finished", "pruned", "failed", "unfinished", "damaged"


@dataclass(frozen=True)
class Run:
    """config: flat, its keys such as `trainer.gamma`; lists are text, so that all values can be compared. named: keys
    that its command line gives. sampled, greedy: final normalised scores, NaN where there are none. minutes: of
    training, at its median speed. steps, scores: its learning curve, of normalised scores; none at all where two sides
    oppose each other."""

    folder: Path
    config: dict[str, Any]
    named: tuple[str, ...]
    status: str
    reason: str
    sampled: float
    greedy: float
    minutes: float
    steps: np.ndarray
    scores: np.ndarray


@lasting_output()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m particle_grid.report",
        description="Gathers the runs of a sweep, or of any folder with runs in it: tables, CSV files and pictures.",
    )
    parser.add_argument("folder", type=Path, help="folder with runs in it, such as outputs/SWEEP")
    parser.add_argument("--out", type=Path, help="folder to write to (default: FOLDER/report)")
    options = parser.parse_args()
    try:
        gather(options.folder, options.out or options.folder / "report")
    except EXPECTED as error:
        sys.exit(complain(error))


def gather(folder: Path, out: Path) -> None:
    """Reads the runs in a folder; prints and writes what they say."""
    runs = load_runs(folder)
    keys = varied(runs)
    console = Console(markup=False)
    console = console if console.is_terminal else Console(markup=False, width=160)
    groups = grouped(runs, [key for key in keys if key != "seed"])
    console.print(run_table(runs, keys))
    if any(len(scores) > 1 for scores in groups.values()):
        console.print(group_table(groups, [key for key in keys if key != "seed"]))
    out.mkdir(parents=True, exist_ok=True)
    write_runs(out / "runs.csv", runs, keys)
    write_groups(out / "groups.csv", groups, [key for key in keys if key != "seed"])
    drawn = draw(out, runs, keys, console)
    count = {status: sum(run.status == status for run in runs) for status in STATUSES}
    console.print(", ".join(f"{number} {status}" for status, number in count.items() if number))
    console.print(f"Saved: {out}/ {', '.join(['runs.csv', 'groups.csv', *drawn])}", soft_wrap=True)


def draw(out: Path, runs: Sequence[Run], keys: Sequence[str], console: Console) -> list[str]:
    """Write the pictures, and return their names. Without Matplotlib, say how to get it."""
    try:
        sweep_plots.load_figure()
    except ValueError as error:
        console.print(f"No pictures: {error}", soft_wrap=True)
        return []
    return sweep_plots.draw(out, runs, keys)


def load_runs(folder: Path) -> list[Run]:
    """All runs below a folder, the best one first. Raises ValueError where there are none."""
    runs = [load_run(path.parents[1]) for path in sorted(folder.rglob(str(ASKED)))]
    if not runs:
        raise ValueError(f"{folder} holds no runs: give the folder of a sweep, such as outputs/..._sweep.")
    return sorted(runs, key=lambda run: (math.isnan(run.sampled), -run.sampled))


def load_run(folder: Path) -> Run:
    """Return what the folder of a run says about it; of one with a damaged file, which file that is."""
    try:
        return read_run(folder)
    except (ValueError, OSError) as error:
        nothing = np.zeros(0)
        return Run(folder, {}, (), DAMAGED, printable(str(error)), math.nan, math.nan, math.nan, nothing, nothing)


def read_run(folder: Path) -> Run:
    """Return what the folder of a run says about it. Raise ValueError or OSError where a file of it is damaged."""
    path = folder / sweep.CONFIG  # what was trained with; a run that failed before may have only what Hydra composed
    node = records.read_yaml(path if path.exists() else folder / ".hydra" / "config.yaml", DictConfig, REPAIR)
    config = sweep.flat(OmegaConf.to_container(node, resolve=False))  # a file may come from elsewhere
    path = folder / sweep.OVERRIDES  # likewise: Hydra's are those of what was last asked for in this folder
    overrides = read_overrides(path if path.exists() else folder / ASKED)
    words = [override.lstrip("+~").partition("=")[0] for override in overrides]
    named = [word if word in config else f"{word}.name" for word in words]  # task=group sets task.name
    sampled, greedy = (sweep.score(folder, kind) for kind in ("sampled", "greedy"))
    steps, scores, minutes = curve(folder) if trained(folder) else (np.zeros(0, int), np.zeros(0), math.nan)
    status, reason = state(folder)
    return Run(
        folder,
        {printable(key): _cell(value) for key, value in config.items()},
        tuple(printable(key) for key in named if key in config and key != "resume"),
        status,
        reason,
        math.nan if sampled is None else sampled,
        math.nan if greedy is None else greedy,
        minutes,
        steps,
        scores,
    )


def _cell(value: Any) -> Any:
    """Return a value of a config as a table shows it."""
    huge = isinstance(value, int) and abs(value) >> 63  # no float
    return printable(str(value)) if huge or isinstance(value, list | str) else value


def trained(folder: Path) -> bool:
    """Whether a run has got as far as to log something of its training."""
    return any(
        b"perf/steps_per_second" in path.read_bytes() for path in folder.glob("events.out.tfevents.*") if path.is_file()
    )


def state(folder: Path) -> tuple[str, str]:
    """How a run ended, and why."""
    if (folder / RESULT).exists():
        return FINISHED, ""
    for file, status in ((sweep.PRUNED, PRUNED), (REASON, FAILED)):
        if (folder / file).exists():
            lines = records.read_text(folder / file, errors="replace").strip().splitlines() or [""]
            return status, printable(lines[-1].removeprefix("error: "))
    return UNFINISHED, ""


def varied(runs: Sequence[Run]) -> list[str]:
    """The keys that tell runs apart: those that a command line names, and that have several values."""
    keys = dict.fromkeys(key for run in runs for key in run.named)
    return [key for key in keys if len({run.config.get(key) for run in runs}) > 1]


def grouped(runs: Sequence[Run], keys: Sequence[str]) -> dict[tuple[Any, ...], list[float]]:
    """The final scores of the finished runs by the values of some keys, the best group first."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for run in runs:
        if not math.isnan(run.sampled):
            groups.setdefault(tuple(run.config.get(key) for key in keys), []).append(run.sampled)
    return dict(sorted(groups.items(), key=lambda item: -middle(item[1])))


def middle(scores: Sequence[float]) -> float:
    """The interquartile mean of some runs."""
    return float(interquartile_mean(np.array([scores])))


def shown(value: Any) -> str:
    """A value in a table: short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def score(value: float) -> str:
    """A score in a table."""
    return "" if math.isnan(value) else f"{value:.3f}"


def run_table(runs: Sequence[Run], keys: Sequence[str]) -> Table:
    """A line for each run."""
    columns = *map(name, keys), "sampled", "greedy", "steps", "minutes", "status"
    table = Table(*columns, title="Runs, normalised scores")
    for run in runs:
        figures = score(run.sampled), score(run.greedy), f"{run.steps[-1]:,}" if len(run.steps) else "0"
        minutes = "" if math.isnan(run.minutes) else f"{run.minutes:.1f}"
        status = f"{run.status}: {run.reason}" if run.reason else run.status
        table.add_row(*(shown(run.config.get(key)) for key in keys), *figures, minutes, status)
    return table


def group_table(groups: dict[tuple[Any, ...], list[float]], keys: Sequence[str]) -> Table:
    """A line for each set of values, over its seeds."""
    table = Table(*map(name, keys), "runs", "sampled, IQM", "lowest to highest", title="Over seeds")
    for values, scores in groups.items():
        spread = f"{min(scores):.3f} to {max(scores):.3f}"
        table.add_row(*map(shown, values), str(len(scores)), f"{middle(scores):.3f}", spread)
    return table


def write_runs(path: Path, runs: Sequence[Run], keys: Sequence[str]) -> None:
    """runs.csv: a line for each run."""
    table: list[list[Any]] = [["run", *keys, "status", "reason", "sampled", "greedy", "steps", "minutes"]]
    for run in runs:
        values = [run.config.get(key) for key in keys]
        steps = int(run.steps[-1]) if len(run.steps) else 0
        table.append(
            [printable(run.folder.name), *values, run.status, run.reason, run.sampled, run.greedy, steps, run.minutes]
        )
    records.write_table(path, table)


def write_groups(path: Path, groups: dict[tuple[Any, ...], list[float]], keys: Sequence[str]) -> None:
    """groups.csv: a line for each set of values but the seed."""
    lines = [[*values, len(found), middle(found), min(found), max(found)] for values, found in groups.items()]
    records.write_table(path, [[*keys, "runs", "interquartile_mean", "lowest", "highest"], *lines])


if __name__ == "__main__":
    main()

"""Learning benchmark: every task and action form over several seeds, as CSV, a Markdown table, and learning curves.

    python bench/learn.py --out outputs/learn                                # everything: an hour or two on two cores
    python bench/learn.py --tasks center --seeds 2 --overrides trainer.total_steps=5e5
    python bench/learn.py --out outputs/learn --ship                         # and ship the best policies in the package

Each run is one run of `python -m particle_grid.train` with its defaults on one core, and as many run in parallel as
there are cores. Finished runs are not repeated, so that an interrupted benchmark resumes. A folder with runs that were
started with other overrides is refused.

Each team has a row. Its score is the normalised score of sampled actions after training, over 3 evaluation seeds.
Steps, seconds and updates to 0.5 and 1.0 count until the normalised score, averaged over the last half million
agent-steps of training, gets there: never if the score after training is lower, and at the end if only that score gets
there. Seconds and minutes are those of training only. End / best is the mean normalised score over the last tenth of
training, divided by that of the best tenth; two teams have no such value.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from curves import LEVELS, Curves, middle
from interrupt import until_interrupted
from rich.progress import Progress

from particle_grid.env import ACTIONS
from particle_grid.experiments.pool import Job, run_all
from particle_grid.runs.folder import RunFolder
from particle_grid.runs.load import ship
from particle_grid.sim import tasks
from particle_grid.sim.task import team_names
from particle_grid.support import records
from particle_grid.support.registry import registered

POINTS = 100

Row = dict[str, Any]


def folder_of(out: Path, row: Row) -> RunFolder:
    """Return the folder of a run."""
    return RunFolder(out / f"{row['task']}-{row['action']}-{row['seed']}")


def groups(rows: list[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Group rows by some of their columns."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def label(task: str, team: int) -> str:
    """Return the name of a task, with that of the team if it has two."""
    names = team_names(tasks.make(task, {})[1])
    return f"`{task}`, {names[team - 1]}" if names else f"`{task}`"


def time_text(time: float, form: str, unit: str = "") -> str:
    """Return a time to a score as text."""
    return f"{time:{form}}{unit}" if np.isfinite(time) else "never"


def table(rows: list[Row]) -> str:
    """Return a Markdown table with a line for each task, action form and team."""
    names = ["task", "action", "seeds", "steps", "minutes", "steps to 0.5", "to 1.0", "seconds to 1.0"]
    names += ["updates to 1.0", "reached 1.0", "score, IQM", "lowest to highest", "greedy, IQM", "end / best"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for (task, action, team), mine in groups(rows, "task", "action", "team").items():
        column = {name: [row[name] for row in mine] for name in mine[0]}
        # A seed that never gets there counts as slower than all others.
        times = {name: middle(np.nan_to_num(column[name], nan=np.inf)) for name in column if "_to_" in name}
        cells = [label(task, team), action, str(len(mine)), f"{column['steps'][0] / 1e6:.1f}M"]
        cells += [f"{max(column['seconds']) / 60:.1f}"]
        cells += [time_text(times[f"steps_to_{level}"] / 1e6, ".1f", "M") for level in LEVELS]
        cells += [time_text(times["seconds_to_1.0"], ".0f"), time_text(times["updates_to_1.0"], ".0f")]
        cells += [str(np.isfinite(column["steps_to_1.0"]).sum()), f"**{middle(column['sampled']):.2f}**"]
        cells += [f"{min(column['sampled']):.2f} to {max(column['sampled']):.2f}", f"{middle(column['greedy']):.2f}"]
        share = min(column["end_of_best"])
        lines.append("| " + " | ".join([*cells, "-" if np.isnan(share) else f"{share:.2f}"]) + " |")
    return "\n".join(lines) + "\n"


def plot(out: Path, rows: list[Row], path: Path) -> None:
    """Draw the median and the range of the learning curves over seeds, with a panel for each task.

    Where there are two teams, curves are the mean of both.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit('A plot needs Matplotlib: pip install -e ".[plot]"') from None
    names = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(3.2 * len(names), 3), layout="constrained")
    panels = dict(zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True))
    colours = dict(zip(ACTIONS, ("tab:blue", "tab:orange"), strict=True))
    for (task, action), mine in groups(rows, "task", "action").items():
        seeds = [row for row in mine if row["team"] == 1]
        curves = [Curves(folder_of(out, row)) for row in seeds]
        x = np.linspace(0, min(curve.steps[-1] for curve in curves), POINTS)
        y = np.array([np.interp(x, curve.steps, np.mean(curve.scores(), 0)) for curve in curves])  # [seeds, POINTS]
        panels[task].plot(x / 1e6, np.median(y, 0), color=colours[action], label=action)
        panels[task].fill_between(x / 1e6, y.min(0), y.max(0), color=colours[action], alpha=0.2, linewidth=0)
    for task, panel in panels.items():
        panel.axhline(1, color="black", linewidth=0.8, linestyle=":")
        panel.set(title=task, xlabel="million agent-steps")
    figure.axes[0].set_ylabel("normalised score")
    figure.axes[0].legend(loc="lower right")
    figure.savefig(path, dpi=110)


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own = [name for name in tasks.names() if name not in registered("task")]
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=own,
        choices=tasks.names(),
        help="(default: all except those of particle_grid.contrib)",
    )
    parser.add_argument("--actions", nargs="+", default=list(ACTIONS), choices=ACTIONS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("outputs/learn"), help="folder for the runs and the results")
    parser.add_argument(
        "--overrides", nargs="*", default=[], help="overrides for the training command, such as trainer.gamma=0.95"
    )
    parser.add_argument("--ship", action="store_true", help="store the best policy of each kind in the package")
    return parser.parse_args()


def main() -> None:
    """Train the runs that are not finished yet, and write the results."""
    chosen = options()
    wanted = [
        {"task": task, "action": action, "seed": seed}
        for seed in range(chosen.seeds)
        for task in chosen.tasks
        for action in chosen.actions
    ]
    jobs = [
        Job(folder_of(chosen.out, row), (*(f"{key}={value}" for key, value in row.items()), *chosen.overrides))
        for row in wanted
    ]
    print(f"{len(jobs)} runs, {sum(job.done for job in jobs)} already done: {', '.join(chosen.tasks)}", flush=True)
    failures = train(jobs)
    finished = [(row, job.folder) for row, job in zip(wanted, jobs, strict=True) if job.done]
    rows = [row | team for row, folder in finished for team in Curves(folder).teams()]
    rows.sort(key=lambda row: (row["task"], ACTIONS.index(row["action"]), row["team"], row["seed"]))
    records.write_rows(chosen.out / "learning.csv", rows)
    (chosen.out / "learning.md").write_text(table(rows), "utf-8")
    print(table(rows))
    plot(chosen.out, rows, chosen.out / "learning.png")
    if chosen.ship:
        ship_best(chosen.out, rows)
    if failures:
        raise SystemExit(f"{len(failures)} of {len(wanted)} runs failed.")


def ship_best(out: Path, rows: list[Row]) -> None:
    """Store the run of each task and action form whose least team scores best, and its mean score, in the package."""
    for mine in groups(rows, "task", "action").values():
        runs = groups(mine, "seed").values()
        best = max(runs, key=lambda teams: min(row["sampled"] for row in teams))
        score = float(np.mean([row["sampled"] for row in best]))
        print("Shipped:", ship(folder_of(out, best[0]).checkpoint, score))


def train(jobs: list[Job]) -> list[Job]:
    """Run jobs with a progress bar, and return those that failed."""
    with Progress() as progress:
        bar = progress.add_task("Training", total=len(jobs))

        def ended(job: Job, reason: str) -> None:
            progress.advance(bar)
            if reason:
                progress.console.print(f"{job.folder.name} failed: {reason}", soft_wrap=True, markup=False)

        return run_all(jobs, ended)


if __name__ == "__main__":
    until_interrupted(main)

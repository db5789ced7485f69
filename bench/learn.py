"""Learning benchmark: every task and action form over several seeds, as CSV, a Markdown table, and learning curves.

    python bench/learn.py --out outputs/learn                                # everything: an hour or two on two cores
    python bench/learn.py --tasks center --seeds 2 --overrides trainer.total_steps=5e5
    python bench/learn.py --out outputs/learn --ship                         # and ship the best policies in the package

Each run is one run of `python -m particle_grid.train` with its defaults on one core, and as many run in parallel as
there are cores. Finished runs are not repeated, so that an interrupted benchmark resumes. A folder with runs that were
started with other overrides is refused.

The score is the normalised score of sampled actions after training, over 3 evaluation seeds. Minutes count training
only, at its median speed. End / best is the mean normalised score over the last tenth of training, divided by that of
the best tenth. Tasks with two teams have no such value, because self-play does not measure progress.
"""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from interrupt import until_interrupted
from rich.progress import Progress

from particle_grid.env import ACTIONS
from particle_grid.experiments.pool import Job, run_all
from particle_grid.experiments.stats import interquartile_mean
from particle_grid.runs.curves import read_curve
from particle_grid.runs.folder import RunFolder
from particle_grid.runs.load import ship
from particle_grid.settings.errors import print_error
from particle_grid.sim import tasks
from particle_grid.support.registry import registered

COLUMNS = ["task", "action", "seed", "steps", "minutes", "sampled", "greedy", "end_of_best"]
TENTHS = 10
POINTS = 100

Row = dict[str, Any]


def folder_of(out: Path, row: Row) -> RunFolder:
    """Return the folder of a run."""
    return RunFolder(out / f"{row['task']}-{row['action']}-{row['seed']}")


def result(out: Path, task: str, action: str, seed: int) -> Row:
    """Return the row of a finished run."""
    row: Row = {"task": task, "action": action, "seed": seed}
    folder = folder_of(out, row)
    curve = read_curve(folder)
    tenths = [part.mean() for part in np.array_split(curve.values, min(TENTHS, len(curve.values)))]
    results = folder.read_results()
    row |= {"steps": int(curve.steps[-1]), "minutes": curve.minutes}
    row |= {"sampled": results.mean("sampled"), "greedy": results.mean("greedy")}
    return row | {"end_of_best": float(tenths[-1] / max(tenths))}


def kinds(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    """Group rows by task and action form."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["task"], row["action"]), []).append(row)
    return found


def iqm(values: list[float]) -> float:
    """Return the interquartile mean of the scores of a task's seeds."""
    return float(interquartile_mean(np.array([values])))


def table(rows: list[Row]) -> str:
    """Return a Markdown table with a line for each task and action form."""
    lines = ["| task | action | seeds | steps | minutes | score, IQM | lowest to highest | greedy, IQM | end / best |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for (task, action), mine in kinds(rows).items():
        sampled = [row["sampled"] for row in mine]
        greedy = [row["greedy"] for row in mine]
        shares = [row["end_of_best"] for row in mine]
        minutes = max(row["minutes"] for row in mine)
        share = "-" if np.isnan(shares).any() else f"{min(shares):.2f}"
        lines.append(
            f"| `{task}` | {action} | {len(mine)} | {mine[0]['steps'] / 1e6:.1f}M | {minutes:.1f} | "
            f"**{iqm(sampled):.2f}** | {min(sampled):.2f} to {max(sampled):.2f} | "
            f"{iqm(greedy):.2f} | {share} |"
        )
    return "\n".join(lines) + "\n"


def plot(out: Path, rows: list[Row], path: Path) -> None:
    """Draw the median and the range of the learning curves over seeds, with a panel for each task that has curves."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit('A plot needs Matplotlib: pip install -e ".[bench]"') from None
    shown = list(dict.fromkeys(row["task"] for row in rows if not np.isnan(row["end_of_best"])))
    if not shown:
        return
    figure = Figure(figsize=(3.2 * len(shown), 3), layout="constrained")
    panels = dict(zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True))
    colours = dict(zip(ACTIONS, ("tab:blue", "tab:orange"), strict=True))
    for (task, action), mine in kinds(rows).items():
        if task not in panels:
            continue
        curves = [read_curve(folder_of(out, row)) for row in mine]
        x = np.linspace(0, min(curve.steps[-1] for curve in curves), POINTS)
        y = np.array([np.interp(x, curve.steps, curve.values) for curve in curves])  # [seeds, POINTS]
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
    """Run the benchmark."""
    chosen = options()
    try:
        learn(chosen)
    except Exception as error:
        sys.exit(print_error(error))


def learn(chosen: argparse.Namespace) -> None:
    """Train the runs that are not finished yet, and write the results."""
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
    rows = [result(chosen.out, **row) for row, job in zip(wanted, jobs, strict=True) if job.done]
    rows.sort(key=lambda row: (row["task"], ACTIONS.index(row["action"]), row["seed"]))
    with (chosen.out / "learning.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (chosen.out / "learning.md").write_text(table(rows), "utf-8")
    print(table(rows))
    plot(chosen.out, rows, chosen.out / "learning.png")
    for mine in kinds(rows).values() if chosen.ship else []:
        best = max(mine, key=lambda row: row["sampled"])
        print("Shipped:", ship(folder_of(chosen.out, best).checkpoint, best["sampled"]))
    if failures:
        raise SystemExit(f"{len(failures)} of {len(wanted)} runs failed.")


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

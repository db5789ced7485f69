"""Learning: the six tasks in both action forms over several seeds, as CSV, a Markdown table, and a picture of curves.

    python bench/learn.py --out outputs/learn                                # all of it, an hour or two on two cores
    python bench/learn.py --tasks center --seeds 2 --overrides trainer.total_steps=5e5
    python bench/learn.py --out outputs/learn --ship                         # and keep the best policies in the package

Each run is one of `python -m particle_grid.train`, with that command's own defaults, on one core: as many run side by
side as there are cores. A run that has a result already is not repeated, so an interrupted table goes on where it was;
a folder whose runs were begun with other overrides is refused.
Score: normalised, of sampled actions, after training, over 3 evaluation seeds. Minutes: of training alone, at its
median speed. End / best: the mean normalised score over the last tenth of training as a share of the best tenth (where
two teams play each other, self-play says nothing, and there is none).
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from interrupt import until_interrupted
from rich.progress import Progress

from particle_grid.cli import EXPECTED, report
from particle_grid.env import ACTIONS
from particle_grid.experiments.pool import Job, curve, run_all
from particle_grid.experiments.stats import interquartile_mean
from particle_grid.runs.pretrained import ship
from particle_grid.sim import tasks
from particle_grid.support.registry import registered

COLUMNS = ["task", "action", "seed", "steps", "minutes", "sampled", "greedy", "end_of_best"]
TENTHS, POINTS = 10, 100


def result(folder: Path, task: str, action: str, seed: int) -> dict[str, Any]:
    """The row of a finished run."""
    steps, scores, minutes = curve(folder)
    tenths = [part.mean() for part in np.array_split(scores, min(TENTHS, len(scores)))]
    final = json.loads((folder / "results.json").read_text("utf-8"))
    sampled, greedy = (float(np.mean(final[f"policy, {k}"]["normalised_scores"])) for k in ("sampled", "greedy"))
    share = float(tenths[-1] / max(tenths))
    return dict(zip(COLUMNS, (task, action, seed, int(steps[-1]), minutes, sampled, greedy, share), strict=True))


def iqm(values: list[float]) -> float:
    """The interquartile mean of the seeds of a task."""
    return float(interquartile_mean(np.array([values])))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a line for each task and action form."""
    lines = ["| task | action | seeds | steps | minutes | score, IQM | lowest to highest | greedy, IQM | end / best |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for task, action in dict.fromkeys((row["task"], row["action"]) for row in rows):
        mine = [row for row in rows if (row["task"], row["action"]) == (task, action)]
        sampled, greedy, shares = ([row[key] for row in mine] for key in ("sampled", "greedy", "end_of_best"))
        minutes = max(row["minutes"] for row in mine)
        share = "-" if np.isnan(shares).any() else f"{min(shares):.2f}"
        lines.append(
            f"| `{task}` | {action} | {len(mine)} | {mine[0]['steps'] / 1e6:.1f}M | {minutes:.1f} | "
            f"**{iqm(sampled):.2f}** | {min(sampled):.2f} to {max(sampled):.2f} | "
            f"{iqm(greedy):.2f} | {share} |"
        )
    return "\n".join(lines) + "\n"


def plot(out: Path, rows: list[dict[str, Any]], path: Path) -> None:
    """Median and the range of the seeds of the normalised score over steps, a panel for each task that has one."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit('A plot needs Matplotlib: pip install -e ".[bench]"') from None
    named = [
        task
        for task in dict.fromkeys(row["task"] for row in rows)
        if any(not np.isnan(row["end_of_best"]) for row in rows if row["task"] == task)
    ]
    figure = Figure(figsize=(3.2 * max(len(named), 1), 3), layout="constrained")
    for task, panel in zip(named, figure.subplots(1, len(named), squeeze=False)[0], strict=True):
        for action, colour in zip(ACTIONS, ("tab:blue", "tab:orange"), strict=True):
            runs = [curve(out / name(row))[:2] for row in rows if (row["task"], row["action"]) == (task, action)]
            if not runs:
                continue
            x = np.linspace(0, min(steps[-1] for steps, _ in runs), POINTS)
            y = np.array([np.interp(x, steps, scores) for steps, scores in runs])
            panel.plot(x / 1e6, np.median(y, 0), color=colour, label=action)
            panel.fill_between(x / 1e6, y.min(0), y.max(0), color=colour, alpha=0.2, linewidth=0)
        panel.axhline(1, color="black", linewidth=0.8, linestyle=":")
        panel.set(title=task, xlabel="million agent-steps")
    figure.axes[0].set_ylabel("normalised score")
    figure.axes[0].legend(loc="lower right")
    figure.savefig(path, dpi=110)


def name(row: dict[str, Any]) -> str:
    """The folder of a run."""
    return f"{row['task']}-{row['action']}-{row['seed']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own = [name for name in tasks.names() if name not in registered("task")]
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=own,
        choices=tasks.names(),
        help="(default: all but those of particle_grid.contrib)",
    )
    parser.add_argument("--actions", nargs="+", default=list(ACTIONS), choices=ACTIONS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("outputs/learn"), help="folder of the runs and the results")
    parser.add_argument(
        "--overrides", nargs="*", default=[], help="of the training command, such as trainer.gamma=0.95"
    )
    parser.add_argument("--ship", action="store_true", help="store the best policy of each kind in the package")
    try:
        learn(parser.parse_args())
    except EXPECTED as error:
        sys.exit(report(error))


def learn(options: argparse.Namespace) -> None:
    """All of it, as far as it has not been done."""
    wanted = [
        {"task": task, "action": action, "seed": seed}
        for seed in range(options.seeds)
        for task in options.tasks
        for action in options.actions
    ]
    jobs = [
        Job(options.out / name(row), (*(f"{key}={row[key]}" for key in ("task", "action", "seed")), *options.overrides))
        for row in wanted
    ]
    print(f"{len(jobs)} runs, {sum(job.done for job in jobs)} of them done: {', '.join(options.tasks)}", flush=True)
    with Progress() as progress:
        bar = progress.add_task("Training", total=len(jobs))

        def ended(job: Job, reason: str) -> None:
            progress.advance(bar)
            if reason:
                progress.console.print(f"{job.folder.name} failed: {reason}", soft_wrap=True, markup=False)

        failures = run_all(jobs, ended)
    done = [row for row in wanted if (options.out / name(row) / "results.json").exists()]
    rows = [result(options.out / name(row), **row) for row in done]
    rows.sort(key=lambda row: (row["task"], ACTIONS.index(row["action"]), row["seed"]))
    with (options.out / "learning.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (options.out / "learning.md").write_text(table(rows), "utf-8")
    print(table(rows))
    plot(options.out, rows, options.out / "learning.png")
    if options.ship:
        for task, action in dict.fromkeys((row["task"], row["action"]) for row in rows):
            best = max((r for r in rows if (r["task"], r["action"]) == (task, action)), key=lambda row: row["sampled"])
            print("Shipped:", ship(options.out / name(best) / "checkpoint.pt", best["sampled"]))
    if failures:
        raise SystemExit(f"{len(failures)} of {len(wanted)} runs failed.")


if __name__ == "__main__":
    until_interrupted(main)

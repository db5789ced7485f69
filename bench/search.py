"""Search for settings that learn fast: steps, seconds and updates until each team scores half of the script, and all.

    python bench/search.py --setting adam --setting muon trainer.optimiser=muon --out outputs/search
    python bench/search.py --setting now --baseline ../old --tasks group puffer --seeds 5 --threads 2

Each setting is a name and overrides of `python -m particle_grid.train`. A baseline is another checkout, which trains
with its own defaults. Runs take turns, one at a time, in the order seeds, tasks, action forms, settings, so that
whatever else the machine does concerns all settings alike. Finished runs are not repeated, and search.csv has a row for
each of their teams after every run, so a search can be interrupted, resumed and extended.

Scores are normalised by the scores of random actions (0) and of the script (1), for each team by itself. While
training, they are means over the last WINDOW agent-steps. Seconds are those of training, without its start and the
evaluation.

A baseline from before `ParticleGrid.reported` mixes the scores of the script's agents with those of agents that learn:
where teams differ, only its scores after training count.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from curves import LEVELS, Curves, middle
from interrupt import until_interrupted

from particle_grid.env import ACTIONS
from particle_grid.runs.folder import RunFolder
from particle_grid.sim import tasks
from particle_grid.support import atomic, records

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """A name, a checkout and overrides."""

    name: str
    tree: Path
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One training run of a search."""

    setting: Setting
    task: str
    action: str
    seed: int
    folder: RunFolder

    def train(self, threads: int, evaluations: int) -> bool:
        """Train in a process, and return whether that succeeded."""
        given = [f"task={self.task}", f"action={self.action}", f"seed={self.seed}", f"trainer.threads={threads}"]
        given += [f"evaluations={evaluations}", *self.setting.overrides, f"hydra.run.dir={self.folder.path.resolve()}"]
        if self.folder.path.exists():  # from a search that was interrupted
            shutil.rmtree(self.folder.path)
        self.folder.path.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.path.with_suffix(".log").open("w") as log:
            return not subprocess.call(
                [sys.executable, "-m", "particle_grid.train", *given],
                cwd=self.setting.tree,
                env=os.environ | {"PYTHONPATH": str(self.setting.tree)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def rows(self) -> Iterator[Row]:
        """Yield a row for each team of a finished run."""
        about = {"task": self.task, "action": self.action, "setting": self.setting.name, "seed": self.seed}
        about |= {"overrides": " ".join(self.setting.overrides)}
        for row in Curves(self.folder).teams():
            yield about | row


def table(rows: list[Row]) -> str:
    """Return a Markdown table with a line for each task, action form, team and setting: means over the middle seeds."""
    names = [f"{name}_to_{level}" for level in LEVELS for name in ("steps", "seconds", "updates")]
    lines = ["| task | action | team | setting | seeds | reached | " + " | ".join([*names, "end", "sampled"]) + " |"]
    lines.append("|---" * (len(names) + 8) + "|")
    keys = ("task", "action", "team", "setting")
    for key in sorted({tuple(row[name] for name in keys) for row in rows}):
        mine = [row for row in rows if tuple(row[name] for name in keys) == key]
        reached = sum(np.isfinite(row[f"steps_to_{LEVELS[-1]}"]) for row in mine)
        # A seed that never reaches a level counts as slower than all others.
        times = [middle([np.nan_to_num(row[name], nan=np.inf) for row in mine]) for name in names]
        ends = [middle([row[name] for row in mine]) for name in ("end", "sampled")]
        cells = [
            *map(str, key),
            str(len(mine)),
            str(reached),
            *map("{:.3g}".format, times),
            *map("{:.2f}".format, ends),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--setting",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "OVERRIDE"),
        help="repeat for each; the defaults if there is none",
    )
    parser.add_argument(
        "--baseline", nargs="+", metavar=("PATH", "OVERRIDE"), help="another checkout, and overrides with its names"
    )
    parser.add_argument("--tasks", nargs="+", default=tasks.names(), choices=tasks.names())
    parser.add_argument("--actions", nargs="+", default=list(ACTIONS), choices=ACTIONS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--evaluations", type=int, default=1, help="after training; 1 is the least")
    parser.add_argument("--out", type=Path, default=Path("outputs/search"), help="folder for the runs and the results")
    parser.add_argument("--report", action="store_true", help="train nothing; only write the results of finished runs")
    return parser.parse_args()


def planned(chosen: argparse.Namespace) -> list[Run]:
    """Return all runs in their order."""
    given = chosen.setting or [["default"]]
    settings = [Setting(name, ROOT, tuple(overrides)) for name, *overrides in given]
    if chosen.baseline:
        path, *overrides = chosen.baseline
        settings.append(Setting("baseline", Path(path).resolve(), tuple(overrides)))
    return [
        Run(setting, task, action, seed, RunFolder(chosen.out / setting.name / f"{task}-{action}-{seed}"))
        for seed in range(chosen.seeds)
        for task in chosen.tasks
        for action in chosen.actions
        for setting in settings
    ]


def check(chosen: argparse.Namespace, runs: list[Run]) -> None:
    """End if the runs of a setting were started with other overrides, trees or threads: a table would mix them."""
    plan = {run.setting.name: [str(run.setting.tree), *run.setting.overrides] for run in runs}
    plan |= {"threads": [str(chosen.threads)]}
    path = chosen.out / "settings.json"
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    changed = [name for name in plan if before.get(name, plan[name]) != plan[name]]
    if changed:
        raise SystemExit(f"error: {path} has another {changed[0]}, {before[changed[0]]}: use another --out or name.")
    chosen.out.mkdir(parents=True, exist_ok=True)
    atomic.write(path, (json.dumps(before | plan, indent=1) + "\n").encode())


def write(out: Path, runs: list[Run]) -> None:
    """Write the rows of all finished runs."""
    rows = [row for run in runs if run.folder.results.exists() for row in run.rows()]
    if not rows:
        return
    records.write_rows(out / "search.csv", rows)
    atomic.write(out / "search.md", table(rows).encode())


def main() -> None:
    """Run the search."""
    chosen = options()
    runs = planned(chosen)
    check(chosen, runs)
    print(f"{len(runs)} runs, {sum(run.folder.results.exists() for run in runs)} already done", flush=True)
    failed = []
    for number, run in enumerate(runs, 1):
        if run.folder.results.exists() or chosen.report:
            continue
        begin = time.monotonic()
        done = run.train(chosen.threads, max(1, chosen.evaluations))
        failed += [] if done else [run]
        end = f"{time.monotonic() - begin:.0f} s" if done else f"failed, see {run.folder.path.with_suffix('.log')}"
        print(f"{number} of {len(runs)}: {run.folder.path}, {end}", flush=True)
        write(chosen.out, runs)
    write(chosen.out, runs)
    if (chosen.out / "search.md").exists():
        print((chosen.out / "search.md").read_text("utf-8"))
    if failed:
        raise SystemExit(f"{len(failed)} of {len(runs)} runs failed.")


if __name__ == "__main__":
    until_interrupted(main)

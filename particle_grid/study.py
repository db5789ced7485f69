"""Discrete against continuous, by a plan written down beforehand: python -m particle_grid.study PLAN (see --help)."""

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from time import monotonic

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from particle_grid.cli import EXPECTED, report
from particle_grid.experiments import study_report
from particle_grid.experiments.plan import Plan, load_plan, read_plan
from particle_grid.experiments.pool import Job, run_all
from particle_grid.experiments.study_config import check_runs
from particle_grid.experiments.study_scores import final, measure_scales, row
from particle_grid.learn.fast import cores
from particle_grid.support import atomic, lifeline, records
from particle_grid.support.output import lasting_output

STEPS_A_SECOND, OVERHEAD, MEGABYTES = 90_000, 20.0, 2.5  # of a run on one core, before any has been measured


@lasting_output()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m particle_grid.study",
        description="Tunes each arm of a plan with the same budget, tests it on fresh seeds, and reports. Safe to "
        "interrupt: what is finished is not repeated, what was begun goes on.",
    )
    parser.add_argument("plan", nargs="?", default="reduced", help="a name in conf/study, or a path to a .yaml")
    parser.add_argument("--out", type=Path, help="folder of the runs and the report (default: outputs/study_PLAN)")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time (default: one for each core)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run and what it would take, no more")
    parser.add_argument("--report", action="store_true", help="report what is there already, and run nothing")
    options = parser.parse_args()
    try:
        if options.jobs < 0:
            raise ValueError(f"--jobs {options.jobs} cannot be: give a number of runs at a time, or 0 for all cores.")
        with lifeline.leading():
            plan, text = load_plan(options.plan)
            study(plan, text, options.out or Path("outputs") / f"study_{Path(options.plan).stem}", options)
    except KeyboardInterrupt as interrupt:
        print("interrupted: the same command resumes the study", file=sys.stderr)
        sys.exit(128 + next(iter(interrupt.args), signal.SIGINT))
    except EXPECTED as error:
        sys.exit(report(error))


def study(plan: Plan, text: str, out: Path, options: argparse.Namespace) -> None:
    """All of it, as far as it has not been done.

    Raises ValueError for a folder with runs of another plan or other knobs, and RuntimeError where runs failed: at the
    end, when the report of the others has been written."""
    console = Console(markup=False)  # a reason or a path may look like markup
    study_report.load_figure()  # now, not when hours of work are done
    kept = out / "plan.yaml"
    refuse_another(kept, text)
    steps = check_runs(plan, out)
    done = announce(plan, out, options.jobs or cores(), steps, console)
    if options.dry_run:
        return
    if options.report and not done:
        raise ValueError(f"{out} holds no run of this plan that has ended: leave --report out to make them.")
    out.mkdir(parents=True, exist_ok=True)
    atomic.write(kept, text.encode())
    with console.status("Measuring random actions and the script of each task"):
        scales = measure_scales(plan, out)
    tuning, first = plan.tuning_jobs(out), next(iter(plan.variants))
    if not options.report:
        run_phase("Tuning", list(tuning.values()), options.jobs, console)
    chosen = choose(plan, {key: final(scales[first, key[2]], job) for key, job in tuning.items() if job.done})
    tests = plan.test_jobs(out, chosen)
    for job in tests.values():
        job.check()  # their folders do not say which knobs were chosen
    atomic.write(out / "chosen.json", (json.dumps(chosen, indent=1) + "\n").encode())
    if not options.report:
        run_phase("Testing", list(tests.values()), options.jobs, console)
    which = {("tuning", first, *key): job for key, job in tuning.items()}
    which |= {("test", v, arm, chosen[arm], task, seed): job for (v, arm, task, seed), job in tests.items()}
    rows = [row(plan, scales, key, job) for key, job in which.items() if job.done]
    records.write_rows(out / "results.csv", rows)
    gaps = study_report.gaps(plan, tuning, tests, rows)
    for line in gaps:
        console.print(line, soft_wrap=True)
    study_report.write(plan, out, rows, chosen, scales, gaps)
    console.print(f"Saved: {out}/ results.csv, summary.csv, report.html", soft_wrap=True)
    refuse_failed([*which.values()])


def refuse_failed(jobs: list[Job]) -> None:
    """Raises RuntimeError where runs failed."""
    if failed := [job for job in jobs if job.failed]:
        raise RuntimeError(
            f"{len(failed)} of {len(jobs)} runs failed, and the report is of the others: see error.txt of each, such "
            f"as in {failed[0].folder}; the same command without --report tries them again."
        )


def announce(plan: Plan, out: Path, jobs: int, steps: float, console: Console) -> int:
    """Says what is to be run, and about how long it takes at the usual speed. Returns how many runs are done."""
    tuning, tests = plan.tuning_jobs(out), plan.test_jobs(out, dict.fromkeys(plan.arms, 0))
    every = [*tuning.values(), *tests.values()]
    done = sum(job.done for job in every)
    seconds = (steps / STEPS_A_SECOND + OVERHEAD * len(every)) / jobs * (1 - done / len(every))
    console.print(plan.question)
    console.print(
        f"Arms: {', '.join(plan.arms)}. Tasks: {', '.join(plan.tasks)}. Variants: {', '.join(plan.variants)}.\n"
        f"Tuning: {len(tuning)} runs ({plan.tuning.draws} sets of knobs for each arm, {len(plan.tuning.tasks)} tasks, "
        f"{len(plan.tuning.seeds)} seeds). Test: {len(tests)} runs ({len(plan.seeds)} fresh seeds).\n"
        f"{len(every)} runs of {steps / 1e6:.0f} million agent-steps in all, {done} of them done; {jobs} at a time; "
        f"about {timedelta(seconds=round(seconds))} at {STEPS_A_SECOND:,} steps a second on a core and {OVERHEAD:.0f} "
        f"seconds more for each run, and {MEGABYTES * (len(every) - done):.0f} MB in {out}.",
        soft_wrap=True,
    )
    return done


def refuse_another(path: Path, text: str) -> None:
    """Raises ValueError where there are runs of another plan."""
    if path.exists() and read_plan(path) != OmegaConf.create(text):
        raise ValueError(
            f"{path.parent} holds runs of another plan (its plan.yaml): a plan is not changed when its runs have been "
            f"seen; choose another folder with --out."
        )


def run_phase(name: str, jobs: list[Job], count: int, console: Console) -> None:
    """Run jobs with a bar and the time left, or a line for each where there is no terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}")
    finished = {job for job in jobs if job.done}
    total, ends = len(jobs) - len(finished), list[float]()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=total, left="")

        def ended(job: Job, reason: str) -> None:
            if job in finished:
                return
            ends.append(monotonic())
            left = time_left(ends, total, min(count or cores(), cores()))
            progress.update(bar, advance=1, left=left)
            state = f"failed: {reason}" if reason else "done"
            if reason or not console.is_terminal:
                where = "/".join(job.folder.parts[-3:])
                said = [f"{name} {len(ends)} of {total}: {where} {state}", *filter(None, [left])]
                console.print("; ".join(said), soft_wrap=True)

        failed = run_all(jobs, ended, count)
    if failed and len(failed) == len(jobs):
        raise RuntimeError(f"All runs failed; why is said in error.txt of each, such as {failed[0].folder}.")


def time_left(ends: Sequence[float], total: int, count: int) -> str:
    """Return how long jobs still take, of which `count` run at a time, by the times at which some have ended.

    The first of each place are not counted, since they compile: nothing is said before another one has ended."""
    rounds = (len(ends) - 1) // count
    if not rounds:
        return ""
    pace = (ends[-1] - ends[-1 - rounds * count]) / (rounds * count)
    return f"{pace * (total - len(ends)) / 60:.0f} minutes left"


def choose(plan: Plan, scores: Mapping[tuple[str, int, str, int], float]) -> dict[str, int]:
    """The draw of each arm with the best mean score over tuning's tasks and seeds. One of which a run failed is out.

    Raises RuntimeError for an arm that has none left."""
    if plan.tuning.draws == 1:
        return dict.fromkeys(plan.arms, 0)
    chosen = {}
    for arm in plan.arms:
        means = {}
        for k in range(plan.tuning.draws):
            keys = [(arm, k, task, seed) for task in plan.tuning.tasks for seed in plan.tuning.seeds]
            if all(key in scores for key in keys):
                means[k] = np.mean([scores[key] for key in keys])
        if not means:
            raise RuntimeError(
                f"Arm {arm} has no set of knobs with which all runs ended: go on without --report, or see error.txt in "
                f"the folders of those that failed."
            )
        chosen[arm] = max(means, key=lambda k: means[k])
    return chosen


if __name__ == "__main__":
    main()

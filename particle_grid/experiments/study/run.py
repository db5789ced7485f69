"""Run a study: tune each arm of a plan, test it with new seeds, and report."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from particle_grid.evaluation import figures
from particle_grid.experiments.pool import Job, Launched, run_all
from particle_grid.experiments.study.config import check_runs
from particle_grid.experiments.study.plan import Plan, RunKey, find_plan, read_plan
from particle_grid.experiments.study.report import missing_runs, write_report
from particle_grid.experiments.study.scores import ReferenceScores, collect, final_score, measure_reference_scores
from particle_grid.learn.fast import cores
from particle_grid.settings.compose import config_folder
from particle_grid.support import atomic, records
from particle_grid.support.errors import UserError, UserRuntimeError, unknown

# Estimates for a run on one core.
SECONDS_PER_RUN = 20.0  # in addition to the time of its steps
MEGABYTES_PER_RUN = 2.5
RunAll = Callable[[Sequence[Job], Callable[[Job, str], None]], list[Job]]  # see `run_all`


def run_study(
    name: str, out: Path, count: int = 0, dry_run: bool = False, report_only: bool = False, launcher: Sequence[str] = ()
) -> None:
    """Run a study, except for the runs that are finished, and report.

    Args:
        name: of a plan in conf/study, or a path to a .yaml file.
        out: folder of the runs and the report.
        count: runs at a time; 0 for as many as there are cores.
        dry_run: only print what would be run.
        report_only: run nothing, report what is there.
        launcher: the name of one of Hydra's launchers and its settings; none for processes on this machine.

    Raises:
        UserError: for an invalid plan, or a folder with runs of another; if runs failed, once the others are reported.
    """
    console = Console(markup=False)  # reasons and paths may look like markup
    path = find_plan(name)
    plan = read_plan(path)
    figures.load_figure()  # fails now if Matplotlib is missing, instead of after hours of work
    refuse_another_plan(plan, out / "plan.yaml")
    at_once = 0 if launcher else count or cores()  # 0: the launcher knows
    done = announce(plan, out, at_once, console)
    if dry_run:
        return
    if report_only and not done:
        raise UserError(f"{out} has no finished run of this plan: leave --report out to start them.")
    out.mkdir(parents=True, exist_ok=True)
    atomic.write(out / "plan.yaml", path.read_bytes())
    run: RunAll = Launched(launcher, out.resolve()).run_all if launcher else partial(run_all, count=count)
    carry_out(plan, out, None if report_only else run, at_once, console)


def carry_out(plan: Plan, out: Path, run: RunAll | None, at_once: int, console: Console) -> None:
    """Run the phases of a study, and report.

    Args:
        plan, out, console: see `run_study`.
        run: runs jobs; None to report what is there.
        at_once: runs at a time; 0 if that is not known.

    Raises:
        UserError: if runs failed, once the others are reported.
    """
    with console.status("Measuring random actions and the scripted policy of each task"):
        reference_scores = measure_reference_scores(plan, out)
    tuning = plan.tuning_jobs(out)
    if run:
        run_phase("Tuning", list(tuning.values()), run, at_once, console)
    chosen = choose(plan, tuning_scores(tuning, reference_scores))
    tests = tests_with(plan, out, chosen)
    if run:
        run_phase("Testing", list(tests.values()), run, at_once, console)
    report(plan, out, chosen, reference_scores, tuning | tests, console)


def check_launcher(launcher: Sequence[str]) -> None:
    """Raise UserError for a launcher that does not exist, and for settings that are none."""
    if not launcher:
        return
    name, *settings = launcher
    known = {path.stem for path in (config_folder() / "hydra" / "launcher").glob("*.yaml")}
    if name not in known:
        raise UserError(unknown(f"launcher {name!r}", name, known))
    for setting in settings:
        if not re.match(r"[\w.]+=", setting):
            raise UserError(f"{setting!r} is not a setting of {name}: write KEY=VALUE, and the plan before --launcher.")


def refuse_another_plan(plan: Plan, path: Path) -> None:
    """Raise UserError if the folder of a study holds runs of another plan.

    Only its question may be reworded, its estimate corrected, and its chains of arms, which say what is compared but
    not what is run.
    """
    if not path.exists():
        return
    changeable = {"question", "steps_per_second", "chains"}
    there = replace(read_plan(path), **{name: getattr(plan, name) for name in changeable})
    if there != plan:
        raise UserError(
            f"{path.parent} holds runs of another plan, which is in its plan.yaml: choose another folder with --out. A "
            f"plan does not change once its runs have been seen."
        )


def announce(plan: Plan, out: Path, at_once: int, console: Console) -> int:
    """Print what will be run, and about how long that takes.

    Args:
        plan, out, console: see `run_study`.
        at_once: runs at a time; 0 if that is not known.

    Returns:
        The number of finished runs.

    Raises:
        UserError: if the settings of a run are invalid.
    """
    steps = check_runs(plan, out)
    tuning = plan.tuning_jobs(out)
    tests = plan.test_jobs(out, dict.fromkeys(plan.arms, 0))
    jobs = [*tuning.values(), *tests.values()]
    done = sum(job.done for job in jobs)
    seconds = (steps / plan.steps_per_second + SECONDS_PER_RUN * len(jobs)) / (at_once or 1) * (1 - done / len(jobs))
    pace = f"{at_once} at a time; about" if at_once else "on one core they would take about"
    lines = [
        plan.question,
        f"Arms: {', '.join(plan.arms)}. Tasks: {', '.join(plan.tasks)}. Variants: {', '.join(plan.variants)}.",
        f"Tuning: {len(tuning)} runs ({plan.tuning.trials} sets of hyperparameters per arm, {len(plan.tuning.tasks)} "
        f"tasks, {len(plan.tuning.seeds)} seeds). Test: {len(tests)} runs ({len(plan.seeds)} new seeds).",
        f"{len(jobs)} runs, {steps / 1e6:.0f} million agent-steps in total; {done} runs are done; {pace} "
        f"{timedelta(seconds=round(seconds))} at {plan.steps_per_second:,} steps per second and core, plus "
        f"{SECONDS_PER_RUN:.0f} seconds per run; {MEGABYTES_PER_RUN * (len(jobs) - done):.0f} MB in {out}.",
    ]
    console.print("\n".join(lines), soft_wrap=True)
    return done


def run_phase(name: str, jobs: list[Job], run: RunAll, at_once: int, console: Console) -> None:
    """Run jobs, with a progress bar, or a line for each run if there is no terminal.

    Args:
        name: of the phase.
        jobs: of the phase.
        run: runs them.
        at_once: how many at a time; 0 if that is not known.
        console: where to print.

    Raises:
        UserError: if all of them failed, or a folder holds a run with other overrides.
    """
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}")]
    finished = {job for job in jobs if job.done}
    total = len(jobs) - len(finished)
    ends: list[float] = []
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=total, left="")

        def ended(job: Job, reason: str) -> None:
            if job in finished:
                return
            ends.append(monotonic())
            left = time_left(ends, total, min(at_once or 1, cores()))
            progress.update(bar, advance=1, left=left)
            if reason or not console.is_terminal:
                place = "/".join(job.folder.path.parts[-3:])
                state = f"failed: {reason}" if reason else "done"
                said = f"{name} {len(ends)} of {total}: {place} {state}"
                console.print(f"{said}; {left}" if left else said, soft_wrap=True)

        failed = run(jobs, ended)
    if failed and len(failed) == len(jobs):
        raise UserRuntimeError(f"All runs failed: see error.txt in their folders, such as {failed[0].folder.path}.")


def time_left(ends: Sequence[float], total: int, count: int) -> str:
    """Return how long the remaining jobs will take, or nothing if that is not known yet.

    Args:
        ends: times at which jobs have ended. The first job on each core is not counted, because it compiles.
        total: number of jobs.
        count: jobs that run at a time.
    """
    rounds = (len(ends) - 1) // count
    if not rounds:
        return ""
    pace = (ends[-1] - ends[-1 - rounds * count]) / (rounds * count)
    return f"{pace * (total - len(ends)) / 60:.0f} minutes left"


def tuning_scores(tuning: Mapping[RunKey, Job], reference_scores: ReferenceScores) -> dict[RunKey, float]:
    """Return the final scores of the finished runs of the tuning phase."""
    return {
        key: final_score(reference_scores[key.variant, key.task], job.folder, job.folder.read_results())
        for key, job in tuning.items()
        if job.done
    }


def choose(plan: Plan, scores: Mapping[RunKey, float]) -> dict[str, int]:
    """Return the trial of each arm with the best mean score. Trials with a missing run are not considered.

    Raises:
        UserError: for an arm without a complete trial.
    """
    if plan.tuning.trials == 1:
        return dict.fromkeys(plan.arms, 0)
    complete = len(plan.tuning.tasks) * len(plan.tuning.seeds)
    chosen = {}
    for arm in plan.arms:
        means = {}
        for trial in range(plan.tuning.trials):
            found = [score for key, score in scores.items() if (key.arm, key.trial) == (arm, trial)]
            if len(found) == complete:
                means[trial] = np.mean(found)
        if not means:
            raise UserRuntimeError(
                f"Arm {arm} has no set of hyperparameters for which all runs finished: repeat the command without "
                f"--report, or see error.txt in the folders of failed runs."
            )
        chosen[arm] = max(means, key=lambda trial: means[trial])
    return chosen


def tests_with(plan: Plan, out: Path, chosen: dict[str, int]) -> dict[RunKey, Job]:
    """Return the runs of the test phase with the chosen hyperparameters, and record the choice.

    Raises:
        UserError: if there are runs with other hyperparameters, which the names of their folders do not show.
    """
    tests = plan.test_jobs(out, chosen)
    for job in tests.values():
        job.check()
    atomic.write(out / "chosen.json", (json.dumps(chosen, indent=1) + "\n").encode())
    return tests


def report(
    plan: Plan,
    out: Path,
    chosen: dict[str, int],
    reference_scores: ReferenceScores,
    jobs: Mapping[RunKey, Job],
    console: Console,
) -> None:
    """Write the tables and the page of a study.

    Raises:
        UserError: if there are too few finished runs, or some failed; the report of the others is complete then.
    """
    results = collect(plan, chosen, reference_scores, jobs)
    records.write_rows(out / "results.csv", results.rows)
    missing = missing_runs(jobs, results)
    for sentence in missing:
        console.print(sentence, soft_wrap=True)
    write_report(out, results, missing)
    for name in ("report.html", "results.csv", *(["summary.csv"] if results.variants else [])):
        console.print(f"Saved: {out / name}", soft_wrap=True)
    if failed := [job for job in jobs.values() if job.failed]:
        raise UserRuntimeError(
            f"{len(failed)} of {len(jobs)} runs failed, and the report covers only the others: see error.txt in their "
            f"folders, such as {failed[0].folder.path}. The same command without --report runs them again."
        )

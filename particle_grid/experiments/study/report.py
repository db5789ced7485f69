"""The report of a study: summary.csv, and one web page with all tables and figures."""

import html
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.evaluation import web_page
from particle_grid.experiments.pool import Job
from particle_grid.experiments.study import plots
from particle_grid.experiments.study.chains import chain_rows
from particle_grid.experiments.study.plan import TEST, TUNING, Plan, RunKey
from particle_grid.experiments.study.plots import RELATIVE
from particle_grid.experiments.study.scores import (
    FEWEST,
    SAME_SCORE,
    SAME_STEPS,
    STILL,
    Rows,
    StudyResults,
    first_actions,
)
from particle_grid.support import atomic, records
from particle_grid.support.errors import UserError


def missing_runs(jobs: Mapping[RunKey, Job], results: StudyResults) -> list[str]:
    """Return sentences about what a study lacks; none for a complete study.

    They tell how many runs of each arm failed or have not finished, and which trials and seeds are left out because of
    them.
    """
    plan = results.plan
    said = []
    for phase in (TUNING, TEST):
        mine = {key: job for key, job in jobs.items() if key.phase == phase}
        failed = [key.arm for key, job in mine.items() if job.failed]
        waiting = [key.arm for key, job in mine.items() if not job.done and not job.failed]
        for state, arms in (("Failed", failed), ("Not finished yet", waiting)):
            if arms:
                counts = ", ".join(f"{arm} {arms.count(arm)}" for arm in plan.arms)
                said.append(f"{state} in the {phase} phase, of {len(mine) // len(plan.arms)} runs per arm: {counts}.")
    skipped = [key for key, job in jobs.items() if key.phase == TUNING and not job.done]
    if trials := dict.fromkeys(f"trial {key.trial} of {key.arm}" for key in skipped):
        said.append(f"Trials that could not be chosen because one of their runs is missing: {', '.join(trials)}.")
    seeds = []
    for variant in plan.variants:
        complete = results.complete_seeds(variant)
        seeds += [f"seed {seed} in {variant}" for seed in plan.seeds if seed not in complete]
    if seeds:
        said.append(f"Left out of all tables and figures, for all arms, to keep pairs complete: {', '.join(seeds)}.")
    if variants := [variant for variant in plan.variants if variant not in results.variants]:
        said.append(
            f"Without tables, because fewer than two seeds have a finished run of every arm and task: "
            f"{', '.join(variants)}."
        )
    return said


def write_report(out: Path, results: StudyResults, missing: Sequence[str]) -> None:
    """Write summary.csv, the figures as PNG files, and report.html.

    Args:
        out: folder of the study.
        results: of its runs.
        missing: sentences about what the study lacks.

    Raises:
        UserError: if there is nothing to show: no tuning, and no variant with two complete seeds.
    """
    if not results.variants and results.plan.tuning.trials == 1:
        raise UserError(
            f"Fewer than two seeds have a finished run of every arm and task: repeat the command without --report, or "
            f"see error.txt in the folders of failed runs in {out / 'test'}."
        )
    summary = results.summary()
    chains = chain_rows(results)
    for name, rows in (("summary.csv", summary), ("chains.csv", chains)):
        if rows:
            records.write_rows(out / name, rows)
    sections = [
        section(results, summary, chains, variant, plots.draw(out, results, summary, chains, variant))
        for variant in results.variants
    ]
    text = (out / "plan.yaml").read_text("utf-8")
    atomic.write(out / "report.html", page(results, sections, missing, text).encode())


def section(results: StudyResults, summary: Rows, chains: Rows, variant: str, images: Mapping[str, bytes]) -> str:
    """Return the part of the report about a variant: its answer, tables and figures."""
    plan = results.plan
    rows = [row for row in summary if row["variant"] == variant]
    changes = [row for row in chains if row["variant"] == variant]
    overall = [row for row in rows if row["task"] == "all"]
    levels = ", ".join(
        f"{level:.2f} in {task}" for task, level in zip(plan.tasks, results.equal_kl(variant), strict=True)
    )
    pictures = "".join(web_page.captioned(data, caption) for caption, data in images.items())
    answer = html.escape(answer_text(plan, overall) + control_text(plan, overall))
    return f"""<h2>{html.escape(variant)}</h2><p class="answer">{answer}</p>
{task_table(plan, rows, "iqm")}{aggregate_table(plan, overall)}{pictures}
{chain_tables(plan, changes)}
<h3>Equivalence</h3>{equivalence_table(plan, rows)}
<h3>Score at equal KL divergence</h3><p>Scores at the cumulative divergence that every run of a task reaches, in nats:
{html.escape(levels)}. An arm that scores less than another learns less from an equally large change of its policy.</p>
{task_table(plan, rows, "score_at_equal_kl")}
<h3>Greedy minus sampled</h3><p>What the noise of the actions costs at the end of training.</p>
{task_table(plan, rows, "greedy_minus_sampled")}"""


def page(results: StudyResults, sections: Sequence[str], missing: Sequence[str], plan_text: str) -> str:
    """Return the report as one self-contained page."""
    plan = results.plan
    body = f"""{"".join(f"<p><b>{html.escape(sentence)}</b></p>" for sentence in missing)}{"".join(sections)}
<h2>How to read this</h2><p>Scores are normalised: 0 is random actions, 1 is the task's scripted policy, both measured
with the actions of {html.escape(plan.reference_scores)} and used for all arms. The unit is the run. Intervals are 95%
intervals of a bootstrap stratified by task, and are left out for fewer than {FEWEST} seeds. They say nothing about
other tasks. Interquartile means are those of each task, averaged over tasks. In a median of steps, runs that never
reached the threshold count as the slowest; in a ratio of mean steps, they count as if they reached it at their last
step, which moves the ratio towards 1. An arm is equivalent if two one-sided tests show it: difference of scores within
{SAME_SCORE[1]:g}, ratio of steps between {SAME_STEPS[0]:g} and {SAME_STEPS[1]:g} with all runs at the threshold.</p>
<h2>First actions</h2>{first_actions_table(results)}
<h2>Tuning</h2>{tuning_table(results)}
<h2>The plan</h2><pre>{html.escape(plan_text)}</pre>"""
    return web_page.page(plan.question, body)


def task_table(plan: Plan, rows: Rows, name: str) -> str:
    """Return the table of a column of the summary: a row for each arm, and a column for each task."""
    found = {(row["arm"], row["task"]): row for row in rows}
    body = [
        [arm, *(interval_text(found[arm, task], name) for task in plan.tasks), interval_text(found[arm, "all"], name)]
        for arm in plan.arms
    ]
    return web_page.table(["arm", *plan.tasks, "mean of tasks"], body)


def chain_tables(plan: Plan, changes: Rows) -> str:
    """Return a table for each chain of a plan: a row for each change, with the difference that it makes."""
    if not changes:
        return ""
    tasks = [*plan.tasks, "all"]
    header = ["change", *plan.tasks, "mean of tasks", *(f"ratio of steps to {each}" for each in plan.thresholds)]
    text = "<h3>Single changes</h3><p>Differences of interquartile means, and of unpaired runs.</p>"
    for chain, arms in plan.chains.items():
        body = []
        for pair in itertools.pairwise(arms):
            found = {
                row["task"]: row for row in changes if (row["chain"], row["before"], row["after"]) == (chain, *pair)
            }
            cells = [interval_text(found[task], "difference") for task in tasks]
            cells += [interval_text(found["all"], f"ratio_{threshold}") for threshold in plan.thresholds]
            body.append([" to ".join(pair), *cells])
        text += f"<h4>{html.escape(chain)}</h4>{web_page.table(header, body)}"
    return text


def equivalence_table(plan: Plan, rows: Rows) -> str:
    """Return the table of what two one-sided tests show about each arm and the reference, by task and over all.

    Opposite differences on two tasks may cancel, so the mean of tasks shows less than each task by itself.
    """
    header = ["arm", "task", f"same final score as {plan.reference}"]
    for threshold in plan.thresholds:
        header += [f"ratio of steps to {threshold}", "same steps"]
    body = []
    for row in rows:
        if row["arm"] == plan.reference:
            continue
        arm = row["arm"] + (" (null control)" if row["arm"] == plan.null_control else "")
        cells = [arm, "mean of tasks" if row["task"] == "all" else row["task"], shown(row["same_score"])]
        for threshold in plan.thresholds:
            cells += [interval_text(row, f"ratio_{threshold}"), shown(row[f"same_steps_{threshold}"])]
        body.append(cells)
    return web_page.table(header, body)


def shown(equivalent: bool) -> str:
    """Return what a test of equivalence says."""
    return "yes" if equivalent else "not shown"


def control_text(plan: Plan, overall: Rows) -> str:
    """Return whether the null control of a plan equals the reference, or nothing for a plan without one."""
    for row in overall:
        if row["arm"] == plan.null_control:
            score = interval_text(row, "difference")
            verdict = "is equivalent to" if row["same_score"] else "is not shown to be equivalent to"
            return f" The null control {row['arm']} {verdict} {plan.reference} (difference of final scores {score})."
    return ""


def answer_text(plan: Plan, summary: Rows) -> str:
    """Return what the differences between the arms and the reference, over all tasks, say in words."""
    others = {row["arm"]: row for row in summary if row["arm"] != plan.reference}
    if not all(np.isfinite(row["difference_low"]) for row in others.values()):
        shown = ", ".join(f"{arm} {row['difference']:+z.2f}" for arm, row in others.items())
        return f"Too few seeds to tell the arms apart (fewer than {FEWEST}). Differences to {plan.reference}: {shown}."
    verdicts: dict[str, list[str]] = {"less": [], "more": [], "no difference shown": []}
    for arm, row in others.items():
        above = "more" if row["difference_low"] > 0 else "no difference shown"
        verdicts["less" if row["difference_high"] < 0 else above].append(f"{arm} {row['difference']:+z.2f}")
    parts = "; ".join(f"{verdict}: {', '.join(arms)}" for verdict, arms in verdicts.items() if arms)
    return (
        f"Scores compared with {plan.reference}, averaged over tasks, which may differ: {parts} (random actions 0, "
        f"script 1)."
    )


def interval_text(row: dict[str, Any], name: str) -> str:
    """Return a value and its interval, as in 0.71 [0.65, 0.80]; the value alone if there is no interval."""
    if not np.isfinite(row[name]):
        return "unknown"
    if not np.isfinite(row[f"{name}_low"]):
        return f"{row[name]:z.2f}"
    return f"{row[name]:z.2f} [{row[f'{name}_low']:z.2f}, {row[f'{name}_high']:z.2f}]"


def steps_text(row: dict[str, Any], threshold: float) -> str:
    """Return the median steps to a threshold, and the share of runs that reached it."""
    steps = row[f"steps_to_{threshold}"]
    share = f"({row[f'reached_{threshold}']:.0%})"
    return f"{steps / 1e6:.2f}M {share}" if np.isfinite(steps) else f"never {share}"


def aggregate_table(plan: Plan, summary: Rows) -> str:
    """Return the table of aggregates over all tasks, with a row for each arm."""
    header = ["arm", "runs", "interquartile mean", "mean", f"P(more than {plan.reference})", "paired difference"]
    header += [f"median steps to {threshold} (share)" for threshold in plan.thresholds]
    body = []
    for row in summary:
        is_reference = row["arm"] == plan.reference
        cells = [row["arm"], str(row["runs"]), interval_text(row, "iqm"), interval_text(row, "mean")]
        cells += ["" if is_reference else interval_text(row, name) for name in RELATIVE]
        cells += [steps_text(row, threshold) for threshold in plan.thresholds]
        body.append(cells)
    return web_page.table(header, body)


def tuning_table(results: StudyResults) -> str:
    """Return the table of all sets of hyperparameters that were tried, with the mean scores of each in tuning."""
    if results.plan.tuning.trials == 1:
        return "<p>Nothing was tuned.</p>"
    tasks = results.plan.tuning.tasks
    body = []
    for arm, chosen in results.chosen.items():
        for trial, pairs in enumerate(results.plan.trials(arm)):
            hyperparameters = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in pairs)
            mark = "chosen" if trial == chosen else ""
            scores = [_tuning_score(results, arm, trial, each) for each in [*([task] for task in tasks), tasks]]
            body.append([arm, hyperparameters, *scores, mark])
    return web_page.table(["arm", "hyperparameters", *tasks, "mean of tasks", ""], body)


def _tuning_score(results: StudyResults, arm: str, trial: int, tasks: Sequence[str]) -> str:
    """Return the mean score of a set of hyperparameters over the seeds of some tasks."""
    tuning = [row for row in results.rows if (row["phase"], row["arm"], row["trial"]) == (TUNING, arm, trial)]
    scores = [row["sampled"] for row in tuning if row["task"] in tasks]
    return f"{np.mean(scores):z.2f}" if scores else "failed"


def first_actions_table(results: StudyResults) -> str:
    """Return the table of how each arm acts before training."""
    header = [
        "arm",
        "root mean square of an axis",
        "mean size",
        f"axes moved by less than {STILL}",
        "entropy of the move (nats)",
    ]
    body = [
        [arm, f"{found['rms']:.2f}", f"{found['mean']:.2f}", f"{found['still']:.0%}", f"{found['entropy']:.2f}"]
        for arm, found in first_actions(results.plan, results.chosen).items()
    ]
    return web_page.table(header, body)

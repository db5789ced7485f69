"""The report of a study: its tables as CSV files, and one web page with all tables and figures."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from particle_grid.evaluation import web_page
from particle_grid.experiments.pool import Job
from particle_grid.experiments.stats import ALPHA
from particle_grid.experiments.study import plots
from particle_grid.experiments.study.comparisons import chain_rows, gap_rows
from particle_grid.experiments.study.plan import TEST, TUNING, Plan, RunKey
from particle_grid.experiments.study.scores import LEAST_END, Rows, StudyResults
from particle_grid.experiments.study.summary import FEWEST, SAME_SCORE, SAME_STEPS, summary_rows
from particle_grid.experiments.study.tables import (
    aggregate_table,
    chain_tables,
    equivalence_table,
    first_actions_table,
    interval_text,
    task_table,
    tuning_table,
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
        said.append(f"Left out of all tables and figures, so that all arms have the same seeds: {', '.join(seeds)}.")
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
    summary = summary_rows(results)
    chains = chain_rows(results)
    gaps = gap_rows(results)
    for name, rows in (("summary.csv", summary), ("chains.csv", chains), ("gaps.csv", gaps)):
        if rows:
            records.write_rows(out / name, rows)
    sections = [
        section(results, summary, chains, variant, plots.draw(out, results, summary, chains, variant))
        for variant in results.variants
    ]
    if gaps:
        sections.append(gap_section(results.plan, gaps))
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
    answer = html.escape(answer_text(plan, overall) + control_text(results, variant, overall))
    return f"""<h2>{html.escape(variant)}</h2><p class="answer">{answer}</p>
{task_table(plan, rows, "iqm")}{aggregate_table(plan, overall)}{pictures}
{chain_tables(plan, changes)}
<h3>Differences and equivalence</h3>{equivalence_table(plan, rows)}
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
step, so the true ratio is larger if only runs of the arm do not reach it. {thresholds_text(plan)}p-values are those of
a permutation test: how often chance alone makes such a difference between arms whose scores have the same distribution.
Holm's method corrects them for all arms and tasks of a variant, and separately for all arms over all tasks; likewise
for single changes. An arm is equivalent if two one-sided tests show it: difference of scores within {SAME_SCORE[1]:g},
ratio of steps between {SAME_STEPS[0]:g} and {SAME_STEPS[1]:g} with all runs at the threshold.</p>
<h2>First actions</h2>{first_actions_table(results)}
<h2>Tuning</h2>{tuning_table(results)}
<h2>The plan</h2><pre>{html.escape(plan_text)}</pre>"""
    return web_page.page(plan.question, body)


def gap_section(plan: Plan, gaps: Rows) -> str:
    """Return the part of the report about how variants change the gaps between each arm and the reference."""
    first = gaps[0]["first"]
    tasks = [*plan.tasks, "all"]
    body = []
    for variant, arm in dict.fromkeys((row["variant"], row["arm"]) for row in gaps):
        found = {row["task"]: row for row in gaps if (row["variant"], row["arm"]) == (variant, arm)}
        body.append([variant, arm, *(interval_text(found[task], "change") for task in tasks)])
    return f"""<h2>Changes of the gaps</h2><p>The difference to {html.escape(plan.reference)} in each variant, less that
in {html.escape(first)}. Below 0, an arm does worse against it there; above 0, better. Scores are normalised in each
variant by itself. If hyperparameters were tuned, it was in {html.escape(first)}.</p>
{web_page.table(["variant", "arm", *plan.tasks, "mean of tasks"], body)}"""


def thresholds_text(plan: Plan) -> str:
    """Return what the thresholds are shares of, or nothing if they are scores."""
    if not plan.relative_thresholds:
        return ""
    return (
        f"Thresholds are shares of the score at which the learning curves of {html.escape(plan.reference)} end, in the "
        f"mean over its runs; intervals take this mean as known. There are none where it is below {LEAST_END}. "
    )


def control_text(results: StudyResults, variant: str, overall: Rows) -> str:
    """Return whether the null control of a plan equals the reference, or nothing for a plan without one."""
    plan = results.plan
    if not plan.null_control:
        return ""
    if np.array_equal(results.matrix(variant, plan.null_control), results.matrix(variant, plan.reference)):
        return f" The null control {plan.null_control} has the same scores as {plan.reference}, in every run."
    row = next(row for row in overall if row["arm"] == plan.null_control)
    verdict = "is equivalent to" if row["same_score"] else "is not shown to be equivalent to"
    score = interval_text(row, "difference")
    return f" The null control {plan.null_control} {verdict} {plan.reference} (difference of final scores {score})."


def answer_text(plan: Plan, summary: Rows) -> str:
    """Return what the tests of the differences between the arms and the reference, over all tasks, say in words."""
    others = {row["arm"]: row for row in summary if row["arm"] not in (plan.reference, plan.null_control)}
    if not all(np.isfinite(row["p_holm"]) for row in others.values()):
        shown = ", ".join(f"{arm} {row['difference']:+z.2f}" for arm, row in others.items())
        return f"Too few seeds to tell the arms apart (fewer than {FEWEST}). Differences to {plan.reference}: {shown}."
    verdicts: dict[str, list[str]] = {"less": [], "more": [], "no difference shown": []}
    for arm, row in others.items():
        found = "less" if row["difference"] < 0 else "more"
        verdicts[found if row["p_holm"] < ALPHA else "no difference shown"].append(f"{arm} {row['difference']:+z.2f}")
    parts = "; ".join(f"{verdict}: {', '.join(arms)}" for verdict, arms in verdicts.items() if arms)
    return (
        f"Scores compared with {plan.reference}, averaged over tasks, which may differ: {parts} (random actions 0, "
        f"script 1)."
    )

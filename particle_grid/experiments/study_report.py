"""The report of a study: summary.csv, and one web page with all tables and figures."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.evaluation import web_page
from particle_grid.experiments import study_plots
from particle_grid.experiments.plan import TEST, TUNING, Plan, RunKey
from particle_grid.experiments.pool import Job
from particle_grid.experiments.study_plots import RELATIVE
from particle_grid.experiments.study_scores import FEWEST, STILL, Rows, StudyResults, first_actions
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
    return said


def write_report(out: Path, results: StudyResults, missing: Sequence[str]) -> None:
    """Write summary.csv, the figures as PNG files, and report.html.

    Args:
        out: folder of the study.
        results: of its runs.
        missing: sentences about what the study lacks.

    Raises:
        UserError: if a variant has fewer than two complete seeds.
    """
    plan = results.plan
    for variant in plan.variants:
        if len(results.complete_seeds(variant)) < 2:
            raise UserError(
                f"Fewer than two seeds have a finished run of every arm and task in {variant}: repeat the command "
                f"without --report, or see error.txt in the folders of failed runs in {out / 'test' / variant}."
            )
    summary = results.summary()
    records.write_rows(out / "summary.csv", summary)
    sections = []
    for variant in plan.variants:
        images = study_plots.draw(out, results, summary, variant)
        rows = [row for row in summary if (row["variant"], row["task"]) == (variant, "all")]
        pictures = "".join(web_page.captioned(data, caption) for caption, data in images.items())
        title, answer = html.escape(variant), html.escape(answer_text(plan, rows))
        sections.append(f'<h2>{title}</h2><p class="answer">{answer}</p>{aggregate_table(plan, rows)}{pictures}')
    text = (out / "plan.yaml").read_text("utf-8")
    atomic.write(out / "report.html", page(results, sections, missing, text).encode())


def page(results: StudyResults, sections: Sequence[str], missing: Sequence[str], plan_text: str) -> str:
    """Return the report as one self-contained page."""
    plan = results.plan
    body = f"""{"".join(f"<p><b>{html.escape(sentence)}</b></p>" for sentence in missing)}{"".join(sections)}
<h2>How to read this</h2><p>Scores are normalised: 0 is random actions, 1 is the task's scripted policy, both measured
with the actions of {html.escape(plan.reference_scores)} and used for all arms. The unit is the run. Intervals are 95%
intervals of a bootstrap stratified by task, and are left out for fewer than {FEWEST} seeds. In a median of steps, runs
that never reached the threshold count as the slowest.</p>
<h2>First actions</h2>{first_actions_table(results)}
<h2>Tuning</h2>{tuning_table(results)}
<h2>The plan</h2><pre>{html.escape(plan_text)}</pre>"""
    return web_page.page(plan.question, body)


def answer_text(plan: Plan, summary: Rows) -> str:
    """Return what the differences between the arms and the reference, over all tasks, say in words."""
    others = {row["arm"]: row for row in summary if row["arm"] != plan.reference}
    if not all(np.isfinite(row["difference_low"]) for row in others.values()):
        shown = ", ".join(f"{arm} {row['difference']:+z.2f}" for arm, row in others.items())
        return f"Too few seeds to tell the arms apart (fewer than {FEWEST}). Differences to {plan.reference}: {shown}."
    verdicts: dict[str, list[str]] = {"less than": [], "more than": [], "about as much as": []}
    for arm, row in others.items():
        above = "more than" if row["difference_low"] > 0 else "about as much as"
        verdicts["less than" if row["difference_high"] < 0 else above].append(f"{arm} {row['difference']:+z.2f}")
    found = {verdict: ", ".join(arms) for verdict, arms in verdicts.items() if arms}
    if len(found) == 1:
        [(verdict, arms)] = found.items()
        return (
            f"Over all tasks, every other arm scores {verdict} {plan.reference}: {arms} (random actions 0, script 1)."
        )
    parts = "; ".join(f"{verdict} {plan.reference}: {arms}" for verdict, arms in found.items())
    return f"Over all tasks, the other arms differ. They score {parts} (random actions 0, script 1)."


def interval_text(row: dict[str, Any], name: str) -> str:
    """Return a value and its interval, as in 0.71 [0.65, 0.80]; the value alone if there is no interval."""
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
    """Return the table of the chosen hyperparameters, and what they gained over the first trial."""
    body = []
    for arm, trial in results.chosen.items():
        pairs = results.plan.trials(arm)[trial]
        hyperparameters = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in pairs)
        body.append([arm, hyperparameters, _tuning_score(results, arm, trial), _tuning_score(results, arm, 0)])
    return web_page.table(["arm", "chosen hyperparameters", "mean score in tuning", "of the first trial"], body)


def _tuning_score(results: StudyResults, arm: str, trial: int) -> str:
    wanted = (TUNING, arm, trial)
    scores = [row["sampled"] for row in results.rows if (row["phase"], row["arm"], row["trial"]) == wanted]
    return f"{np.mean(scores):z.2f}" if scores else "failed"


def first_actions_table(results: StudyResults) -> str:
    """Return the table of how each arm acts before training."""
    header = ["arm", "root mean square of an axis", f"axes moved by less than {STILL}", "entropy of the move (nats)"]
    body = [
        [arm, f"{found['rms']:.2f}", f"{found['still']:.0%}", f"{found['entropy']:.2f}"]
        for arm, found in first_actions(results.plan, results.chosen).items()
    ]
    return web_page.table(header, body)

"""The tables of a study's report, as HTML."""

import html
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from particle_grid.evaluation import web_page
from particle_grid.experiments.study.first_actions import STILL, first_actions
from particle_grid.experiments.study.plan import TUNING, Plan
from particle_grid.experiments.study.plots import RELATIVE
from particle_grid.experiments.study.scores import Rows, StudyResults


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
    text = "<h3>Single changes</h3><p>Differences of interquartile means, each with its p-value.</p>"
    for chain, arms in plan.chains.items():
        body = []
        for pair in itertools.pairwise(arms):
            found = {
                row["task"]: row for row in changes if (row["chain"], row["before"], row["after"]) == (chain, *pair)
            }
            cells = [
                interval_text(found[task], "difference") + f", p {p_text(found[task]['p_holm'])}" for task in tasks
            ]
            cells += [interval_text(found["all"], f"ratio_{threshold}") for threshold in plan.thresholds]
            body.append([" to ".join(pair), *cells])
        text += f"<h4>{html.escape(chain)}</h4>{web_page.table(header, body)}"
    return text


def equivalence_table(plan: Plan, rows: Rows) -> str:
    """Return the table of what tests of difference and of equivalence show about each arm and the reference.

    Opposite differences on two tasks may cancel, so the mean of tasks shows less than each task by itself.
    """
    header = ["arm", "task", f"difference to {plan.reference}", "p-value, corrected", "same final score"]
    for threshold in plan.thresholds:
        header += [f"ratio of steps to {threshold}", "runs that get there", "same steps"]
    body = []
    for row in rows:
        if row["arm"] == plan.reference:
            continue
        arm = row["arm"] + (" (null control)" if row["arm"] == plan.null_control else "")
        cells = [arm, "mean of tasks" if row["task"] == "all" else row["task"]]
        cells += [
            interval_text(row, "difference"),
            "" if row["arm"] == plan.null_control else p_text(row["p_holm"]),
            shown(row["same_score"]),
        ]
        for threshold in plan.thresholds:
            cells += [interval_text(row, f"ratio_{threshold}"), share_text(row[f"reached_{threshold}"])]
            cells.append(shown(row[f"same_steps_{threshold}"]))
        body.append(cells)
    return web_page.table(header, body)


def share_text(share: float) -> str:
    """Return a share as text."""
    return "unknown" if np.isnan(share) else f"{share:.0%}"


def p_text(p: float) -> str:
    """Return a p-value as text."""
    if np.isnan(p):
        return "unknown"
    return f"{p:.3f}" if p >= 0.0005 else "below 0.001"


def shown(equivalent: bool) -> str:
    """Return what a test of equivalence says."""
    return "yes" if equivalent else "not shown"


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
    if np.isnan(steps):
        return "unknown"
    share = f"({share_text(row[f'reached_{threshold}'])})"
    return f"{steps / 1e6:.2f}M {share}" if np.isfinite(steps) else f"never {share}"


def aggregate_table(plan: Plan, summary: Rows) -> str:
    """Return the table of aggregates over all tasks, with a row for each arm."""
    header = [
        "arm",
        "runs",
        "interquartile mean",
        "mean",
        f"P(more than {plan.reference})",
        f"difference to {plan.reference}",
    ]
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

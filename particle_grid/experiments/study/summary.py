"""The aggregates of a study: what the runs of each arm show, alone and against the reference, with intervals."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from particle_grid.experiments import stats
from particle_grid.experiments.study.scores import Rows, StudyResults

FEWEST = 5  # runs per task that an interval or a test needs
SAME_SCORE = (-0.05, 0.05)  # differences of final scores that count as equivalent
SAME_STEPS = (0.8, 1.25)  # ratios of steps that count as equivalent


def summary_rows(results: StudyResults) -> Rows:
    """Return aggregates with 95% intervals: for each variant and arm a row over all tasks, and one per task.

    Holm's correction is for all arms of a variant in the rows over all tasks, and for all arms and tasks in the others.
    The null control is left out, because it is known before that it equals the reference.
    """
    plan = results.plan
    rows = []
    for variant in results.variants:
        columns = {
            arm: results.columns(variant, arm) | {"at_kl": results.scores_at_kl(variant, arm)} for arm in plan.arms
        }
        found = []
        for arm, (task, part) in itertools.product(plan.arms, parts(results).items()):
            mine, theirs = ({name: x[part] for name, x in columns[each].items()} for each in (arm, plan.reference))
            row = {"variant": variant, "arm": arm, "task": task, "runs": mine["sampled"].size}
            found.append(row | compared(mine, theirs, plan.thresholds))
        add_corrected([row for row in found if row["arm"] not in (plan.reference, plan.null_control)])
        rows += found
    return rows


def parts(results: StudyResults) -> dict[str, slice]:
    """Return the part of an array [tasks, runs] that a row of a table is about, by the name of its task."""
    return {"all": slice(None)} | {task: slice(k, k + 1) for k, task in enumerate(results.plan.tasks)}


def compared(
    mine: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], thresholds: list[float]
) -> dict[str, Any]:
    """Return the columns of a row of `summary_rows`, given those of the runs of an arm and of the reference."""
    row = aggregates(mine["sampled"], reference["sampled"])
    row |= interval_columns("greedy_minus_sampled", stats.mean, mine["greedy"] - mine["sampled"])
    row |= interval_columns("score_at_equal_kl", stats.interquartile_mean, mine["at_kl"])
    row["same_score"] = _equivalent(stats.mean_difference, mine["sampled"], reference["sampled"], SAME_SCORE)
    row["p"] = row["p_holm"] = chance(stats.mean_difference, mine["sampled"], reference["sampled"])
    for threshold in thresholds:
        row |= step_columns(threshold, mine, reference)
    return row


def chance(statistic: stats.Statistic, x: np.ndarray, y: np.ndarray) -> float:
    """Return the p-value of a difference between two arms; NaN for fewer than FEWEST runs per task, or with gaps."""
    return stats.permutation_test(statistic, x, y) if _suffice(x, y) else float("nan")


def add_corrected(rows: Rows) -> None:
    """Set the p-values of rows after Holm's correction: of those over all tasks, and of those by task."""
    for overall in (True, False):
        family = [row for row in rows if (row["task"] == "all") == overall]
        for row, p in zip(family, stats.holm([row["p"] for row in family]), strict=True):
            row["p_holm"] = p


def aggregates(scores: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Return aggregates of an arm's scores, f64[tasks, runs], alone and against the reference's, with intervals."""
    columns = interval_columns("iqm", stats.interquartile_mean, scores)
    columns |= interval_columns("mean", stats.mean, scores)
    columns |= interval_columns("better", stats.probability_of_improvement, scores, reference)
    return columns | interval_columns("difference", stats.mean_difference, scores, reference)


def step_columns(
    threshold: float, mine: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return how long an arm takes to reach a threshold: by itself, and as a ratio to the reference.

    If a run of either does not reach it, the ratio shows no equivalence. All are NaN if there is no such threshold.
    """
    reached = mine[f"steps_to_{threshold}"]
    columns: dict[str, Any] = {
        f"steps_to_{threshold}": float(np.median(reached)),
        f"reached_{threshold}": float(np.where(np.isnan(reached), np.nan, np.isfinite(reached)).mean()),
    }
    theirs = reference[f"steps_to_{threshold}"]
    ratio = ratio_columns(threshold, mine, reference)
    all_reached = np.isfinite(reached).all() and np.isfinite(theirs).all()
    same = all_reached and _equivalent(stats.sample_ratio, reached, theirs, SAME_STEPS)
    return columns | ratio | {f"same_steps_{threshold}": bool(same)}


def ratio_columns(
    threshold: float, mine: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the ratio of the steps that two arms take to a threshold. It is NaN if no run of either reaches it.

    Runs that never reach it count as if their last step did.
    """
    steps = [np.minimum(x[f"steps_to_{threshold}"], x["steps"]) for x in (mine, theirs)]
    if not any(np.isfinite(x[f"steps_to_{threshold}"]).any() for x in (mine, theirs)):
        steps = [np.full_like(x, np.nan) for x in steps]
    return interval_columns(f"ratio_{threshold}", stats.sample_ratio, *steps)


def _equivalent(statistic: stats.Statistic, x: np.ndarray, y: np.ndarray, bounds: tuple[float, float]) -> bool:
    """Return whether two arms are shown to be equivalent, which few runs or gaps cannot show."""
    return _suffice(x, y) and stats.is_equivalent(statistic, x, y, bounds=bounds)


def _suffice(*scores: np.ndarray) -> bool:
    """Return whether there are enough runs per task, without gaps, for an interval or a test."""
    return all(x.shape[-1] >= FEWEST and bool(np.isfinite(x).all()) for x in scores)


def interval_columns(name: str, statistic: stats.Statistic, *scores: np.ndarray) -> dict[str, np.ndarray]:
    """Return the value of a statistic and the ends of its interval as columns of the summary."""
    value, low, high = with_interval(statistic, *scores)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def with_interval(statistic: stats.Statistic, *scores: np.ndarray) -> np.ndarray:
    """Return the value of a statistic, and the low and the high end of its interval, f64[3, ...].

    The ends are NaN with fewer than FEWEST runs per task, whose bootstrap is too narrow, and if scores are missing.
    """
    value = statistic(*scores)
    if not _suffice(*scores):
        return np.array([value, np.full_like(value, np.nan), np.full_like(value, np.nan)])
    return np.array([value, *stats.interval(statistic, *scores)])

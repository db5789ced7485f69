"""Comparisons beyond those with the reference: what single changes cost, and whether variants change the gaps."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from particle_grid.experiments import stats
from particle_grid.experiments.study.scores import Rows, StudyResults
from particle_grid.experiments.study.summary import add_corrected, chance, interval_columns, parts, ratio_columns


def chain_rows(results: StudyResults) -> Rows:
    """Return what each change costs: for each variant, chain and change a row over all tasks, and one per task.

    `difference` is that of the final scores. `ratio` is that of the steps to each threshold: more than 1 if the arm
    after the change needs more. A run that never reaches a threshold counts as if its last step did, and the ratio is
    NaN if no run of either arm does. Holm's correction is for all changes of a variant in the rows over all tasks, and
    for all changes and tasks in the others.
    """
    plan = results.plan
    rows = []
    for variant in results.variants:
        columns = {arm: results.columns(variant, arm) for arm in plan.arms}
        found = []
        for chain, arms in plan.chains.items():
            for (before, after), (task, part) in itertools.product(itertools.pairwise(arms), parts(results).items()):
                pair = [{name: x[part] for name, x in columns[arm].items()} for arm in (after, before)]
                row = {"variant": variant, "chain": chain, "before": before, "after": after, "task": task}
                found.append(row | change(pair[0], pair[1], plan.thresholds))
        add_corrected(found)
        rows += found
    return rows


def change(
    after: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray], thresholds: list[float]
) -> dict[str, Any]:
    """Return the columns of a row of `chain_rows` for two arms, given what `StudyResults.columns` has of them."""
    pair = (after["sampled"], before["sampled"])
    columns: dict[str, Any] = interval_columns("difference", iqm_difference, *pair)
    columns["p"] = columns["p_holm"] = chance(iqm_difference, *pair)
    for threshold in thresholds:
        columns |= ratio_columns(threshold, after, before)
    return columns


def iqm_difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the difference of interquartile means, f64[...]. Along a chain, those of neighbours add up."""
    return np.asarray(stats.interquartile_mean(x) - stats.interquartile_mean(y))


def gap_rows(results: StudyResults) -> Rows:
    """Return how variants change the gaps between arms: for each variant but the first and each arm, as `chain_rows`.

    `gap` is the arm's mean score less the reference's in that variant, and `change` is this less the same in the first
    variant: below 0 if the arm does worse against the reference. Each variant has its own scores of 0 and 1. There are
    no rows without complete seeds of the first variant.
    """
    plan = results.plan
    first = next(iter(plan.variants))
    if first not in results.variants:
        return []
    scores = {variant: {arm: results.matrix(variant, arm) for arm in plan.arms} for variant in results.variants}
    rows = []
    for variant, arm, (task, part) in itertools.product(results.variants[1:], plan.arms, parts(results).items()):
        if arm == plan.reference:
            continue
        pairs = [[scores[each][name][part] for name in (arm, plan.reference)] for each in (variant, first)]
        row = {"variant": variant, "first": first, "arm": arm, "task": task}
        row |= interval_columns("gap", stats.mean_difference, *pairs[0])
        rows.append(row | interval_columns("change", _change_of_gap, *pairs[0], *pairs[1]))
    return rows


def _change_of_gap(x: np.ndarray, y: np.ndarray, first_x: np.ndarray, first_y: np.ndarray) -> np.ndarray:
    return np.asarray(stats.mean_difference(x, y) - stats.mean_difference(first_x, first_y))

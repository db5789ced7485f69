"""The scores of a study's runs, normalised alike for all arms."""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.evaluation import baseline, match
from particle_grid.evaluation.baseline import Baseline
from particle_grid.experiments.pool import Job
from particle_grid.experiments.study.config import study_config
from particle_grid.experiments.study.plan import TEST, Plan, RunKey
from particle_grid.runs.build import build_env
from particle_grid.runs.curves import Curve, Scalars, curve_of, read_scalars
from particle_grid.runs.folder import REPAIR, RunFolder
from particle_grid.runs.results import Results
from particle_grid.runs.versions import upgraded_overrides
from particle_grid.support import atomic, records
from particle_grid.support.errors import UserError

Rows = list[dict[str, Any]]
ReferenceScores = Mapping[tuple[str, str], Baseline]  # by variant and task
SMOOTH = 5  # iterations, whose mean score must reach a threshold
LEAST_END = 0.2  # normalised score of the reference that thresholds can be relative to
REFERENCE_SCORES = "reference_scores.json"
OLD_REFERENCE_SCORES = "scales.json"  # name of the same file in earlier versions
MEASURE_AGAIN = "Remove this file, and the same command measures it again."


def measure_reference_scores(plan: Plan, out: Path) -> ReferenceScores:
    """Return the scores of random actions (0) and of the scripted policy (1) in each variant and task.

    All arms are normalised by the scores of one arm, `plan.reference_scores`. Each action form has its own script, and
    normalising by that would hide how hard the form makes the task. The scores take seconds to measure, so they are
    stored, together with the overrides that they belong to.

    Raises:
        UserError: if the stored scores are damaged, or belong to another plan.
    """
    path = out / REFERENCE_SCORES
    source = path if path.exists() else out / OLD_REFERENCE_SCORES
    stored = records.read_json(source, MEASURE_AGAIN) if source.exists() else {}
    first_trial = plan.trials(plan.reference_scores)[0]
    found = {}
    for variant, task in itertools.product(plan.variants, plan.tasks):
        name = f"{variant}/{task}"
        overrides = plan.overrides(variant, plan.reference_scores, task, 0, first_trial)
        known = _stored_baseline(source, stored, name, overrides)
        found[variant, task] = known or _measure(overrides)
        if not known:
            scores = {"random": found[variant, task].random, "scripted": found[variant, task].scripted}
            stored = stored | {name: {"overrides": overrides, **scores}}
            atomic.write(path, (json.dumps(stored, indent=1) + "\n").encode())
    return found


def _measure(overrides: tuple[str, ...]) -> Baseline:
    env = build_env(study_config(overrides))
    return baseline.measure(env, match.SEEDS, match.steps_for(env))


def _stored_baseline(path: Path, stored: Any, name: str, overrides: Sequence[str]) -> Baseline | None:
    """Return the stored scores of a variant and task, or None if there are none."""
    if isinstance(stored, dict) and name not in stored:
        return None
    try:
        entry = stored[name]
        random = np.array(entry["random"], float)
        scripted = np.array(entry["scripted"], float)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        random = scripted = np.zeros(0)
    axes = random.ndim == scripted.ndim == 2 and random.shape[1] == scripted.shape[1]
    if not axes or not random.size or not scripted.size or not np.isfinite([*random.flat, *scripted.flat]).all():
        raise UserError(f"{path} is damaged: it has no finite scores [seeds][teams] of {name}.", MEASURE_AGAIN)
    there = entry.get("overrides", overrides)  # older files do not have them
    if not isinstance(there, list | tuple) or upgraded_overrides(map(str, there)) != list(overrides):
        raise UserError(f"{path} belongs to another plan, which has other overrides for {name}.", MEASURE_AGAIN)
    return Baseline(random.tolist(), scripted.tolist())


def final_score(reference: Baseline, folder: RunFolder, results: Results, player: str = "sampled") -> float:
    """Return the final normalised score of a finished run.

    It is the mean over all evaluations, of its sampled or greedy actions.
    """
    return float(reference.normalise(_scores(folder, results, player)).mean())


def learning_curve(reference: Baseline, scalars: Scalars, folder: RunFolder, results: Results) -> Curve:
    """Return the learning curve of a finished run. The run itself logs scores normalised by its own action form."""
    random = _scores(folder, results, "random").mean()
    scripted = _scores(folder, results, "scripted").mean()
    curve = curve_of(scalars, "env/normalised_score")
    raw = random + curve.values * (scripted - random)
    return replace(curve, values=reference.normalise(raw[:, None]))


def cumulative_kl(scalars: Scalars) -> np.ndarray:
    """Return how far a run's policy has moved after each iteration, f64[iterations], in nats; NaN if it is unknown.

    It is the sum over iterations of the mean KL divergence of the policy from the one that collected the rollout.
    """
    return np.asarray(curve_of(scalars, "policy/kl").values.cumsum())


def smoothed(scores: np.ndarray) -> np.ndarray:
    """Return the mean of the last SMOOTH iterations at each iteration, and of all before the first SMOOTH."""
    means = np.convolve(scores, np.ones(SMOOTH) / SMOOTH)[: len(scores)]  # as if scores before the first were 0
    return np.asarray(means * (SMOOTH / np.minimum(np.arange(1, len(scores) + 1), SMOOTH)))


def _scores(folder: RunFolder, results: Results, player: str) -> np.ndarray:
    if player not in results.scores:
        raise UserError(f"{folder.results} has no scores of {player!r}.", REPAIR)
    return results.scores[player]


def steps_to(threshold: float, steps: np.ndarray, scores: np.ndarray) -> float:
    """Return the first step at which the mean score of the last SMOOTH iterations reaches a threshold, or infinity.

    It is NaN for a threshold of NaN.
    """
    if np.isnan(threshold):
        return float("nan")
    if len(scores) < SMOOTH or np.isnan(scores).any():
        return float("inf")
    reached = np.flatnonzero(smoothed(scores)[SMOOTH - 1 :] >= threshold)
    return float(steps[reached[0] + SMOOTH - 1]) if len(reached) else float("inf")


@dataclass(frozen=True)
class StudyResults:
    """What the finished runs of a study scored.

    chosen: by arm, the number of the trial whose hyperparameters were tested. rows: one for each run, as in
    results.csv: the fields of its key, its scores, its steps to each threshold (infinite if never, NaN if there is no
    such threshold), its minutes.
    curves: normalised, by run. kl: f64[iterations] by run, see `cumulative_kl`.
    """

    plan: Plan
    chosen: dict[str, int]
    rows: Rows
    curves: dict[RunKey, Curve]
    kl: dict[RunKey, np.ndarray]

    @functools.cached_property
    def tests(self) -> dict[tuple[str, str, str, int], dict[str, Any]]:
        """Return the rows of the test by variant, arm, task and seed."""
        tests = [row for row in self.rows if row["phase"] == TEST]
        return {(row["variant"], row["arm"], row["task"], row["seed"]): row for row in tests}

    @functools.cached_property
    def variants(self) -> list[str]:
        """Return the variants of the plan with two complete seeds or more. Only these have tables."""
        return [variant for variant in self.plan.variants if len(self.complete_seeds(variant)) > 1]

    def complete_seeds(self, variant: str) -> list[int]:
        """Return the seeds for which every arm has finished every task. Only these are compared."""
        runs = list(itertools.product(self.plan.arms, self.plan.tasks))
        return [seed for seed in self.plan.seeds if all((variant, arm, task, seed) in self.tests for arm, task in runs)]

    def threshold_unit(self, variant: str, task: str) -> float:
        """Return the normalised score that a threshold of 1 stands for.

        It is 1, or, if thresholds are relative, where the curves of the reference end, in the mean over the complete
        seeds: NaN if that is less than LEAST_END, so that thresholds would be hard to tell from chance.
        """
        if not self.plan.relative_thresholds:
            return 1.0
        keys = [self.test_key(variant, self.plan.reference, task, seed) for seed in self.complete_seeds(variant)]
        ends = [smoothed(self.curves[key].values)[-1] for key in keys]
        return float(np.mean(ends)) if ends and np.mean(ends) >= LEAST_END else float("nan")

    def matrix(self, variant: str, arm: str, key: str = "sampled") -> np.ndarray:
        """Return a column of the test results of an arm, f64[tasks, runs], with one run for each complete seed."""
        seeds = self.complete_seeds(variant)
        rows = [[self.tests[variant, arm, task, seed][key] for seed in seeds] for task in self.plan.tasks]
        return np.array(rows, float)

    def test_key(self, variant: str, arm: str, task: str, seed: int) -> RunKey:
        """Return the key of a run of the test."""
        return RunKey(TEST, variant, arm, self.chosen[arm], task, seed)

    def equal_kl(self, variant: str) -> np.ndarray:
        """Return the cumulative KL divergence that every run of a task reaches, f64[tasks]."""
        runs = list(itertools.product(self.plan.arms, self.complete_seeds(variant)))
        ends = [
            [self.kl[self.test_key(variant, arm, task, seed)][-1] for arm, seed in runs] for task in self.plan.tasks
        ]
        return np.array(ends, float).min(1)

    def scores_at_kl(self, variant: str, arm: str) -> np.ndarray:
        """Return the scores of an arm at `equal_kl`, f64[tasks, runs]; NaN if the divergence was not logged."""
        found = []
        for task, level in zip(self.plan.tasks, self.equal_kl(variant), strict=True):
            keys = [self.test_key(variant, arm, task, seed) for seed in self.complete_seeds(variant)]
            found.append([np.interp(level, self.kl[key], smoothed(self.curves[key].values)) for key in keys])
        return np.array(found, float)

    def columns(self, variant: str, arm: str) -> dict[str, np.ndarray]:
        """Return what is aggregated over the runs of an arm, by name, each f64[tasks, runs]."""
        names = ["sampled", "greedy", "steps", *(f"steps_to_{threshold}" for threshold in self.plan.thresholds)]
        return {name: self.matrix(variant, arm, name) for name in names}


def collect(
    plan: Plan, chosen: dict[str, int], reference_scores: ReferenceScores, jobs: Mapping[RunKey, Job]
) -> StudyResults:
    """Return the results of those jobs that are done.

    Raises:
        UserError: if a file of a run is damaged.
    """
    rows: dict[RunKey, dict[str, Any]] = {}
    curves = {}
    kl = {}
    for key, job in jobs.items():
        if not job.done:
            continue
        reference = reference_scores[key.variant, key.task]
        record = job.folder.read_results()
        scalars = read_scalars(job.folder)
        curve = learning_curve(reference, scalars, job.folder, record)
        kl[key] = cumulative_kl(scalars)
        scores = {player: final_score(reference, job.folder, record, player) for player in ("sampled", "greedy")}
        time = {"steps": int(curve.steps[-1]), "minutes": curve.minutes, "kl": float(kl[key][-1])}
        rows[key] = key._asdict() | scores | time
        curves[key] = curve
    results = StudyResults(plan, chosen, list(rows.values()), curves, kl)
    units = {place: results.threshold_unit(*place) for place in itertools.product(plan.variants, plan.tasks)}
    for key, curve in curves.items():
        for threshold in plan.thresholds:
            level = threshold * units[key.variant, key.task]
            rows[key][f"steps_to_{threshold}"] = steps_to(level, curve.steps, curve.values)
    return results

"""The scores of a study: normalised alike for all arms, and aggregated over runs."""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from particle_grid.evaluation import baseline, match
from particle_grid.evaluation.baseline import Baseline
from particle_grid.experiments import stats
from particle_grid.experiments.pool import Job
from particle_grid.experiments.study.config import study_config
from particle_grid.experiments.study.plan import TEST, Plan, RunKey
from particle_grid.runs.build import build_env, build_policy
from particle_grid.runs.curves import Curve, Scalars, curve_of, read_scalars
from particle_grid.runs.folder import REPAIR, RunFolder
from particle_grid.runs.results import Results
from particle_grid.runs.versions import upgraded_overrides
from particle_grid.support import atomic, records
from particle_grid.support.errors import UserError

Rows = list[dict[str, Any]]
ReferenceScores = Mapping[tuple[str, str], Baseline]  # by variant and task
FEWEST = 5  # runs per task that an interval needs
SMOOTH = 5  # iterations, whose mean score must reach a threshold
FIRST_ACTIONS = 100_000  # samples that show how an arm acts before training
SAME_SCORE = (-0.05, 0.05)  # differences of final scores that count as equivalent
SAME_STEPS = (0.8, 1.25)  # ratios of steps that count as equivalent
STILL = 0.25  # share of an axis' reach; actions below it barely move an agent
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
    """Return the first step at which the mean score of the last SMOOTH iterations reaches a threshold, or infinity."""
    if len(scores) < SMOOTH or np.isnan(scores).any():
        return float("inf")
    reached = np.flatnonzero(smoothed(scores)[SMOOTH - 1 :] >= threshold)
    return float(steps[reached[0] + SMOOTH - 1]) if len(reached) else float("inf")


@dataclass(frozen=True)
class StudyResults:
    """What the finished runs of a study scored.

    chosen: by arm, the number of the trial whose hyperparameters were tested. rows: one for each run, as in
    results.csv: the fields of its key, its scores, its steps to each threshold (infinite if never), its minutes.
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
        """Return the seeds for which every arm has finished every task. Only these are compared, as pairs."""
        pairs = list(itertools.product(self.plan.arms, self.plan.tasks))
        return [
            seed for seed in self.plan.seeds if all((variant, arm, task, seed) in self.tests for arm, task in pairs)
        ]

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

    def summary(self) -> Rows:
        """Return aggregates with 95% intervals: for each variant and arm a row over all tasks, and one per task."""
        plan = self.plan
        parts = {"all": slice(None)} | {task: slice(k, k + 1) for k, task in enumerate(plan.tasks)}
        rows = []
        keys = itertools.product(self.variants, plan.arms)
        columns = {key: self.columns(*key) | {"at_kl": self.scores_at_kl(*key)} for key in keys}
        for variant, arm in columns:
            for task, part in parts.items():
                mine = {name: x[part] for name, x in columns[variant, arm].items()}
                theirs = {name: x[part] for name, x in columns[variant, plan.reference].items()}
                row: dict[str, Any] = {"variant": variant, "arm": arm, "task": task, "runs": mine["sampled"].size}
                row |= aggregates(mine["sampled"], theirs["sampled"])
                row |= interval_columns("greedy_minus_sampled", stats.mean, mine["greedy"] - mine["sampled"])
                row |= interval_columns("score_at_equal_kl", stats.interquartile_mean, mine["at_kl"])
                row["same_score"] = _equivalent(stats.mean_difference, mine["sampled"], theirs["sampled"], SAME_SCORE)
                for threshold in plan.thresholds:
                    row |= step_columns(threshold, mine, theirs)
                rows.append(row)
        return rows

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
    rows = []
    curves = {}
    kl = {}
    for key, job in jobs.items():
        if not job.done:
            continue
        reference = reference_scores[key.variant, key.task]
        results = job.folder.read_results()
        scalars = read_scalars(job.folder)
        curve = learning_curve(reference, scalars, job.folder, results)
        kl[key] = cumulative_kl(scalars)
        row: dict[str, Any] = key._asdict()
        row |= {player: final_score(reference, job.folder, results, player) for player in ("sampled", "greedy")}
        row |= {f"steps_to_{each}": steps_to(each, curve.steps, curve.values) for each in plan.thresholds}
        rows.append(row | {"steps": int(curve.steps[-1]), "minutes": curve.minutes, "kl": float(kl[key][-1])})
        curves[key] = curve
    return StudyResults(plan, chosen, rows, curves, kl)


def aggregates(scores: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Return aggregates of an arm's scores, f64[tasks, runs], alone and against the reference's, with intervals."""

    def difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return stats.paired_difference(x, y).mean(-1)

    columns = interval_columns("iqm", stats.interquartile_mean, scores)
    columns |= interval_columns("mean", stats.mean, scores)
    columns |= interval_columns("better", stats.probability_of_improvement, scores, reference)
    return columns | interval_columns("difference", difference, scores, reference, paired=True)


def step_columns(
    threshold: float, mine: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Return how long an arm takes to reach a threshold: by itself, and as a ratio to the reference.

    With censored runs, the ratio is nearer to 1 than the true one, so it shows no equivalence.
    """
    reached = mine[f"steps_to_{threshold}"]
    columns: dict[str, Any] = {
        f"steps_to_{threshold}": float(np.median(reached)),
        f"reached_{threshold}": float(np.isfinite(reached).mean()),
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
    """Return whether two arms are shown to be equivalent, which fewer than FEWEST runs per task cannot show."""
    return x.shape[-1] >= FEWEST and stats.is_equivalent(statistic, x, y, bounds=bounds)


def interval_columns(
    name: str, statistic: stats.Statistic, *scores: np.ndarray, paired: bool = False
) -> dict[str, np.ndarray]:
    """Return the value of a statistic and the ends of its interval as columns of the summary."""
    value, low, high = with_interval(statistic, *scores, paired=paired)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def with_interval(statistic: stats.Statistic, *scores: np.ndarray, paired: bool = False) -> np.ndarray:
    """Return the value of a statistic, and the low and the high end of its interval, f64[3, ...].

    With fewer than FEWEST runs per task the ends are NaN, because a bootstrap of so few runs is too narrow; likewise if
    scores are missing.
    """
    value = statistic(*scores)
    if min(x.shape[-1] for x in scores) < FEWEST or not all(np.isfinite(x).all() for x in scores):
        return np.array([value, np.full_like(value, np.nan), np.full_like(value, np.nan)])
    return np.array([value, *stats.interval(statistic, *scores, paired=paired)])


def first_actions(plan: Plan, chosen: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """Return how each arm acts before training: by arm, statistics of the actions of a fresh policy.

    rms: root mean square along an axis. mean: mean size along an axis. still: share of axes that move by less than
    STILL. entropy: of the nearest of the nine discrete moves, in nats, at most log 9.
    """
    variant = next(iter(plan.variants))
    task = next(iter(plan.tasks))
    found = {}
    for arm in plan.arms:
        config = study_config(plan.overrides(variant, arm, task, 0, plan.trials(arm)[chosen[arm]]))
        policy = build_policy(config)
        out = policy.actor.bias.detach().expand(FIRST_ACTIONS, -1)  # observations hardly matter yet
        sample = policy.head.sample(out, torch.Generator().manual_seed(0))[0]
        actions = policy.head.to_action(sample).detach().numpy()
        found[arm] = _action_statistics((actions - 1.0 if config.action == "discrete" else actions).clip(-1, 1))
    return found


def _action_statistics(actions: np.ndarray) -> dict[str, float]:
    """Return statistics of actions, f32[N, 2] in [-1, 1]."""
    nearest = np.bincount(np.rint(actions).astype(int) @ [3, 1] + 4, minlength=9) / len(actions)
    shares = nearest[nearest > 0]
    return {
        "rms": float(np.sqrt(np.mean(np.square(actions)))),
        "mean": float(np.mean(np.abs(actions))),
        "still": float(np.mean(np.abs(actions) < STILL)),
        "entropy": float(-np.sum(shares * np.log(shares))),
    }

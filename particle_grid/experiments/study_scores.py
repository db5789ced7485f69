"""What the runs of a study are worth: scores on one scale for all arms, and how soon they got there."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.evaluation import scores
from particle_grid.evaluation.scores import Baseline
from particle_grid.experiments.plan import Plan
from particle_grid.experiments.pool import Job, curve, read_scores
from particle_grid.experiments.study_config import run_config
from particle_grid.runs.build import build_env, build_policy
from particle_grid.support import atomic, records

SMOOTH = 5  # iterations whose mean score must pass a threshold
FIRST_ACTIONS = 100_000  # sampled to tell how an arm begins
STILL = 0.25  # of an axis' reach: less is no move to speak of
SCALES, MEASURE_AGAIN = "scales.json", "Remove this file, and the same command measures it again."
KEYS = ["phase", "variant", "arm", "draw", "task", "seed"]
Scales = Mapping[tuple[str, str], Baseline]  # by variant and task


def measure_scales(plan: Plan, out: Path) -> Scales:
    """What random actions (0) and the script (1) of the plan's `scale` arm score in each task and variant.

    One scale for all arms: an action form's own script may be better, and would hide what the form makes hard. Stored
    in scales.json with the overrides of the setting, since measuring takes seconds for each.

    Raises:
        ValueError: for a scales.json that is damaged, or of another plan."""
    path, scales, stored = out / SCALES, dict[tuple[str, str], Baseline](), dict[str, Any]()
    there = records.read_json(path, MEASURE_AGAIN) if path.exists() else {}
    for variant, task in itertools.product(plan.variants, plan.tasks):
        key, overrides = f"{variant}/{task}", plan.overrides(variant, plan.scale, task, 0, plan.draws(plan.scale)[0])
        known = _read_scale(path, there, key, overrides)
        baseline = known or scores.measure(build_env(run_config(overrides)))
        scales[variant, task] = baseline
        stored[key] = {"overrides": overrides, "random": baseline.random, "scripted": baseline.scripted}
        if not known:
            atomic.write(path, (json.dumps(there | stored, indent=1) + "\n").encode())
    return scales


def _read_scale(path: Path, there: Any, key: str, overrides: Sequence[str]) -> Baseline | None:
    """Return the stored scale of a setting, or None where there is none."""
    entry: Any = there.get(key) if isinstance(there, dict) else "damaged"
    if entry is None:
        return None
    try:
        random, scripted = (np.array(entry[each], float) for each in ("random", "scripted"))
        sound = random.ndim == scripted.ndim == 2 and random.shape[1] == scripted.shape[1]
        sound &= bool(random.size and scripted.size and np.isfinite(random).all() and np.isfinite(scripted).all())
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        sound = False
    if not sound:
        raise ValueError(f"{path} is damaged: it has no finite scores [seeds][teams] for {key}. {MEASURE_AGAIN}")
    if list(entry.get("overrides", overrides)) != list(overrides):  # older files do not say
        raise ValueError(f"{path} is of another plan, which sets {key} otherwise. {MEASURE_AGAIN}")
    return Baseline(random.tolist(), scripted.tolist())


def final(scale: Baseline, job: Job, kind: str = "sampled") -> float:
    """The final normalised score of a finished run: of its sampled or greedy actions, the mean over evaluations."""
    return float(scale.normalise(read_scores(job.folder, f"policy, {kind}")).mean())


def learning_curve(scale: Baseline, job: Job) -> tuple[np.ndarray, np.ndarray, float]:
    """Steps, normalised scores, and minutes of training. A run logs its score on the scale of its own action form."""
    random, scripted = (read_scores(job.folder, label).mean() for label in ("random actions", "script"))
    steps, values, minutes = curve(job.folder)
    return steps, scale.normalise((random + values * (scripted - random))[:, None]), minutes


def row(plan: Plan, scales: Scales, which: tuple[str, str, str, int, str, int], job: Job) -> dict[str, Any]:
    """A finished run: which one (KEYS), its scores, its steps to each threshold (infinite: never), its minutes."""
    scale = scales[which[1], which[4]]
    steps, curve, minutes = learning_curve(scale, job)
    reached = {f"steps_to_{threshold}": steps_to(threshold, steps, curve) for threshold in plan.thresholds}
    finals = {kind: final(scale, job, kind) for kind in ("sampled", "greedy")}
    return dict(zip(KEYS, which, strict=True)) | finals | reached | {"steps": int(steps[-1]), "minutes": minutes}


def steps_to(threshold: float, steps: np.ndarray, scores: np.ndarray) -> float:
    """The first step at which the mean score of the last SMOOTH iterations reaches a threshold; infinite: never."""
    if len(scores) < SMOOTH or np.isnan(scores).any():
        return float("inf")
    means = np.convolve(scores, np.ones(SMOOTH) / SMOOTH, "valid")  # of iterations k to k + SMOOTH - 1
    reached = np.flatnonzero(means >= threshold)
    return float(steps[reached[0] + SMOOTH - 1]) if len(reached) else float("inf")


def beginnings(plan: Plan, chosen: Mapping[str, int]) -> dict[str, dict[str, float]]:
    """How each arm acts before it has learnt anything: by arm, statistics of FIRST_ACTIONS actions of a fresh policy.

    rms: root mean square along an axis. still: share of axes moved by less than STILL. entropy: of the nearest of the
    nine moves, in nats, at most log 9."""
    import torch

    variant, task = next(iter(plan.variants)), next(iter(plan.tasks))
    found = {}
    for arm in plan.arms:
        config = run_config(plan.overrides(variant, arm, task, 0, plan.draws(arm)[chosen[arm]]))
        env = build_env(config)
        policy = build_policy(config, env)
        out = policy.actor.bias.detach().expand(FIRST_ACTIONS, -1)  # all there is to it: inputs hardly matter yet
        actions = policy.head.to_action(policy.head.sample(out, torch.Generator().manual_seed(0))[0]).detach().numpy()
        actions = (actions - 1.0 if env.discrete else actions).clip(-1, 1)
        nearest = np.bincount(np.rint(actions).astype(int) @ [3, 1] + 4, minlength=9) / len(actions)
        shares = nearest[nearest > 0]
        found[arm] = {
            "rms": float(np.sqrt(np.mean(np.square(actions)))),
            "still": float(np.mean(np.abs(actions) < STILL)),
            "entropy": float(-np.sum(shares * np.log(shares))),
        }
    return found

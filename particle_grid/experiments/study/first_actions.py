"""How the arms of a study act before training."""

from collections.abc import Mapping

import numpy as np
import torch

from particle_grid.experiments.study.config import study_config
from particle_grid.experiments.study.plan import Plan
from particle_grid.runs.build import build_policy

SAMPLES = 100_000  # actions that show how an arm acts
STILL = 0.25  # share of an axis' reach; actions below it barely move an agent


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
        out = policy.actor.bias.detach().expand(SAMPLES, -1)  # observations hardly matter yet
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

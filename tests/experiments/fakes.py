"""Substitutes for training and for the figures of a study."""

import json
import sys
from contextlib import closing

import numpy as np
import pytest
from omegaconf import OmegaConf

from particle_grid import study
from particle_grid.evaluation.baseline import Baseline
from particle_grid.experiments.study import plots, scores, tables
from particle_grid.experiments.study import run as steps
from particle_grid.learn.loggers.tensorboard import TensorBoardLogger
from particle_grid.runs.folder import RunFolder
from particle_grid.runs.results import Results

UNIT = Baseline([[0.0]], [[1.0]])  # leaves scores unchanged


def write_results(folder: RunFolder, normalised: float | None = None, **scores: float) -> None:
    """Write the results of a run: one score for each player."""
    arrays = {player: np.array([[score]]) for player, score in scores.items()}
    values = {player: np.array([score if normalised is None else normalised]) for player, score in scores.items()}
    folder.path.mkdir(parents=True, exist_ok=True)
    Results(arrays, values).write(folder.results)


def write_curve(folder: RunFolder, scores, kl: float | None = 0.1) -> None:
    """Write a learning curve with a score and a KL divergence every hundred steps."""
    moved = {} if kl is None else {"policy/kl": kl}
    with closing(TensorBoardLogger(folder.path)) as logger:
        for k, score in enumerate(scores, 1):
            logger.log(100 * k, {"env/normalised_score": score, "perf/steps_per_second": 1000.0} | moved)


def strength(overrides) -> float:
    """Return the score of a run with these overrides: lower for Gaussian arms and for low learning rates."""
    return (
        0.9
        - 0.3 * ("policy.head=gaussian" in overrides)
        - 0.1 * ("trainer.learning_rate=0.002" in overrides)
        - 0.2 * ("task=forage" in overrides)
    )


def fake_run(job) -> None:
    """Write the files of a training run."""
    seed = next(int(override.removeprefix("seed=")) for override in job.overrides if override.startswith("seed="))
    score = strength(job.overrides) + 0.01 * seed
    write_curve(job.folder, [score * k / 10 for k in range(1, 11)])
    write_results(job.folder, sampled=score, greedy=score, random=0.0, scripted=1.0)
    job.folder.write_overrides([*job.overrides, "trainer.threads=1"])


class Trained:
    """The study command with `fake_run` in place of training.

    Attributes:
        done: the jobs that ran.
        failing: sets of overrides; a run fails if it has all overrides of one set.
    """

    def __init__(self):
        self.done = []
        self.failing = []

    def run_all(self, jobs, ended, count):
        failed = []
        for job in jobs:
            if not job.done:
                self.done.append(job)
                if any(each <= set(job.overrides) for each in self.failing):
                    failed.append(job)
                    job.folder.path.mkdir(parents=True, exist_ok=True)
                    job.folder.error.write_text("it was told to\n")
                else:
                    fake_run(job)
            ended(job, "it was told to, by [/seed=1]" if job in failed else "")
        return failed

    def __call__(self, *arguments):
        sys.argv = ["study", *arguments]
        try:
            study.main()
        except SystemExit as exit:
            return exit.code
        return 0


@pytest.fixture
def without_figures(monkeypatch):
    """Skip slow steps that other tests cover: figures, and the first actions of each arm."""
    monkeypatch.setattr(plots, "draw", lambda *_: {})
    monkeypatch.setattr(tables, "first_actions", lambda *_: {})


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """The study command in an empty folder."""
    command = Trained()
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(steps, "run_all", command.run_all)
    monkeypatch.setattr(scores.baseline, "measure", lambda env, seeds, steps: UNIT)
    monkeypatch.chdir(tmp_path)
    return command


def write_yaml(path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(value)), "utf-8")


def reference_scores(**changed) -> bytes:
    """Return the content of reference_scores.json for the plan `smoke`."""
    entry = {"random": [[0.0]], "scripted": [[1.0]]} | changed
    keys = [f"{variant}/{task}" for variant in ("kinematic", "inertial") for task in ("center", "forage")]
    return json.dumps(dict.fromkeys(keys, entry)).encode()

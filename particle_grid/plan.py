"""The plan of a study: arms that differ in one thing, the same tasks, the same tuning, seeds of their own."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from particle_grid.command import config_folder, typed, unknown
from particle_grid.jobs import Job

Knobs = tuple[tuple[str, Any], ...]  # (key, value) each


@dataclass
class Arm:
    """overrides: of train, what makes it this arm. search: values of knobs that only this arm has."""

    overrides: list[str]
    search: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class Tuning:
    """Each arm is tried with `draws` sets of knobs, the first of which has the first value of each, on some tasks and
    seeds."""

    tasks: list[str]
    seeds: list[int]
    draws: int


@dataclass
class Plan:
    """See conf/study/reduced.yaml for what each part is for. tasks: overrides by label."""

    question: str
    tasks: dict[str, list[str]]
    reference: str
    scale: str
    arms: dict[str, Arm]
    variants: dict[str, list[str]]
    common: list[str]
    search: dict[str, list[Any]]
    tuning: Tuning
    seeds: list[int]
    thresholds: list[float]

    def check(self) -> None:
        """Raises ValueError for a plan that would not say what it is meant to."""
        for arm, what in ((self.reference, "reference"), (self.scale, "scale")):
            if arm not in self.arms:
                raise ValueError(unknown(f"arm {arm!r}, the {what}", arm, self.arms))
        for task in self.tuning.tasks:
            if task not in self.tasks:
                raise ValueError(unknown(f"task {task!r} in the plan's tasks, though it is tuned on", task, self.tasks))
        if both := set(self.seeds) & set(self.tuning.seeds):
            raise ValueError(f"seed {min(both)} is both tuned and tested on: let the plan's seeds be others.")
        if len(self.seeds) < 2 or self.tuning.draws < 1 or not self.variants:
            raise ValueError("The plan needs two seeds, a draw and a variant at least.")
        if self.tuning.draws > 1 and not (self.tuning.seeds and self.tuning.tasks):
            raise ValueError("The plan's tuning has several draws to choose from: it needs a task and a seed at least.")
        for arm in self.arms:
            if len(self.draws(arm)) < self.tuning.draws:
                raise ValueError(
                    f"tuning.draws={self.tuning.draws} is more than arm {arm} has sets of knobs "
                    f"({len(self.draws(arm))}): lower it, so that all arms have as many."
                )

    def draws(self, arm: str) -> list[Knobs]:
        """The sets of knobs that are tried, as many for each arm, out of its own search space: the first value of each
        knob, then others at random. Arms with the same space draw the same."""
        space = self.search | self.arms[arm].search
        first, *others = [tuple(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
        order = np.random.default_rng(0).permutation(len(others))
        return [first, *(others[k] for k in order[: self.tuning.draws - 1])]

    def overrides(self, variant: str, arm: str, task: str, seed: int, knobs: Knobs) -> tuple[str, ...]:
        """What train is called with."""
        parts = [*self.common, *self.tasks[task], *self.variants[variant], *self.arms[arm].overrides]
        return (*parts, *(f"{key}={value}" for key, value in knobs), f"seed={seed}")

    def tuning_jobs(self, out: Path) -> dict[tuple[str, int, str, int], Job]:
        """By arm, number of the draw, task and seed, in the first variant. None where there is nothing to choose."""
        variant = next(iter(self.variants))
        if self.tuning.draws == 1:
            return {}
        return {
            (arm, k, task, seed): Job(
                out / "tuning" / arm / str(k) / f"{task}-{seed}", self.overrides(variant, arm, task, seed, knobs)
            )
            for k in range(self.tuning.draws)
            for task in self.tuning.tasks
            for seed in self.tuning.seeds
            for arm in self.arms
            for knobs in self.draws(arm)[k : k + 1]
        }

    def test_jobs(self, out: Path, chosen: dict[str, int]) -> dict[tuple[str, str, str, int], Job]:
        """By variant, arm, task and seed, with the knobs of the draw that was chosen for each arm. Seeds come last, so
        that an interrupted study has as many of every arm."""
        return {
            (variant, arm, task, seed): Job(
                out / "test" / variant / arm / f"{task}-{seed}",
                self.overrides(variant, arm, task, seed, self.draws(arm)[chosen[arm]]),
            )
            for seed in self.seeds
            for variant in self.variants
            for task in self.tasks
            for arm in self.arms
        }


def load_plan(name: str) -> tuple[Plan, str]:
    """The plan of a name in conf/study, or of a path to a .yaml, and its text. Raises ValueError for one that there is
    not, that lacks something, or that has keys or values that cannot be."""
    path, folder = Path(name), config_folder() / "study"
    if path.suffix != ".yaml":
        path = folder / f"{name}.yaml"
    if not path.exists():
        raise ValueError(unknown(f"plan {name!r}", name, (known.stem for known in folder.glob("*.yaml"))))
    text = path.read_text("utf-8")
    plan = typed(Plan, OmegaConf.create(text))  # type: ignore[arg-type]
    plan.check()
    return plan, text

"""The plan of a study: arms that differ in one thing, the same tasks, the same tuning, seeds of their own."""

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from particle_grid.cli import config_folder, typed, unknown
from particle_grid.experiments.pool import Job
from particle_grid.support import records

Knobs = tuple[tuple[str, Any], ...]  # (key, value) each
PLAIN, LONGEST = re.compile(r"[^\W_][\w.-]*"), 80  # names, and how many letters they may have
OVERRIDE = re.compile(r"[+~]*[\w./@:]+=.*", re.DOTALL)
GIVEN = {"seed", "resume", "trainer.threads"}  # keys that each run gets from the study
MOST_RUNS, MOST_SETS = 50_000, 1_000_000  # of a plan; sets of knobs to draw from


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
        """Raise ValueError for a plan that would not say what it is meant to."""
        self._check_names()
        self._check_overrides()
        self._check_knobs()
        for arm, what in ((self.reference, "reference"), (self.scale, "scale")):
            if arm not in self.arms:
                raise ValueError(unknown(f"arm {arm!r}, the {what}", arm, self.arms))
        for task in self.tuning.tasks:
            if task not in self.tasks:
                raise ValueError(unknown(f"task {task!r} in the plan's tasks, though it is tuned on", task, self.tasks))
        if both := set(self.seeds) & set(self.tuning.seeds):
            raise ValueError(f"seed {min(both)} is both tuned and tested on: let the plan's seeds be others.")
        if len(self.seeds) < 2 or self.tuning.draws < 1 or not self.variants or not self.tasks:
            raise ValueError("The plan needs two seeds, a draw, a task and a variant at least.")
        if self.tuning.draws > 1 and not (self.tuning.seeds and self.tuning.tasks):
            raise ValueError("The plan's tuning has several draws to choose from: it needs a task and a seed at least.")
        tuned = self.tuning.draws * len(self.tuning.tasks) * len(self.tuning.seeds)
        runs = len(self.arms) * (tuned + len(self.variants) * len(self.tasks) * len(self.seeds))
        if runs > MOST_RUNS:
            raise ValueError(f"The plan has {runs:,} runs, more than {MOST_RUNS:,}: split it into several plans.")

    def _check_names(self) -> None:
        """Names become folders: refuse those that could lead elsewhere."""
        named: dict[str, Iterable[str]] = {"arm": self.arms, "variant": self.variants, "task": self.tasks}
        for kind, names in named.items():
            for name in names:
                if not is_plain(name):
                    raise ValueError(
                        f"{name!r} is not a name for the {kind} of a plan, since its runs' folder is called so: use up "
                        f"to {LONGEST} letters, digits, '_', '-' and '.', and begin with a letter or a digit."
                    )

    def _check_overrides(self) -> None:
        """Refuse what train would not take for KEY=VALUE, and keys that the study itself gives."""
        lists = [self.common, *self.tasks.values(), *self.variants.values()]
        lists += [arm.overrides for arm in self.arms.values()]
        lists += [[f"{key}=" for key in self.space(arm)] for arm in self.arms]
        for override in itertools.chain.from_iterable(lists):
            if not isinstance(override, str) or not OVERRIDE.fullmatch(override):
                raise ValueError(f"{override!r} cannot be an override: write KEY=VALUE, as in world.agents=1024.")
            key = override.partition("=")[0].lstrip("+~")
            if key in GIVEN or key.partition(".")[0] == "hydra":
                raise ValueError(f"{override!r} cannot be an override: a study gives {key} to each run. Leave it out.")

    def _check_knobs(self) -> None:
        """Refuse seeds, thresholds and sets of knobs that no run could have."""
        for key, seeds in (("seeds", self.seeds), ("tuning.seeds", self.tuning.seeds)):
            if len(set(seeds)) < len(seeds) or not all(0 <= seed < 1 << 63 for seed in seeds):
                raise ValueError(f"{key}={seeds} cannot be: give different whole numbers from 0 on, below 2**63.")
        if not all(map(math.isfinite, self.thresholds)) or len(set(self.thresholds)) < len(self.thresholds):
            raise ValueError(f"thresholds={self.thresholds} cannot be: give different finite numbers.")
        for arm in self.arms:
            sets = math.prod(len(values) for values in self.space(arm).values())
            if sets > MOST_SETS:
                raise ValueError(
                    f"Arm {arm} has {sets:,} sets of knobs to draw from, more than {MOST_SETS:,}: give its search "
                    f"fewer values."
                )
            if sets < self.tuning.draws:
                raise ValueError(
                    f"tuning.draws={self.tuning.draws} is more than arm {arm} has sets of knobs ({sets}): lower it, "
                    f"so that all arms have as many."
                )

    def space(self, arm: str) -> dict[str, list[Any]]:
        """Return the values of each knob that an arm may have."""
        return self.search | self.arms[arm].search

    def draws(self, arm: str) -> list[Knobs]:
        """Return the sets of knobs that are tried, as many for each arm, out of its own search space: the first value
        of each knob, then others at random. Arms with the same space draw the same."""
        space = self.space(arm)
        sizes = [len(values) for values in space.values()]
        order = np.random.default_rng(0).permutation(math.prod(sizes) - 1)
        places = [0, *(order[: self.tuning.draws - 1] + 1)]  # in the order of itertools.product
        return [
            tuple(
                (key, values[k]) for (key, values), k in zip(space.items(), np.unravel_index(place, sizes), strict=True)
            )
            for place in places
        ]

    def overrides(self, variant: str, arm: str, task: str, seed: int, knobs: Knobs) -> tuple[str, ...]:
        """What train is called with."""
        parts = [*self.common, *self.tasks[task], *self.variants[variant], *self.arms[arm].overrides]
        return (*parts, *(f"{key}={value}" for key, value in knobs), f"seed={seed}")

    def tuning_jobs(self, out: Path) -> dict[tuple[str, int, str, int], Job]:
        """By arm, number of the draw, task and seed, in the first variant. None where there is nothing to choose."""
        if self.tuning.draws == 1:
            return {}
        variant, draws = next(iter(self.variants)), {arm: self.draws(arm) for arm in self.arms}
        return {
            (arm, k, task, seed): Job(
                out / "tuning" / arm / str(k) / f"{task}-{seed}", self.overrides(variant, arm, task, seed, knobs)
            )
            for k in range(self.tuning.draws)
            for task in self.tuning.tasks
            for seed in self.tuning.seeds
            for arm in self.arms
            for knobs in draws[arm][k : k + 1]
        }

    def test_jobs(self, out: Path, chosen: dict[str, int]) -> dict[tuple[str, str, str, int], Job]:
        """By variant, arm, task and seed, with the knobs of the draw that was chosen for each arm. Seeds come last, so
        that an interrupted study has as many of every arm."""
        knobs = {arm: self.draws(arm)[draw] for arm, draw in chosen.items()}
        return {
            (variant, arm, task, seed): Job(
                out / "test" / variant / arm / f"{task}-{seed}", self.overrides(variant, arm, task, seed, knobs[arm])
            )
            for seed in self.seeds
            for variant in self.variants
            for task in self.tasks
            for arm in self.arms
        }


def is_plain(name: str) -> bool:
    """Return whether a name can be the name of a folder, and of nothing beyond it."""
    return len(name) <= LONGEST and PLAIN.fullmatch(name) is not None


def load_plan(name: str) -> tuple[Plan, str]:
    """Return the plan of a name in conf/study, or of a path to a .yaml, and its text.

    Raises:
        ValueError: where there is no such plan, or it lacks something, or has keys or values that are invalid."""
    path, folder = Path(name), config_folder() / "study"
    if path.suffix != ".yaml":
        path = folder / f"{name if is_plain(name) else ''}.yaml"
    if not path.exists():
        raise ValueError(unknown(f"plan {name!r}", name, (known.stem for known in folder.glob("*.yaml"))))
    node = read_plan(path)
    try:
        plan = typed(Plan, node)
    except (ValueError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"{path} cannot be used as a plan: {reason}. Correct it, as conf/study/smoke.yaml shows."
        ) from None
    try:
        plan.check()
    except ValueError as error:
        raise ValueError(f"{path} cannot be used as a plan: {error}") from None
    return plan, path.read_text("utf-8")


def read_plan(path: Path) -> DictConfig:
    """Return the keys of a plan. Raise ValueError for a file that is no YAML, or has no keys."""
    return records.read_yaml(path, DictConfig, "Correct it, as conf/study/smoke.yaml shows.")

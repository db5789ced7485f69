"""The plan of a study: arms that differ in one thing, compared on the same tasks after the same tuning."""

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from particle_grid.experiments.pool import Job
from particle_grid.runs.folder import RunFolder
from particle_grid.runs.versions import upgraded_override
from particle_grid.settings.compose import config_folder, typed
from particle_grid.support import records
from particle_grid.support.errors import UserError, unknown

Hyperparameters = tuple[tuple[str, Any], ...]  # pairs of key and value
NAME = re.compile(r"[^\W_][\w.-]*")
LONGEST_NAME = 80
OVERRIDE = re.compile(r"[+~]*[\w./@:]+=.*", re.DOTALL)
RESERVED = {"seed", "resume", "trainer.threads"}  # keys that the study sets for each run
MOST_RUNS = 50_000
MOST_COMBINATIONS = 1_000_000  # combinations of hyperparameters in the search space of an arm
OLD_KEYS = {"scale": "reference_scores"}  # renamed keys of a plan, each with its successor
OLD_TUNING_KEYS = {"draws": "trials"}
TUNING = "tuning"  # phases
TEST = "test"


class RunKey(NamedTuple):
    """Identifies a run of a study. trial: number of its set of hyperparameters, counted from 0 for each arm."""

    phase: str
    variant: str
    arm: str
    trial: int
    task: str
    seed: int


@dataclass
class Arm:
    """One of the alternatives that a study compares.

    overrides: of train, those that make it this arm. search: values of hyperparameters that only this arm has.
    """

    overrides: list[str]
    search: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class Tuning:
    """How the hyperparameters of each arm are chosen.

    trials: sets of hyperparameters per arm, each of which is trained on every task with every seed.
    """

    tasks: list[str]
    seeds: list[int]
    trials: int


@dataclass
class Plan:
    """Everything that is decided before a study starts; see the comments in conf/study/reduced.yaml.

    tasks, variants: lists of overrides by label. common: overrides of every run. reference: the arm that others are
    compared with. reference_scores: the arm whose random actions score 0 and whose scripted policy scores 1.
    null_control: the arm that should equal the reference, if there is one. chains: by label, arms in an order in which
    each differs from the one before it in one thing; the report shows what each of these changes costs.
    thresholds: normalised scores whose steps are reported, or, if relative_thresholds, shares of the score at which the
    reference ends. steps_per_second: of a run on one core, for the estimate of the time.
    """

    question: str
    tasks: dict[str, list[str]]
    reference: str
    reference_scores: str
    arms: dict[str, Arm]
    variants: dict[str, list[str]]
    common: list[str]
    search: dict[str, list[Any]]
    tuning: Tuning
    seeds: list[int]
    thresholds: list[float]
    relative_thresholds: bool = False
    null_control: str = ""
    chains: dict[str, list[str]] = field(default_factory=dict)
    steps_per_second: int = 90_000

    def check(self) -> None:
        """Raise UserError if the plan contradicts itself, or is too small or too large."""
        self._check_names()
        self._check_overrides()
        self._check_numbers()
        self._check_search()
        self._check_references()
        self._check_size()

    def _check_names(self) -> None:
        """Refuse names that are not safe as names of folders."""
        named: dict[str, Iterable[str]] = {"arm": self.arms, "variant": self.variants, "task": self.tasks}
        for kind, names in named.items():
            for name in names:
                if not is_plain(name):
                    raise UserError(
                        f"{name!r} is not a valid name of {kind}s, because it names a folder: use up to {LONGEST_NAME} "
                        f"letters, digits, '_', '-' and '.', and start with a letter or a digit."
                    )

    def _check_overrides(self) -> None:
        """Refuse overrides that train would not read as KEY=VALUE, and keys that the study sets itself."""
        lists = [self.common, *self.tasks.values(), *self.variants.values()]
        lists += [arm.overrides for arm in self.arms.values()]
        lists += [[f"{key}=" for key in self.space(arm)] for arm in self.arms]
        for override in itertools.chain.from_iterable(lists):
            if not isinstance(override, str) or not OVERRIDE.fullmatch(override):
                raise UserError(f"{override!r} is not an override: write KEY=VALUE, as in world.agents=1024.")
            key = override.partition("=")[0].lstrip("+~")
            if key in RESERVED or key.partition(".")[0] == "hydra":
                raise UserError(f"{override!r} is not allowed, because a study sets {key} for each run: leave it out.")

    def _check_numbers(self) -> None:
        for key, seeds in (("seeds", self.seeds), ("tuning.seeds", self.tuning.seeds)):
            if len(set(seeds)) < len(seeds) or not all(0 <= seed < 1 << 63 for seed in seeds):
                raise UserError(f"{key}={seeds} is invalid: give different whole numbers, at least 0 and below 2**63.")
        if both := set(self.seeds) & set(self.tuning.seeds):
            raise UserError(
                f"Seed {min(both)} is used for both tuning and testing: choose other seeds for one of them."
            )
        if self.steps_per_second < 1:
            raise UserError(f"steps_per_second={self.steps_per_second} is invalid: give a whole number, 1 or more.")
        if not all(map(math.isfinite, self.thresholds)) or len(set(self.thresholds)) < len(self.thresholds):
            raise UserError(f"thresholds={self.thresholds} is invalid: give different finite numbers.")
        if self.relative_thresholds and not all(0 < threshold <= 1 for threshold in self.thresholds):
            raise UserError(f"thresholds={self.thresholds} is invalid: give shares above 0 and up to 1.")

    def _check_search(self) -> None:
        """Refuse search spaces that have too few or too many sets of hyperparameters."""
        for arm in self.arms:
            count = math.prod(len(values) for values in self.space(arm).values())
            if count > MOST_COMBINATIONS:
                raise UserError(
                    f"Arm {arm} has {count:,} sets of hyperparameters, more than {MOST_COMBINATIONS:,}: give its "
                    f"search fewer values."
                )
            if count < self.tuning.trials:
                raise UserError(
                    f"tuning.trials={self.tuning.trials} is more than arm {arm} has sets of hyperparameters ({count}): "
                    f"lower it, so that all arms have equally many trials."
                )

    def _check_references(self) -> None:
        """Refuse names of arms and tasks that the plan does not define."""
        for key in ("reference", "reference_scores", *(["null_control"] if self.null_control else [])):
            if (arm := getattr(self, key)) not in self.arms:
                raise UserError(unknown(f"arm {arm!r}, which {key} names", arm, self.arms))
        for label, arms in self.chains.items():
            for arm in arms:
                if arm not in self.arms:
                    raise UserError(unknown(f"arm {arm!r}, which chains.{label} names", arm, self.arms))
            if len(arms) < 2 or len(set(arms)) < len(arms):
                raise UserError(f"chains.{label}={arms} is invalid: give two different arms or more.")
        for task in self.tuning.tasks:
            if task not in self.tasks:
                raise UserError(unknown(f"task {task!r}, which tuning.tasks names", task, self.tasks))

    def _check_size(self) -> None:
        if len(self.seeds) < 2 or self.tuning.trials < 1 or not self.variants or not self.tasks:
            raise UserError("The plan needs at least two seeds, one trial, one task and one variant.")
        if self.tuning.trials > 1 and not (self.tuning.seeds and self.tuning.tasks):
            raise UserError("Tuning has several trials to choose from, so it needs at least one task and one seed.")
        tuned = self.tuning.trials * len(self.tuning.tasks) * len(self.tuning.seeds)
        runs = len(self.arms) * (tuned + len(self.variants) * len(self.tasks) * len(self.seeds))
        if runs > MOST_RUNS:
            raise UserError(f"The plan has {runs:,} runs, more than {MOST_RUNS:,}: split it into several plans.")

    def space(self, arm: str) -> dict[str, list[Any]]:
        """Return the search space of an arm: the values of each hyperparameter."""
        return self.search | self.arms[arm].search

    def trials(self, arm: str) -> list[Hyperparameters]:
        """Return the sets of hyperparameters that are tried for an arm.

        The first one has the first value of each hyperparameter; the others are random. Arms with the same search space
        have the same trials.
        """
        space = self.space(arm)
        sizes = [len(values) for values in space.values()]
        order = np.random.default_rng(0).permutation(math.prod(sizes) - 1)
        numbers = [0, *(order[: self.tuning.trials - 1] + 1)]  # in the order of itertools.product
        return [_combination(space, np.unravel_index(number, sizes)) for number in numbers]

    def overrides(
        self, variant: str, arm: str, task: str, seed: int, hyperparameters: Hyperparameters
    ) -> tuple[str, ...]:
        """Return the arguments that train is called with. Later ones take precedence."""
        parts = [*self.common, *self.tasks[task], *self.variants[variant], *self.arms[arm].overrides]
        return (*parts, *(f"{key}={value}" for key, value in hyperparameters), f"seed={seed}")

    def tuning_jobs(self, out: Path) -> dict[RunKey, Job]:
        """Return the runs of the tuning phase, all in the first variant; none if there is nothing to choose from."""
        if self.tuning.trials == 1:
            return {}
        variant = next(iter(self.variants))
        trials = {arm: self.trials(arm) for arm in self.arms}
        jobs = {}
        for k, task, seed, arm in itertools.product(
            range(self.tuning.trials), self.tuning.tasks, self.tuning.seeds, self.arms
        ):
            folder = RunFolder(out / "tuning" / arm / str(k) / f"{task}-{seed}")
            key = RunKey(TUNING, variant, arm, k, task, seed)
            jobs[key] = Job(folder, self.overrides(variant, arm, task, seed, trials[arm][k]))
        return jobs

    def test_jobs(self, out: Path, chosen: dict[str, int]) -> dict[RunKey, Job]:
        """Return the runs of the test phase, with the hyperparameters of the trial that was chosen for each arm.

        They are ordered by seed, so that an interrupted study has equally many runs of every arm.
        """
        trials = {arm: self.trials(arm)[trial] for arm, trial in chosen.items()}
        jobs = {}
        for seed, variant, task, arm in itertools.product(self.seeds, self.variants, self.tasks, self.arms):
            folder = RunFolder(out / "test" / variant / arm / f"{task}-{seed}")
            key = RunKey(TEST, variant, arm, chosen[arm], task, seed)
            jobs[key] = Job(folder, self.overrides(variant, arm, task, seed, trials[arm]))
        return jobs


def _combination(space: dict[str, list[Any]], indices: Iterable[Any]) -> Hyperparameters:
    return tuple((key, values[k]) for (key, values), k in zip(space.items(), indices, strict=True))


def is_plain(name: str) -> bool:
    """Return whether a name is safe as the name of a folder, and cannot lead to another one."""
    return len(name) <= LONGEST_NAME and NAME.fullmatch(name) is not None


def find_plan(name: str) -> Path:
    """Return the file of a plan.

    Args:
        name: of a plan in conf/study, or a path that ends in .yaml.

    Raises:
        UserError: if there is no such file.
    """
    path = Path(name)
    folder = config_folder() / "study"
    if path.suffix != ".yaml":
        path = folder / f"{name if is_plain(name) else ''}.yaml"
    if not path.exists():
        raise UserError(unknown(f"plan {name!r}", name, (known.stem for known in folder.glob("*.yaml"))))
    return path


def read_plan(path: Path) -> Plan:
    """Return the plan in a file of any version.

    Raises:
        UserError: if the file is damaged, lacks a key, or has an unknown key or an invalid value.
    """
    remedy = "See conf/study/smoke.yaml for an example."
    node = records.read_yaml(path, DictConfig, remedy)
    try:
        plan = typed(Plan, OmegaConf.create(upgraded_plan(OmegaConf.to_container(node))))
        plan.check()
    except (ValueError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path} is not a valid plan: {reason}.", remedy) from None
    return plan


def upgraded_plan(values: Any) -> dict[str, Any]:
    """Return the content of a plan with the current names of its keys, and of the settings in it."""
    new = _renamed(values, OLD_KEYS)
    if isinstance(new.get("tuning"), dict):
        new["tuning"] = _renamed(new["tuning"], OLD_TUNING_KEYS)
    return _upgraded_settings(new)


def _renamed(values: dict[Any, Any], names: dict[str, str]) -> dict[Any, Any]:
    """Return values under new names, except those for which both names are there: the old one is refused later."""
    return {key if names.get(key, key) in values else names[key]: value for key, value in values.items()}


def _upgraded_settings(value: Any) -> Any:
    """Return a nested value with the current names of settings, in overrides and in the keys of search spaces."""
    if isinstance(value, dict):
        return {_upgraded_settings(key): _upgraded_settings(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_upgraded_settings(inner) for inner in value]
    return upgraded_override(value) if isinstance(value, str) else value

"""The configs of a study's runs: what train would compose of their overrides, hundreds of them in seconds."""

import contextlib
import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from particle_grid.cli import config_folder, register_plugins, typed
from particle_grid.experiments.plan import Plan
from particle_grid.learn.trainer import TrainerConfig
from particle_grid.sim.world import World


@functools.cache
def run_config(overrides: tuple[str, ...]) -> Mapping[str, Any]:
    """Return what train would compose of these overrides.

    Hydra takes a tenth of a second for each composition, and the runs of a study choose few different files. So it
    composes each choice of files once, and values are set in copies of that, as Hydra does it. Whatever is more than
    the choice of a file or a value for a key is left to Hydra, and so is saying what is wrong.

    Raises:
        ValueError, or an error of Hydra: for overrides that cannot be composed."""
    config = None
    with contextlib.suppress(OmegaConfBaseException):
        config = _composed_by_parts([_parsed(override) for override in overrides])
    config = composed(overrides) if config is None else config
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


@functools.cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    """Return what Hydra composes of these overrides."""
    register_plugins(overrides)
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", list(overrides))


@functools.cache
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_overrides([override])[0]


def _composed_by_parts(overrides: list[Override]) -> DictConfig | None:
    """Return the chosen files with values set in them; None where an override is neither a choice nor a value."""
    if not all(_is_plain(override) for override in overrides):
        return None
    choices = tuple(str(override.input_line) for override in overrides if _chooses_file(override))
    config = copy.deepcopy(composed(choices))
    for override in overrides:
        if not _chooses_file(override):
            OmegaConf.update(config, override.key_or_group, override.value())
    return config


def _is_plain(override: Override) -> bool:
    """Return whether an override is KEY=VALUE, of a key outside Hydra's own part of the config."""
    special = override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override()
    return not special and override.package is None and override.key_or_group.partition(".")[0] != "hydra"


def _chooses_file(override: Override) -> bool:
    group = override.key_or_group
    return not isinstance(override.value(), dict) and ("/" in group or (config_folder() / group).is_dir())


def check_runs(plan: Plan, out: Path) -> float:
    """Compose the configs of a study: each arm, task and variant, and each set of knobs on one task, so that a wrong
    key is found now. Return the agent-steps of all runs."""
    tuning, tests = plan.tuning_jobs(out), plan.test_jobs(out, dict.fromkeys(plan.arms, 0))
    one = plan.tuning.tasks[:1] + plan.tuning.seeds[:1]
    tried = [job.overrides for (_, _, *which), job in tuning.items() if which == one]
    kinds = {key[:3]: job.overrides for key, job in tests.items() if key[3] == plan.seeds[0]}
    budgets = [budget(run_config(overrides)) for overrides in [*kinds.values(), *tried]]
    steps, first = dict(zip(kinds, budgets, strict=False)), next(iter(plan.variants))
    return sum(steps[first, arm, task] for arm, _, task, _ in tuning) + sum(steps[key[:3]] for key in tests)


def budget(config: Mapping[str, Any]) -> int:
    """Return the agent-steps of a run. Raise ValueError for a config that is invalid."""
    if config.get("evaluations") == 0:
        raise ValueError("evaluations=0 leaves no score for a study to compare: give 1 or more, or leave it out.")
    node = OmegaConf.create({key: config[key] for key in ("world", "trainer")})
    typed(World, node.world)
    return typed(TrainerConfig, node.trainer).total_steps

"""The settings of a study's runs: what train would compose from their overrides, hundreds of them in seconds."""

import contextlib
import copy
import functools
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from particle_grid.experiments.study.plan import Plan
from particle_grid.settings.compose import compose_train, config_folder, register_groups, run_config
from particle_grid.settings.run_config import RunConfig
from particle_grid.support.errors import UserError


@functools.cache
def study_config(overrides: tuple[str, ...]) -> RunConfig:
    """Return the settings that train would compose from these overrides.

    Hydra needs a tenth of a second for each composition, but the runs of a study choose among few groups. So Hydra
    composes each choice of groups once, and values are set in copies of that, as Hydra would set them. Overrides that
    are neither a choice nor a value are left to Hydra, as are error messages.

    Raises:
        UserError, HydraException or OmegaConfBaseException: for overrides that cannot be composed.
    """
    config = None
    with contextlib.suppress(OmegaConfBaseException):
        config = _composed_by_parts([_parsed(override) for override in overrides])
    return run_config(composed(overrides) if config is None else config)


composed = functools.cache(compose_train)


@functools.cache
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_overrides([override])[0]


def _composed_by_parts(overrides: list[Override]) -> DictConfig | None:
    """Return the chosen groups with values set in them, or None if an override is neither a choice nor a value."""
    if not all(_is_plain(override) for override in overrides):
        return None
    choices = tuple(str(override.input_line) for override in overrides if _chooses_group(override))
    config = copy.deepcopy(composed(choices))
    for override in overrides:
        if not _chooses_group(override):
            OmegaConf.update(config, override.key_or_group, override.value())
    return config


def _is_plain(override: Override) -> bool:
    """Return whether an override is KEY=VALUE, for a key outside Hydra's own part of the config."""
    special = override.is_add() or override.is_force_add() or override.is_delete() or override.is_sweep_override()
    return not special and override.package is None and override.key_or_group.partition(".")[0] != "hydra"


def _chooses_group(override: Override) -> bool:
    group = override.key_or_group
    return not isinstance(override.value(), dict) and ("/" in group or group in _groups())


@functools.cache
def _groups() -> frozenset[str]:
    """Return the names of Hydra's groups, those of files and those of classes."""
    register_groups()
    folders = {path.name for path in config_folder().iterdir() if path.is_dir()}
    return frozenset(folders | {name for name, node in ConfigStore.instance().repo.items() if isinstance(node, dict)})


def check_runs(plan: Plan, out: Path) -> int:
    """Compose the settings of a study, so that a wrong key is found before anything runs.

    Each arm is composed for each task and variant, and each set of hyperparameters for one task.

    Returns:
        The agent-steps of all runs together.

    Raises:
        UserError, HydraException or OmegaConfBaseException: for settings that are invalid.
    """
    tuning = plan.tuning_jobs(out)
    tests = plan.test_jobs(out, dict.fromkeys(plan.arms, 0))
    steps = {}
    for key, job in tests.items():
        if key.seed == plan.seeds[0]:
            steps[key.variant, key.arm, key.task] = budget(job.overrides)
    for key, job in tuning.items():
        if (key.task, key.seed) == (plan.tuning.tasks[0], plan.tuning.seeds[0]):
            budget(job.overrides)
    return sum(steps[key.variant, key.arm, key.task] for key in [*tuning, *tests])


def budget(overrides: tuple[str, ...]) -> int:
    """Return the agent-steps of a run.

    Raises:
        UserError: if its settings are invalid.
    """
    config = study_config(overrides)
    if config.evaluations == 0:
        raise UserError("evaluations=0 leaves no score for a study to compare: give 1 or more, or leave it out.")
    return config.trainer.total_steps

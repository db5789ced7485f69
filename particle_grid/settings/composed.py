"""Settings of a run without a command line of their own: composed of overrides, or changed afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from particle_grid.settings.compose import config_folder, register_groups, run_config, typed
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.world import World


def composed(overrides: Sequence[str]) -> RunConfig:
    """Return the settings that `python -m particle_grid.train` has with these overrides.

    Raises:
        UserError, HydraException or OmegaConfBaseException: for overrides that are invalid.
    """
    return run_config(compose_train(overrides))


def compose_train(overrides: Sequence[str]) -> DictConfig:
    """Return what Hydra composes of conf/train.yaml and these overrides, inside a command and outside."""
    register_groups(overrides)
    if GlobalHydra.instance().is_initialized():  # within a command
        return compose("train", list(overrides))
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", list(overrides))


def changed_world(world: World, changes: Mapping[str, Any]) -> World:
    """Return a world with some settings changed.

    Raises:
        UserError: for a value of the wrong type, or out of range.
    """
    return typed(World, OmegaConf.create({"world": asdict(world) | dict(changes)}).world)

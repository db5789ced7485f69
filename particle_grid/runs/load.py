"""What eval, play and rank start from: trained policies, and the task and the world that the command line asks for."""

import glob
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from particle_grid.cli import printable, typed
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.learn.policy import Policy
from particle_grid.runs import pretrained
from particle_grid.runs.build import build_policy, load_run
from particle_grid.sim.world import World

TASK = "group"  # where neither the command line nor a checkpoint says which
PARTS = ("config", "steps", "policy")  # what of a checkpoint is needed to play


def load_asked(config: DictConfig) -> dict[str, Any]:
    """PARTS of what `checkpoint` names, a path or "pretrained", its config `set_up` as asked."""
    if config.checkpoint == "pretrained":
        saved = pretrained.load(config.task.name if config.get("task") else TASK, config.action.name)
    else:
        saved = load_run(config.checkpoint, PARTS)
    set_up(saved["config"], config)
    return saved


def set_up(run: dict[str, Any], config: DictConfig) -> None:
    """Puts into the config of a run the task that is asked for, if one is, and what `world` says that is not null.

    Raises ValueError for a world that cannot be."""
    if config.get("task"):
        run["task"] = OmegaConf.to_container(config.task, resolve=True)
    run["world"] |= {key: value for key, value in config.world.items() if value is not None}
    run["world"] = asdict(typed(World, OmegaConf.create({"world": run["world"]}).world))


def load_policy(saved: dict[str, Any], env: ParticleGrid, device: torch.device) -> Policy:
    """The policy that `load_asked` found, for the environment that its config builds."""
    return build_policy(saved["config"], env, saved["policy"]).to(device)


def is_pattern(path: str) -> bool:
    """Whether a path names files by a pattern; brackets may also be in the name of a file that there is."""
    return glob.has_magic(path) and not Path(path).exists()


def load_all(checkpoints: Any, tasks: Iterable[str]) -> dict[str, dict[str, Any]]:
    """PARTS of several checkpoints, by names for people: that of a run's folder, or of the file itself.

    checkpoints: one or a list of paths, patterns such as outputs/*/checkpoint.pt, or "pretrained": the policies that
    come with the package for these tasks. Raises ValueError for what is no list of them, for a pattern that matches
    nothing, and for what is no checkpoint."""
    several = isinstance(checkpoints, Iterable) and not isinstance(checkpoints, str)
    entries = list(checkpoints) if several else [checkpoints]
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f"checkpoints={checkpoints} cannot be: give a list of paths, of patterns, or pretrained.")
    loaded: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry == "pretrained":
            named = [(task, action) for task in tasks for action in ACTIONS]
            loaded |= {f"pretrained {task} {action}": pretrained.load(task, action) for task, action in named}
            continue
        paths = sorted(glob.glob(entry)) if is_pattern(entry) else [entry]
        if not paths:
            raise ValueError(f"checkpoints={entry} matches no file: give another pattern, or paths.")
        for path in map(Path, paths):
            name = printable(path.parent.name if path.name == "checkpoint.pt" and path.parent.name else path.stem)
            loaded[printable(str(path)) if name in loaded else name] = load_run(path, PARTS)
    return loaded

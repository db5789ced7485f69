"""Load the checkpoints of runs, of any version, and the policies that ship with the package."""

import glob
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from particle_grid.env import ACTIONS
from particle_grid.learn import checkpoint
from particle_grid.runs import schema
from particle_grid.runs.versions import upgraded_checkpoint
from particle_grid.settings.run_config import RunConfig
from particle_grid.support.errors import UserError
from particle_grid.support.text import printable

SHIPPED = Path(__file__).parents[1] / "pretrained"
PRETRAINED = "pretrained"  # names a shipped policy wherever a path of a checkpoint is expected


@dataclass(frozen=True)
class Checkpoint:
    """A trained policy and how it came about.

    weights: the policy's state_dict, float32. steps: agent-steps it was trained for. score: the normalised score of
    sampled actions, of shipped policies only. trainer: what a trainer continues from, empty if only playing is wanted.
    """

    config: RunConfig
    steps: int
    weights: Mapping[str, torch.Tensor]
    score: float | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)


def load_checkpoint(path: str | Path, resume: bool = False) -> Checkpoint:
    """Return the checkpoint of a run.

    Args:
        path: of a file that a training run has saved.
        resume: whether training is to continue from it, for which it must hold more.

    Raises:
        UserError: for a file that is missing, damaged or something else.
    """
    state = upgraded_checkpoint(checkpoint.load(path))
    try:
        schema.check(state, schema.RESUME if resume else schema.PLAY)
    except ValueError as error:
        raise UserError(f"{path} {error}. Use one that train has saved.") from error
    return _checkpoint(state, state if resume else {})


def load_shipped(task: str, action: str) -> Checkpoint:
    """Return the policy that ships with the package for a task and an action form.

    Raises:
        UserError: if there is none.
    """
    path = shipped_path(task, action)
    state = upgraded_checkpoint(checkpoint.load(path))
    schema.check(state, schema.SHIPPED)
    return _checkpoint(state, {})


def _checkpoint(state: Mapping[str, Any], trainer: Mapping[str, Any]) -> Checkpoint:
    weights = {name: x.float() if x.is_floating_point() else x for name, x in state["policy"].items()}
    return Checkpoint(RunConfig.from_dict(state["config"]), state["steps"], weights, state.get("score"), trainer)


def shipped_path(task: str, action: str) -> Path:
    """Return where the shipped policy of a task and an action form is.

    Raises:
        UserError: if there is none.
    """
    path = SHIPPED / f"{task}-{action}.pt"
    if not path.exists():
        known = sorted(file.stem for file in SHIPPED.glob("*.pt"))
        raise UserError(f"No policy for {task} {action} ships with the package. There are: {', '.join(known)}.")
    return path


def ship(path: str | Path, score: float) -> Path:
    """Store the policy of a run in the package: weights in half precision, and nothing that only training needs.

    Returns:
        Where it was stored.

    Raises:
        UserError: for a file that is not a checkpoint of a run.
    """
    saved = load_checkpoint(path)
    target = SHIPPED / f"{saved.config.task}-{saved.config.action}.pt"
    weights = {name: x.half() for name, x in saved.weights.items()}
    state = {"config": saved.config.to_dict(), "steps": saved.steps, "policy": weights, "score": score}
    SHIPPED.mkdir(exist_ok=True)
    checkpoint.save(target, state)
    return target


def load_all(checkpoints: Any, tasks: Iterable[str]) -> dict[str, Checkpoint]:
    """Return several checkpoints by readable names: that of a run's folder, or of the file itself.

    Args:
        checkpoints: one or a list of paths, patterns such as outputs/*/checkpoint.pt, or "pretrained": the policies
            that ship with the package for these tasks.
        tasks: names of tasks.

    Raises:
        UserError: for anything else, and for a pattern that matches nothing.
    """
    several = isinstance(checkpoints, Iterable) and not isinstance(checkpoints, str)
    entries = list(checkpoints) if several else [checkpoints]
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise UserError(f"checkpoints={checkpoints} is invalid: give a list of paths, of patterns, or pretrained.")
    loaded: dict[str, Checkpoint] = {}
    for entry in entries:
        if entry == PRETRAINED:
            named = [(task, action) for task in tasks for action in ACTIONS]
            loaded |= {f"pretrained {task} {action}": load_shipped(task, action) for task, action in named}
            continue
        for path in _matching(entry):
            name = printable(path.parent.name if path.name == "checkpoint.pt" and path.parent.name else path.stem)
            loaded[printable(str(path)) if name in loaded else name] = load_checkpoint(path)
    return loaded


def _matching(entry: str) -> list[Path]:
    """Return the paths that a pattern matches, or the one that it is."""
    paths = sorted(glob.glob(entry)) if is_pattern(entry) else [entry]
    if not paths:
        raise UserError(f"checkpoints={entry} matches no file: give another pattern, or paths.")
    return [Path(path) for path in paths]


def is_pattern(path: str) -> bool:
    """Return whether a path is a pattern of several; brackets may also be in the name of an existing file."""
    return glob.has_magic(path) and not Path(path).exists()

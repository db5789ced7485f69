"""Load the checkpoints of runs, of any version, and the policies that ship with the package."""

import glob
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from particle_grid.env import ACTIONS
from particle_grid.learn import checkpoint
from particle_grid.runs import safetensors, schema
from particle_grid.runs.versions import upgraded_checkpoint
from particle_grid.settings.run_config import RunConfig
from particle_grid.support.errors import UserError, unknown
from particle_grid.support.text import printable

SHIPPED = Path(__file__).parents[1] / "pretrained"
PRETRAINED = "pretrained"  # names a shipped policy wherever a path of a checkpoint is expected
PREFIX = f"{PRETRAINED}/"  # prefix of a full name, such as pretrained/group-discrete


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


def load_trained(name: str | Path) -> Checkpoint:
    """Return a trained policy.

    Args:
        name: the path of a checkpoint, or the full name of a shipped policy, such as pretrained/group-discrete.

    Raises:
        UserError: if there is no such policy.
    """
    if not is_shipped(name):
        return load_checkpoint(name)
    names = shipped_names()
    text = str(name)
    if text not in names:
        raise UserError(unknown(f"policy {text!r}", text, names))
    task, _, action = text.removeprefix(PREFIX).rpartition("-")
    return load_shipped(task, action)


def check_action(name: str, saved: Checkpoint, action: str | None) -> None:
    """Raise UserError if a policy has another action form than the one that is asked for, if one is."""
    own = saved.config.action
    if action not in (None, own):
        raise UserError(f"{name} has {own} actions, not action={action}: leave action out, or choose another policy.")


def is_shipped(name: str | Path) -> bool:
    """Return whether a name has the form of a shipped policy's full name, and is not that of a file."""
    return str(name).startswith(PREFIX) and not Path(name).exists()


def shipped_names() -> list[str]:
    """Return the full names of all policies that ship with the package."""
    return [f"{PREFIX}{stem}" for stem in _shipped_stems()]


def shipped_tasks() -> list[str]:
    """Return the tasks for which a policy ships with the package."""
    return list(dict.fromkeys(stem.rpartition("-")[0] for stem in _shipped_stems()))


def _shipped_stems() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.pt"))


def load_checkpoint(path: str | Path, resume: bool = False) -> Checkpoint:
    """Return the checkpoint of a run.

    Args:
        path: of a file that a training run has saved, or of a .safetensors file that the command export has written.
        resume: whether training is to continue from it, for which it must hold more.

    Raises:
        UserError: for a file that is missing, damaged or something else.
    """
    read = safetensors.read if Path(path).suffix == safetensors.SUFFIX else checkpoint.load
    state = upgraded_checkpoint(read(path))
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
        known = ", ".join(_shipped_stems())
        raise UserError(f"No policy for {task} {action} ships with the package. There are: {known}.")
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
        checkpoints: as for `single_names`.
        tasks: names of tasks, for which "pretrained" stands for the shipped policies.

    Raises:
        UserError: as `single_names`, and if there is no such policy.
    """
    loaded: dict[str, Checkpoint] = {}
    for name in single_names(checkpoints, [f"{PREFIX}{task}-{action}" for task in tasks for action in ACTIONS]):
        label = re.sub("[/-]", " ", name) if is_shipped(name) else label_of(Path(name))
        loaded[printable(name) if label in loaded else label] = load_trained(name)
    return loaded


def single_names(checkpoints: Any, shipped: Iterable[str], key: str = "checkpoints") -> list[str]:
    """Return the names of single policies, for `load_trained`.

    Args:
        checkpoints: one or a list of paths, patterns such as outputs/*/checkpoint.pt, full names of shipped policies,
            or "pretrained".
        shipped: the full names that "pretrained" stands for.
        key: what messages call the setting.

    Raises:
        UserError: for anything else, and for a pattern that matches nothing.
    """
    several = isinstance(checkpoints, Iterable) and not isinstance(checkpoints, str)
    entries = list(checkpoints) if several else [checkpoints]
    if not entries or not all(isinstance(entry, str) and entry for entry in entries):
        raise UserError(f"{key}={checkpoints} is invalid: give a list of paths, of patterns, or pretrained.")
    return [name for entry in entries for name in (shipped if entry == PRETRAINED else _matching(entry, key))]


def label_of(path: Path) -> str:
    """Return a readable name for a checkpoint: that of its run's folder, or of the file itself."""
    return printable(path.parent.name if path.name == "checkpoint.pt" and path.parent.name else path.stem)


def _matching(entry: str, key: str) -> list[str]:
    """Return the paths that a pattern matches, or the one that it is."""
    paths = sorted(glob.glob(entry)) if is_pattern(entry) else [entry]
    if not paths:
        raise UserError(f"{key}={entry} matches no file: give another pattern, or paths.")
    return paths


def is_pattern(path: str) -> bool:
    """Return whether a path is a pattern of several; brackets may also be in the name of an existing file."""
    return glob.has_magic(path) and not Path(path).exists()

"""Trained policies that come with the package, one for each task and action form: weights, config and score."""

from pathlib import Path
from typing import Any

import torch

from particle_grid.learn import checkpoint
from particle_grid.runs.build import load_run

FOLDER = Path(__file__).parents[1] / "pretrained"
PARTS = ("config", "steps", "policy", "score")  # score: normalised, of sampled actions


def path_of(task: str, action: str) -> Path:
    """Where the policy of a task and action form is. Raises ValueError where there is none."""
    path = FOLDER / f"{task}-{action}.pt"
    if not path.exists():
        known = sorted(file.stem for file in FOLDER.glob("*.pt"))
        raise ValueError(f"No policy for {task} {action} comes with the package. There are: {', '.join(known)}.")
    return path


def ship(path: str | Path, score: float) -> Path:
    """Stores the policy of a run's checkpoint in the package, with weights in half precision and nothing that only
    training needs; returns where. Raises ValueError for a file that is no checkpoint of a run."""
    saved = load_run(path, PARTS[:-1])
    target = FOLDER / f"{saved['config']['task']['name']}-{saved['config']['action']['name']}.pt"
    weights = {name: x.half() for name, x in saved["policy"].items()}
    FOLDER.mkdir(exist_ok=True)
    checkpoint.save(target, {"config": saved["config"], "steps": saved["steps"], "policy": weights, "score": score})
    return target


def load(task: str, action: str) -> dict[str, Any]:
    """PARTS, as a dict, with float32 weights. Raises ValueError where there is no such policy."""
    saved = load_run(path_of(task, action), PARTS)
    return saved | {"policy": {name: x.to(torch.float32) for name, x in saved["policy"].items()}}

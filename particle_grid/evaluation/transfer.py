"""What policies are worth on other tasks than their own: a table of checkpoints x tasks."""

from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from particle_grid.cli import register_plugins, unknown
from particle_grid.env import ParticleGrid
from particle_grid.evaluation import results, scores
from particle_grid.evaluation.scores import Baseline
from particle_grid.learn.trainer import choose_device
from particle_grid.runs.build import build_env, policy_player
from particle_grid.runs.load import is_pattern, load_all, load_policy, set_up
from particle_grid.sim import tasks
from particle_grid.support import atomic, records, registry


def several(config: DictConfig) -> bool:
    """Whether eval is asked about several checkpoints or tasks."""
    one = isinstance(config.checkpoint, str) and not is_pattern(config.checkpoint)
    return config.tasks is not None or not one


def transfer(config: DictConfig) -> None:
    """Evaluates each checkpoint on each task in its own form of actions; prints the table of normalised scores, and
    writes it as CSV where asked to."""
    console, device = Console(markup=False), choose_device(config.device)
    if config.get("task") or config.video or config.replay:
        key = next(key for key in ("task", "video", "replay") if config.get(key))
        raise ValueError(f"{key}= is for one checkpoint on one task: leave it out, or name no list of them.")
    if config.table:
        atomic.check_place(Path(config.table))
    loaded = load_all(config.checkpoint, listed(config) or tasks.names())
    names = listed(config) or list(dict.fromkeys(saved["config"]["task"]["name"] for saved in loaded.values()))
    seeds = tuple(range(config.seed, config.seed + config.seeds))
    table = Table("normalised score", *names)
    cells, settings = np.zeros((len(loaded), len(names), len(seeds))), dict[Any, tuple[ParticleGrid, Baseline]]()
    for i, (name, saved) in enumerate(loaded.items()):
        for j, task in enumerate(names):
            setting = task, saved["config"]["action"]["name"], saved["config"]["world"]["vision"]
            if setting not in settings:
                env = environment(*setting, config)
                steps = config.steps or scores.steps_for(env)
                settings[setting] = env, results.baseline_for(env, console, seeds, steps)
            env, baseline = settings[setting]
            policy, steps = load_policy(saved, env, device), config.steps or scores.steps_for(env)
            with console.status(Text(f"Evaluating {name} on {task}")):
                cells[i, j] = baseline.normalise(scores.evaluate(env, policy_player(policy), seeds, steps))
            if not console.is_terminal:
                console.print(f"{name} on {task}: {cells[i, j].mean():.3f}", soft_wrap=True)
        table.add_row(name, *(f"{cell.mean():.2f}" for cell in cells[i]))
    seeded = f"mean of {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    console.print(f"Sampled actions, {seeded}; 0: random actions, 1: the task's script", soft_wrap=True)
    console.print(table)
    if config.table:
        rows = [[list(loaded)[i], names[j], seeds[k], value] for (i, j, k), value in np.ndenumerate(cells)]
        records.write_table(Path(config.table), [["checkpoint", "task", "seed", "normalised_score"], *rows])
        console.print(f"Saved: {config.table}", soft_wrap=True)


def listed(config: DictConfig) -> list[str]:
    """The tasks that are named, an empty list for none. Raises ValueError for one that there is not."""
    if config.tasks == "all":
        return tasks.names()
    names = list(config.tasks or []) if OmegaConf.is_list(config.tasks) or not config.tasks else [config.tasks]
    for name in map(str, names):
        if not registry.is_place(name) and name not in tasks.names():
            raise ValueError(unknown(f"task {name!r}", name, tasks.names()))
    return names


def environment(task: str, action: str, vision: int, config: DictConfig) -> ParticleGrid:
    """A task in the world that it needs, but for what `world` says."""
    register_plugins([f"task={task}"])
    train = compose("train", [f"task={task}", f"action={action}", f"world.vision={vision}"])
    run: dict[str, Any] = OmegaConf.to_container(train, resolve=True)  # type: ignore[assignment]
    set_up(run, config)
    return build_env(run)

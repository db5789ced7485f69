"""A tournament of policies that oppose each other: python -m particle_grid.rank checkpoints=[...] (see --help)."""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress

from particle_grid.cli import check_paths, command, typed, whole
from particle_grid.env import ParticleGrid
from particle_grid.evaluation import ratings, scores
from particle_grid.evaluation.scores import PlayerFactory
from particle_grid.experiments import sweep
from particle_grid.learn.trainer import choose_device
from particle_grid.runs.build import build_env, policy_player
from particle_grid.runs.load import load_all, load_policy
from particle_grid.sim.world import World
from particle_grid.support import atomic, records

COLUMNS = ["first", "second", "first_id", "second_id", "seed", "first_score", "second_score"]


@dataclass(frozen=True)
class Entrant:
    """Who takes part. id: of its weights, so that a match of other weights is not taken for one of these. makers: the
    player it is on either side."""

    name: str
    id: str
    makers: tuple[PlayerFactory, PlayerFactory]


@command("rank")
def main(config: DictConfig) -> None:
    check_paths(config, "out")
    console = Console(markup=False)
    ratings.load_libraries()  # now, not when hours of play are done
    for key, least in (("seeds", 1), ("steps", 1), ("seed", 0)):
        if config[key] is not None or key != "steps":
            whole(key, config[key], least)
    if not isinstance(config.greedy, bool):
        raise ValueError(f"greedy={config.greedy} cannot be: give true or false.")
    run: dict[str, Any] = {"task": OmegaConf.to_container(config.task, resolve=True), "seed": 0}
    run["world"] = typed(World, config.world).__dict__
    loaded = load_all(config.checkpoints, [run["task"]["name"]])
    forms = {saved["config"]["action"]["name"] for saved in loaded.values()}
    # Whole moves are continuous ones too: where both kinds of policy meet, both play in the continuous form.
    form = "continuous" if "continuous" in forms else "discrete"
    env = build_env(run | {"action": {"name": form}})
    if env.task.teams != 2:
        raise ValueError(f"task={env.task_name} has no two teams that could play each other: compare with eval.")
    entrants = [scripted(env), random()]
    entrants += [entrant(name, saved, run, config) for name, saved in loaded.items()]
    steps = config.steps or scores.steps_for(env)
    settings = scores.settings(env) | {"steps": steps, "greedy": config.greedy}
    folder = Path(str(config.out)) if config.out else folder_for(settings)
    folder.mkdir(parents=True, exist_ok=True)
    kinds = getattr(env.task, "kinds", ("first team", "second team"))
    seeds = range(config.seed, config.seed + config.seeds)
    with sweep.held(folder, "plays there: wait for it, or choose another out=FOLDER."):
        keep_settings(folder, settings)
        result = tournament(env, entrants, seeds, steps, folder / "matches.csv", console)
    names, by_side = [one.name for one in entrants], ratings.rate_sides(result)
    ratings.save(folder, names, kinds, result, dict(zip(kinds, by_side, strict=True)))
    size = f"{len(names)} x {len(names)} x {len(seeds)} matches of {steps} steps and {env.num_agents} agents"
    console.print(f"{env.task_name}, {form}: {size}; rating ± deviation of what is believed", soft_wrap=True)
    console.print(ratings.table(names, kinds, by_side))
    console.print(f"Saved: {folder}/ matches.csv, matrix.csv, ratings.csv, ranking.png", soft_wrap=True)


def scripted(env: ParticleGrid) -> Entrant:
    """The script of the task."""
    return Entrant("script", "script", (scores.scripted_player, scores.scripted_player))


def random() -> Entrant:
    """Uniformly random actions."""
    return Entrant("random", "random", (scores.random_player, scores.random_player))


def entrant(name: str, saved: dict[str, Any], run: dict[str, Any], config: DictConfig) -> Entrant:
    """The policy of a checkpoint. Raises ValueError for one that cannot see these worlds."""
    vision = saved["config"]["world"]["vision"]
    if vision != run["world"]["vision"]:
        raise ValueError(
            f"{name} sees {vision} cells in each direction, and here there are {run['world']['vision']}: "
            f"rank policies of one vision, with world.vision={vision}."
        )
    env = build_env(run | {"action": saved["config"]["action"]})
    policy = load_policy(saved, env, choose_device(config.device))
    digest = hashlib.sha256()
    for weights in saved["policy"].values():
        digest.update(weights.numpy().tobytes())
    first, second = (policy_player(policy, config.greedy, side) for side in (0, 1))
    return Entrant(name, digest.hexdigest()[:12], (first, second))


def folder_for(settings: dict[str, Any]) -> Path:
    """Return the folder for matches of these settings: no other settings lead to the same one."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    task = settings["task"].rpartition(":")[2]
    return Path("outputs") / f"rank_{task}_{settings['action']}_{digest}"


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Stores what all matches of a folder share. Raises ValueError where they were of other settings."""
    path, text = folder / "settings.json", json.dumps(settings, indent=1) + "\n"
    if not path.exists():
        atomic.write(path, text.encode())
        return
    there = records.read_json(path, f"Choose another folder with out=, or remove {folder}.")
    if not isinstance(there, dict):
        raise ValueError(f"{path} holds no settings of matches. Choose another folder with out=, or remove {folder}.")
    here = json.loads(text)
    if differ := [key for key in here | there if key not in here or key not in there or here[key] != there[key]]:
        key = differ[0]
        raise ValueError(
            f"out={folder} holds matches with {key}={there.get(key)}, and these have {here.get(key)}: choose another "
            f"folder, or none, since each setting then has its own."
        )


def tournament(
    env: ParticleGrid, entrants: list[Entrant], seeds: range, steps: int, path: Path, console: Console
) -> np.ndarray:
    """The scores of all matches, f64[seeds, firsts, seconds, teams]: those in the file, and the others played now."""
    played, n = (read(path) if path.exists() else {}), len(entrants)
    result = np.zeros((len(seeds), n, n, 2))
    with (
        path.open("a", newline="", encoding="utf-8") as file,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("Playing", total=result[..., 0].size)
        if not file.tell():
            file.write(records.line(COLUMNS))
        for (k, i, j), seed in ((place, seeds[place[0]]) for place in np.ndindex(len(seeds), n, n)):
            first, second = entrants[i], entrants[j]
            key = first.id, second.id, seed
            if key not in played:
                sides = scores.match(env, [first.makers[0], second.makers[1]], seed, steps)
                if not np.isfinite(sides).all():
                    raise ValueError(
                        f"{first.name} against {second.name} has the score {sides}: see to the task's score."
                    )
                file.write(records.line([first.name, second.name, *key, *sides.tolist()]))
                file.flush()
                played[key] = sides
            result[k, i, j] = played[key]
            progress.advance(bar)
            if j == n - 1 and not console.is_terminal:
                console.print(f"seed {seed}: {first.name} has played all ({i + 1} of {n})", soft_wrap=True)
    return result


def read(path: Path) -> dict[tuple[str, str, int], np.ndarray]:
    """Return the matches in a file. A line that was not finished is removed from the file.

    Raises:
        ValueError: for a file that holds anything else."""
    remedy = "Remove this line to have its match played again, or the file to have all of them."
    content = path.read_bytes()
    if (end := content.rfind(b"\n") + 1) < len(content):
        os.truncate(path, end)  # whatever happens now, the lines before stay where they are
    played = {}
    for number, row in records.read_table(path, COLUMNS, remedy) if end else ():
        try:
            seed, sides = int(row["seed"]), np.array([row[key] for key in COLUMNS[-2:]], float)
        except ValueError:
            seed, sides = -1, np.array([math.nan])
        if seed < 0 or not np.isfinite(sides).all():
            raise ValueError(f"{path}, line {number}, is not a match with a seed and two finite scores. {remedy}")
        played[row["first_id"], row["second_id"], seed] = sides
    return played


if __name__ == "__main__":
    main()

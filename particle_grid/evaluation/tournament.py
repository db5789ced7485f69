"""Tournaments of policies that play against each other. Matches are kept in a folder, and none is played twice."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from particle_grid.env import ParticleGrid
from particle_grid.evaluation import match
from particle_grid.evaluation.players import PlayerFactory, policy_player, random_player, scripted_player
from particle_grid.evaluation.request import Request
from particle_grid.runs.build import build_env, trained_policy
from particle_grid.runs.load import Checkpoint
from particle_grid.runs.versions import upgraded_config
from particle_grid.support import atomic, records
from particle_grid.support.errors import UserError
from particle_grid.support.renamed import SETTINGS

COLUMNS = ["first", "second", "first_id", "second_id", "seed", "first_score", "second_score"]
OLD_KEYS = {new.removeprefix("world."): old.removeprefix("world.") for old, new in SETTINGS.items()}
Matches = dict[tuple[str, str, int], np.ndarray]  # first's and second's id, seed -> f64[teams]


@dataclass(frozen=True)
class Entrant:
    """A participant.

    id: of its weights, so that matches of other weights under the same name are not taken for its own. players: its
    player in the first team, and in the second.
    """

    name: str
    id: str
    players: tuple[PlayerFactory, PlayerFactory]


SCRIPT = Entrant("script", "script", (scripted_player, scripted_player))
RANDOM = Entrant("random", "random", (random_player, random_player))


def admitted(policies: Mapping[str, Checkpoint], request: Request, console: Console) -> dict[str, Checkpoint]:
    """Return policies with the task and the world of the tournament. Print which of them were trained on another task.

    Raises:
        UserError: for a policy that sees more or less than others in this world do.
    """
    found = {}
    for name, saved in policies.items():
        config = request.applied_to(saved.config)
        vision = saved.config.world.vision
        if vision != config.world.vision:
            raise UserError(
                f"{name} sees {vision} cells in each direction, but here world.vision={config.world.vision}: rank "
                f"policies of one vision, with world.vision={vision}."
            )
        if saved.config.task != config.task:
            console.print(f"{name} was trained on {saved.config.task}, not on {config.task}.", soft_wrap=True)
        found[name] = replace(saved, config=config)
    return found


def arena(policies: Mapping[str, Checkpoint]) -> ParticleGrid:
    """Return the environment in which policies meet, whose settings they share except for the action form.

    Continuous actions include whole moves, so both kinds of policies play in the continuous form if they meet.

    Raises:
        UserError: for a task without two teams.
    """
    configs = [saved.config for saved in policies.values()]
    env = build_env(next((config for config in configs if config.action == "continuous"), configs[0]))
    if env.task.teams != 2:
        raise UserError(f"task={env.task_name} has only one team: compare policies with eval.")
    return env


def entrant(name: str, saved: Checkpoint, device: torch.device, greedy: bool) -> Entrant:
    """Return the participant that plays a trained policy."""
    policy = trained_policy(saved, device)
    digest = hashlib.sha256()
    for weights in saved.weights.values():
        digest.update(weights.numpy().tobytes())
    players = policy_player(policy, greedy, 0), policy_player(policy, greedy, 1)
    return Entrant(name, digest.hexdigest()[:12], players)


@dataclass(frozen=True)
class MatchFolder:
    """The folder of a tournament's matches, all of which have the same settings."""

    path: Path

    @classmethod
    def default(cls, settings: Mapping[str, Any]) -> "MatchFolder":
        """Return the folder for matches of these settings, which no other settings share.

        Its name is a digest of the settings under their first names, so that a folder of an earlier version is found.
        """
        old = {OLD_KEYS.get(key, key): value for key, value in settings.items()}
        digest = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()[:8]
        task = settings["task"].rpartition(":")[2]
        return cls(Path("outputs") / f"rank_{task}_{settings['action']}_{digest}")

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def settings(self) -> Path:
        return self.path / "settings.json"

    @property
    def matches(self) -> Path:
        return self.path / "matches.csv"

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of a new folder, and compare those of another.

        Raises:
            UserError: if the folder holds matches with other settings, or the file is damaged.
        """
        text = json.dumps(settings, indent=1) + "\n"
        if not self.settings.exists():
            atomic.write(self.settings, text.encode())
            return
        remedy = f"Choose another folder with out=, or remove {self.path}."
        there = records.read_json(self.settings, remedy)
        if not isinstance(there, dict):
            raise UserError(f"{self.settings} does not hold the settings of matches.", remedy)
        there = upgraded_config({"world": there})["world"]  # settings of the world and others share one level
        here = json.loads(text)
        if differ := [key for key in here | there if key not in here or key not in there or here[key] != there[key]]:
            key = differ[0]
            raise UserError(
                f"out={self.path} holds matches with {key}={there.get(key)}, and these have {here.get(key)}: choose "
                f"another folder, or leave out `out=`, since each setting then has its own."
            )

    def read_matches(self) -> Matches:
        """Return the matches played so far. A last line that was not finished is removed from the file.

        Raises:
            UserError: for a file that holds anything else.
        """
        if not self.matches.exists():
            return {}
        remedy = "Remove this line to have its match played again, or the file to have all of them."
        content = self.matches.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            os.truncate(self.matches, end)  # an interruption here leaves the earlier lines intact
        played: Matches = {}
        for number, row in records.read_table(self.matches, COLUMNS, remedy) if end else ():
            seed, scores = _parsed(row)
            if seed < 0 or not np.isfinite(scores).all():
                raise UserError(
                    f"{self.matches}, line {number}, is not a match with a seed and two finite scores.", remedy
                )
            played[row["first_id"], row["second_id"], seed] = scores
        return played


def _parsed(row: Mapping[str, str]) -> tuple[int, np.ndarray]:
    """Return the seed and the scores of a line, -1 and NaN if they are not numbers."""
    try:
        return int(row["seed"]), np.array([row[key] for key in COLUMNS[-2:]], float)
    except ValueError:
        return -1, np.array([math.nan])


def play_all(
    env: ParticleGrid,
    entrants: Sequence[Entrant],
    seeds: Sequence[int],
    steps: int,
    folder: MatchFolder,
    console: Console,
) -> np.ndarray:
    """Play every first team against every second team with each seed, except for matches that were played before.

    Returns:
        f64[seeds, firsts, seconds, teams], the scores of all matches.

    Raises:
        UserError: for a damaged file of matches, or a score that is not finite.
    """
    played = folder.read_matches()
    pairs = [(seed, first, second) for seed in seeds for first in entrants for second in entrants]
    missing = {_key(*pair): pair for pair in pairs if _key(*pair) not in played}
    with (
        folder.matches.open("a", newline="", encoding="utf-8") as file,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        bar = progress.add_task("Playing", total=len(missing))
        if not file.tell():
            file.write(records.line(COLUMNS))
        begin = perf_counter()
        for number, (key, (seed, first, second)) in enumerate(missing.items(), 1):
            scores = _play(env, first, second, seed, steps)
            file.write(records.line([first.name, second.name, *key, *scores.tolist()]))
            file.flush()
            played[key] = scores
            progress.advance(bar)
            if number == len(entrants):  # of which most are policies
                minutes = len(missing) * (perf_counter() - begin) / number / 60
                console.print(f"{len(missing)} matches, about {max(1, round(minutes))} min", soft_wrap=True)
            elif number % len(entrants) == 0 and not console.is_terminal:
                console.print(f"{number} of {len(missing)} matches", soft_wrap=True)
    n = len(entrants)
    return np.array([played[_key(*pair)] for pair in pairs]).reshape(len(seeds), n, n, 2)


def _key(seed: int, first: Entrant, second: Entrant) -> tuple[str, str, int]:
    """Return what a match is found by."""
    return first.id, second.id, seed


def _play(env: ParticleGrid, first: Entrant, second: Entrant, seed: int, steps: int) -> np.ndarray:
    scores = match.match(env, [first.players[0], second.players[1]], seed, steps)
    if not np.isfinite(scores).all():
        raise UserError(f"{first.name} against {second.name} has the score {scores}: correct the task's score.")
    return scores

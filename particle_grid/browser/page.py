"""The page on which anyone plays the simulator in a browser: one file, without a network or a server.

It holds the module, `engine.js`, descriptions of worlds in several sizes, and policies. `view/page.py` joins the page
itself.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from particle_grid.browser.build import MODULE
from particle_grid.browser.contents import Contents, Player
from particle_grid.browser.entries import shipped_tasks
from particle_grid.env import ACTIONS
from particle_grid.runs.build import trained_policy
from particle_grid.runs.load import Checkpoint, is_shipped, label_of, load_shipped, load_trained
from particle_grid.settings.errors import unknown
from particle_grid.settings.run_config import RunConfig
from particle_grid.support import atomic
from particle_grid.support.errors import UserError
from particle_grid.view import page

WORKER = ("engine.js", "worker.js")  # sources of what simulates a world
SHIPPED = "policy"  # the name of the policy that ships, in links
RULES = "Steer the agent in the white square for 100 steps. Others then play the same moment, to compare."
LARGEST_SEED = (1 << 53) - 1  # numbers in a browser are exact up to here


def chosen_tasks(value: Any) -> list[str]:
    """Return the tasks of a command line: null for all, a name, or a list.

    Raises:
        UserError: for a task that the module does not have.
    """
    known = shipped_tasks()
    if value is None:
        return known
    names = [value] if isinstance(value, str) else list(value)
    for name in names:
        if name not in known:
            raise UserError(
                unknown(f"task={name} in the module", str(name), known),
                "A task of your own is added with checkpoint=PATH, a policy that was trained on it.",
            )
    return list(dict.fromkeys(names))


def own_players(names: Sequence[str]) -> list[Player]:
    """Return the policies of checkpoints.

    Raises:
        UserError: if there is no such checkpoint, or two have one name.
    """
    players: list[Player] = []
    for path in (name for name in names if not is_shipped(name)):
        name = label_of(Path(path))
        if name in (SHIPPED, "script", "random", *(other.name for other in players)):
            raise UserError(f"{path} has the name {name} of another player: rename its folder or file.")
        players.append(_player(name, path, load_trained(path)))
    return players


def _player(name: str, label: str, saved: Checkpoint) -> Player:
    return Player(name, label, saved.config, trained_policy(saved, torch.device("cpu")), saved.score)


def write(path: Path, tasks: Sequence[str], players: Sequence[Player]) -> None:
    """Write the page.

    Args:
        path: of the page.
        tasks: on the page; those of the players come first, and are added.
        players: besides the policies that ship.

    Raises:
        UserError: for a policy that the module cannot compute, or that cannot play in its task's world.
        OSError: if the file cannot be written. An older file is kept then.
    """
    contents = Contents()
    for name in dict.fromkeys([*(player.config.task for player in players), *tasks]):
        own = [player for player in players if player.config.task == name]
        shipped = [_player(SHIPPED, "trained policy", load_shipped(name, action)) for action in _shipped_forms(name)]
        every = [*shipped, *own]
        contents.add(_configs(every), every)
    atomic.write(path, joined(contents).encode())


def game(run: RunConfig, saved: Checkpoint | None, agent: int, seed: int) -> str:
    """Return a page on which one agent is selected, to be steered.

    Args:
        run: the task, the action form and the world.
        saved: the policy of the other agents; None for the script.
        agent: its number.
        seed: of the world.

    Raises:
        UserError: for an agent that does not exist, and for a policy that the module cannot compute.
    """
    count = run.world.worlds * run.world.agents
    if agent >= count:
        raise UserError(f"agent={agent} is out of range: agents are numbered 0 to {count - 1}.")
    contents = Contents()
    configs = {action: replace(run, action=action) for action in ACTIONS}
    contents.add(configs, [_player(SHIPPED, "the policy", saved)] if saved else [], sizes=())
    sides = {"left": f"{run.action}:{SHIPPED if saved else 'script'}", "right": f"{run.action}:script"}
    words = {"title": f"Play {run.task.replace('_', ' ')}", "about": RULES}
    return joined(contents, extra={"usual": {**words, **sides, "agent": agent, "seed": seed, "speed": 0, "size": 0}})


def _shipped_forms(task: str) -> Sequence[str]:
    """Return the action forms for which a policy of a task ships."""
    return ACTIONS if task in shipped_tasks() else ()


def _configs(players: Sequence[Player]) -> dict[str, RunConfig]:
    """Return a run for each action form: that of the first player which has it, or else that of the first of all."""
    own = {player.config.action: player.config for player in reversed(players)}
    return {action: own.get(action, replace(players[0].config, action=action)) for action in ACTIONS}


def joined(contents: Contents, more: Sequence[str] = (), extra: Mapping[str, Any] | None = None) -> str:
    """Return a page.

    Args:
        contents: its tasks and policies.
        more: names of further scripts, which run at the end.
        extra: what these scripts read, besides the contents.
    """
    folder = Path(__file__).parent
    worker = "\n".join((folder / name).read_text("utf-8") for name in WORKER).replace("export class", "class")
    known = {
        "tasks": _deflated(json.dumps(contents.tasks).encode()),
        "module": _deflated(MODULE.read_bytes()),
        "policies": contents.policies,
        "worker": _deflated(worker.encode()),
        **(extra or {}),
    }
    return page.joined(known, more)


def _deflated(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()

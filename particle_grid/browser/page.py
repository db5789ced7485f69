"""The page on which anyone plays the simulator in a browser: one file, without a network or a server.

It holds the module, `engine.js`, descriptions of worlds in several sizes, and policies. The sources of the page itself
are in `page/`, and are joined as they are.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from particle_grid.browser.build import MODULE
from particle_grid.browser.describe import world
from particle_grid.browser.entries import shipped_tasks
from particle_grid.browser.networks import policy_description
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.evaluation.match import steps_for
from particle_grid.runs.build import build_env, trained_policy
from particle_grid.runs.load import Checkpoint, is_shipped, label_of, load_shipped, load_trained
from particle_grid.settings.errors import unknown
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.task import legend_words, purpose, team_names
from particle_grid.sim.world import AGENT_1, World
from particle_grid.support import atomic
from particle_grid.support.errors import UserError
from particle_grid.view.frame import CELL_COLOURS

SOURCES = Path(__file__).with_name("page")
ENGINE = Path(__file__).with_name("engine.js")
SCRIPTS = (
    *("data.js", "link.js", "draw.js", "chart.js", "panel.js", "side.js", "round.js"),
    *("main.js", "controls.js", "start.js"),
)
HUES = {AGENT_1: "blue", AGENT_1 + 1: "orange", AGENT_1 + 2: "yellow", AGENT_1 + 3: "purple"}  # of CELL_COLOURS
SIZES = (256, 512, 1024, 2048, 4096)  # agents that one can choose
SHIPPED = "policy"  # the name of the policy that ships, in links
LEVELS = 11  # weights are multiples of their median size over this, and take about six bits each
# What one sees.
LOOKS = {
    "scatter": "Agents start packed in a blob, spread until nobody is in sight, and respawn in the blob.",
    "forage": "Green dots are food. An agent that walks onto one eats it, and another grows elsewhere.",
    "predator_prey": "Predators start on the left and prey on the right. The hunt begins when they meet.",
    "group": "Four colours start mixed. They form groups of one colour, which grow and keep apart.",
    "puffer": "Agents start at the top and fill the free cells of the word in their own colour.",
    "center": "Agents start anywhere and crowd around the middle until it is full.",
    "optimize": "Every field has hidden hills. Agents feel only the height under them, and gather on the peaks.",
    "herd": "Every field is a flock of its own. Dogs drive the sheep onto the green floor of the pen.",
}


@dataclass(frozen=True)
class Player:
    """A policy that can be chosen on the page.

    name: in links. label: for people.
    """

    name: str
    label: str
    saved: Checkpoint


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
            raise UserError(unknown(f"task={name} in the module", str(name), known))
    return list(dict.fromkeys(names))


def own_players(names: Sequence[str]) -> list[Player]:
    """Return the policies of checkpoints.

    Raises:
        UserError: if there is no such checkpoint, two have one name, or the module does not have its task.
    """
    players = [Player(label_of(Path(name)), name, load_trained(name)) for name in names if not is_shipped(name)]
    for k, player in enumerate(players):
        if player.saved.config.task not in shipped_tasks():
            raise UserError(
                f"{player.label} was trained on {player.saved.config.task}, whose reward is not in the module: "
                f"choose checkpoints of {', '.join(shipped_tasks())}."
            )
        if player.name in (SHIPPED, "script", "random", *(other.name for other in players[:k])):
            raise UserError(f"{player.label} has the name {player.name} of another player: rename its folder or file.")
    return players


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
    names = list(dict.fromkeys([*(player.saved.config.task for player in players), *tasks]))
    policies: list[dict[str, Any]] = []
    described = [_task(name, players, policies) for name in names]
    atomic.write(path, _joined(described, policies).encode())


def _task(name: str, players: Sequence[Player], policies: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the page knows of a task, and append its policies."""
    shipped = {action: load_shipped(name, action) for action in ACTIONS}
    forms: dict[str, Any] = {}
    for action, saved in shipped.items():
        own = [each for each in players if (each.saved.config.task, each.saved.config.action) == (name, action)]
        forms[action] = []
        for player in [Player(SHIPPED, "trained policy", saved), *own]:
            _check_vision(player, saved.config)
            forms[action].append({"name": player.name, "label": player.label, "policy": len(policies)})
            policies.append(_compact(policy_description(trained_policy(player.saved, torch.device("cpu")))))
    env = _env(shipped["discrete"].config, SIZES[0])
    return {
        "name": name,
        "purpose": f"{purpose(type(env.task))}.",
        "look": LOOKS[name],
        "unit": env.unit,
        "teams": team_names(env.task) if env.task.teams > 1 else ["all agents"],
        "legend": _legend(env),
        "steps": steps_for(env),
        "players": forms,
        "sizes": [{action: world(_env(saved.config, n)) for action, saved in shipped.items()} for n in SIZES],
    }


def _legend(env: ParticleGrid) -> dict[int, str]:
    """Return labels of cell codes, with hues for the colours of a task that does not name them."""
    labels = env.legend()
    kinds, _ = legend_words(env.task)
    colours = [code for code in labels if code >= AGENT_1]
    return labels | ({code: HUES[code] for code in colours} if len(colours) > 1 and not kinds else {})


def _check_vision(player: Player, config: RunConfig) -> None:
    vision = player.saved.config.world.vision
    if vision != config.world.vision:
        raise UserError(
            f"{player.label} sees {vision} cells in each direction, and the page's worlds have "
            f"vision={config.world.vision}: choose another checkpoint."
        )


def _env(config: RunConfig, agents: int) -> ParticleGrid:
    """Return the environment of a run with about this many agents."""
    return build_env(replace(config, world=resized(config.world, agents)))


def resized(world: World, agents: int) -> World:
    """Return settings for about this many agents: several such worlds, or a smaller one that is equally dense."""
    if agents >= world.agents:
        return replace(world, worlds=agents // world.agents)
    share = math.sqrt(agents / world.agents)
    least = 2 * world.vision + 1
    height, width = (max(round(side * share), least) for side in (world.height, world.width))
    return replace(world, worlds=1, agents=agents, height=height, width=width)


def _compact(description: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a policy whose weights take less space."""
    weights = [_rounded(field) if field.get("half") else field for field in description["records"]["weights"]]
    return {**description, "records": {**description["records"], "weights": weights}}


def _rounded(field: dict[str, Any]) -> dict[str, Any]:
    """Return an array of 16 bits as whole multiples of a step.

    Multiples of alternating sign are numbered 0, -1, 1, -2, ..., so that the high bytes, which come last, are nearly
    all zero.
    """
    if "data" not in field:
        return field
    values = np.frombuffer(zlib.decompress(base64.b64decode(field["data"])), np.float16).astype(np.float32)
    step = float(np.float32(max(np.median(np.abs(values[values != 0])), np.abs(values).max() / 2**14) / LEVELS))
    counts = np.rint(values / step).astype(np.int32)
    numbers = ((counts << 1) ^ (counts >> 31)).astype(np.uint16)
    planes = numbers.view(np.uint8).reshape(-1, 2).T
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(planes).tobytes(), 9)).decode()
    return {"name": field["name"], "dtype": field["dtype"], "shape": field["shape"], "step": step, "data": data}


def _joined(tasks: Sequence[Mapping[str, Any]], policies: Sequence[Mapping[str, Any]]) -> str:
    """Return the page."""
    engine = ENGINE.read_text("utf-8").replace("export class", "class")
    scripts = "\n".join(_source(name) for name in SCRIPTS)
    known = {
        "tasks": base64.b64encode(zlib.compress(json.dumps(tasks).encode(), 9)).decode(),
        "module": base64.b64encode(zlib.compress(MODULE.read_bytes(), 9)).decode(),
        "policies": policies,
        "palette": CELL_COLOURS.tolist(),
        "sizes": SIZES,
        "worker": f"{engine}\n{_source('worker.js')}",
    }
    # Escaped, so that no text can end the script that contains it.
    data = json.dumps(known, separators=(",", ":")).replace("<", "\\u003c")
    page = _source("page.html")
    for mark, part in (("/*STYLE*/", _source("page.css")), ("/*SCRIPT*/", scripts), ("/*DATA*/null", data)):
        page = page.replace(mark, part, 1)
    return page


def _source(name: str) -> str:
    return (SOURCES / name).read_text("utf-8")

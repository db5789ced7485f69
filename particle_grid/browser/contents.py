"""What the page knows of a task: words, worlds of several sizes in both action forms, and policies."""

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from particle_grid.browser.describe import is_scored, world
from particle_grid.browser.networks import policy_description
from particle_grid.env import ACTIONS, ParticleGrid
from particle_grid.evaluation.match import steps_for
from particle_grid.learn.policy import Policy
from particle_grid.runs.build import build_env
from particle_grid.settings.run_config import RunConfig
from particle_grid.sim.task import purpose, team_names
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError

SIZES = (256, 512, 1024, 2048, 4096)  # agents that one can choose
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
UNSCORED = (
    "This task has no rewards and no scores on this page, which can compute those of the tasks of particle_grid only. "
    "Policies always see a reward of 0."
)


@dataclass(frozen=True)
class Player:
    """A policy that can be chosen on the page.

    name: in links. label: for people. config: of the run that trained it. score: normalised, None if it is not known.
    """

    name: str
    label: str
    config: RunConfig
    policy: Policy
    score: float | None = None


@dataclass
class Contents:
    """What a page holds: tasks, and the policies that they refer to by number."""

    tasks: list[dict[str, Any]] = field(default_factory=list)
    policies: list[dict[str, Any]] = field(default_factory=list)

    def add(self, configs: Mapping[str, RunConfig], players: Sequence[Player], sizes: Sequence[int] = SIZES) -> None:
        """Add a task.

        Args:
            configs: a run of the task for each action form, which has the worlds and parameters to play with.
            players: policies of the task.
            sizes: numbers of agents that one can choose; none for the worlds as they are.

        Raises:
            UserError: for a policy that the module cannot compute, or that cannot play in these worlds.
        """
        forms: dict[str, Any] = {action: [] for action in ACTIONS}
        for player in players:
            _check_vision(player, configs[player.config.action])
            number = len(self.policies)
            known = {"name": player.name, "label": player.label, "policy": number, "score": player.score}
            forms[player.config.action].append(known)
            self.policies.append(_compact(_described(player)))
        self.tasks.append(_words(build_env(configs["discrete"])) | {"players": forms, "sizes": _sizes(configs, sizes)})


def _words(env: ParticleGrid) -> dict[str, Any]:
    """Return what the page says of a task, and how it measures it."""
    return {
        "name": env.task_name,
        "purpose": f"{purpose(type(env.task)).removesuffix('.')}.",
        "look": LOOKS.get(env.task_name, ""),
        "unit": env.unit,
        "teams": team_names(env.task) if env.task.teams > 1 else ["all agents"],
        "legend": env.legend(),
        "steps": steps_for(env),
        "unscored": "" if is_scored(env) else UNSCORED,
    }


def _described(player: Player) -> dict[str, Any]:
    try:
        return policy_description(player.policy)
    except UserError as error:
        raise UserError(
            f"The page cannot play {player.label}. {error}", "To watch it as it is, record it: replay=PATH of eval."
        ) from error


def _check_vision(player: Player, config: RunConfig) -> None:
    vision = player.config.world.vision
    if vision != config.world.vision:
        raise UserError(
            f"{player.label} sees {vision} cells in each direction, and the page's worlds have "
            f"vision={config.world.vision}: choose another checkpoint."
        )


def _sizes(configs: Mapping[str, RunConfig], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return worlds with several numbers of agents, or as they are if the task cannot be laid out in others."""
    found = []
    for agents in sizes:
        try:
            found.append(_size({action: _resized(config, agents) for action, config in configs.items()}))
        except UserError:  # a task may need the size of its world
            continue
    return found or [_size(configs)]


def _size(configs: Mapping[str, RunConfig]) -> dict[str, Any]:
    worlds = {action: world(build_env(config)) for action, config in configs.items()}
    discrete = configs["discrete"].world
    return {"agents": discrete.worlds * discrete.agents, **worlds}


def _resized(config: RunConfig, agents: int) -> RunConfig:
    return replace(config, world=resized(config.world, agents))


def resized(world: World, agents: int) -> World:
    """Return settings for about this many agents: several such worlds, or a smaller one that is equally dense."""
    if agents >= world.agents:
        return replace(world, worlds=agents // world.agents)
    share = math.sqrt(agents / world.agents)
    least = 2 * world.vision + 1
    height, width = (max(round(side * share), least) for side in (world.height, world.width))
    return replace(world.within(height, width), agents=agents)


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

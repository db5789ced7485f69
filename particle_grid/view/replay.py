"""A recorded run as one self-contained web page: no network, no server, any recent browser.

The page stores the first frame, then per agent and step one byte for its move and one for its reward, and the changes
of cells without agents. Everything is deflated: a step of an agent takes half a byte to one and a half. The script
`page/recording.js` reads it.
"""

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.sim.observation import SIGNED_UNIT, SIGNED_ZERO, encode_signed
from particle_grid.sim.state import State
from particle_grid.sim.world import World
from particle_grid.support import atomic
from particle_grid.support.errors import UserError
from particle_grid.view.frame import check_world
from particle_grid.view.page import joined

LONGEST = 1 << 16  # cells along a side: positions have 16 bits, and browsers draw no larger pictures either
JUMP = 255  # byte of an agent that moved farther than FARTHEST cells; its new cell is stored separately
FARTHEST = 7


def check_page(path: str | Path) -> Path:
    """Return the path of a page, or raise UserError if it is already certain that it cannot be written."""
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise UserError(f"{path} does not name a page: use a name that ends in .html.")
    atomic.check_place(path)
    return path


@dataclass(frozen=True)
class About:
    """What a page says about the task that it shows.

    purpose: a sentence. unit: what the score counts. teams: names of the teams; nothing for a single one. references:
    scores of each team in the unit, by whose they are, which the chart of scores shows as lines.
    """

    purpose: str = ""
    unit: str = ""
    teams: Sequence[str] = ()
    references: Mapping[str, Sequence[float]] = field(default_factory=dict)


class Replay:
    """A recording of one world: `add` each step, then `write` the page.

    Args:
        settings: the world's settings.
        title: shown on the page.
        legend: labels of cell codes.
        fps: frames per second at normal speed.
        world: number of the world.
        about: what the page says about the task.

    Raises:
        UserError: if there is no such world, if it is too large for a page, if fps is not positive, or if a score among
            the references is not finite.
    """

    def __init__(
        self,
        settings: World,
        title: str,
        legend: Mapping[int, str],
        fps: float = 20,
        world: int = 0,
        about: About = About(),
    ) -> None:
        check_world(world, settings.worlds)
        if not (isinstance(fps, int | float) and 0 < fps < math.inf):
            raise UserError(f"fps={fps} is out of range: give a number above 0.")
        if max(settings.height, settings.width) > LONGEST:
            raise UserError(
                f"A field of {settings.height} x {settings.width} cells is too large for a replay, which has "
                f"{LONGEST} along a side at most: make a video of a region of it."
            )
        for whose, scores in about.references.items():
            _check_finite(f"references[{whose!r}]", scores)
        self.settings, self.world = settings, world
        self.title, self.legend = title, dict(legend)
        self.fps = fps
        self.about = about
        self._agents = slice(world * settings.agents, (world + 1) * settings.agents)
        self._cells: list[np.ndarray] = []  # u16[2, agents] each
        self._rewards: list[np.ndarray] = []  # u8[agents] each
        self._scores: list[list[float]] = []
        # The current cells as they would be without agents.
        self._ground = np.zeros((settings.height, settings.width), np.uint8)
        self._first = self._ground
        self._changes: list[tuple[np.ndarray, np.ndarray]] = []  # which cells (i64, in order) change to which code (u8)
        self._eats = True  # so far no agent stood on food, so food disappears when an agent enters its cell

    @property
    def agents(self) -> np.ndarray:
        """Return which agents live in the world that is recorded, bool[N]."""
        numbers = np.arange(self.settings.worlds * self.settings.agents)
        return numbers // self.settings.agents == self.world

    def add(self, state: State, rewards: np.ndarray, score: np.ndarray) -> None:
        """Add the step that was just made.

        Args:
            state: after the step.
            rewards: f32[N], of all agents in all worlds.
            score: f64[teams], of the `agents` in the world that is recorded.

        Raises:
            UserError: for rewards or scores that are not finite.
        """
        if rewards.shape != state.colour.shape or not np.isfinite(rewards).all():
            raise UserError(f"rewards {list(rewards.shape)} are invalid: give a finite number for each agent.")
        _check_finite("score", score)
        s, agents = self.settings, self._agents
        cells = (state.position[:, agents].astype(np.int64) - s.vision).astype(np.uint16)
        part = slice(s.vision, s.vision + s.height), slice(s.vision, s.vision + s.width)
        ground = state.grid[self.world][part].copy()
        ground[cells[0], cells[1]] = state.under[agents]
        self._eats &= not state.under[agents].any()
        if self._cells:
            where = np.flatnonzero(ground != self._ground)
            self._changes.append((where, ground.flat[where]))
        else:
            self._first, self._colours = ground, state.colour[agents].copy()
        self._ground = ground
        self._cells.append(cells)
        self._rewards.append(encode_signed(rewards[agents]))
        self._scores.append([round(float(x), 5) for x in score])

    def data(self) -> dict[str, Any]:
        """Return what the page is made from, as JSON; `_arrays` has the shapes of the packed arrays."""
        if not self._cells:
            raise UserError("A replay has 0 steps: add at least one.")
        return {
            "title": self.title,
            "height": self.settings.height,
            "width": self.settings.width,
            "vision": self.settings.vision,
            "agents": self.settings.agents,
            "frames": len(self._cells),
            "reach": self._reach,
            "eats": self._eats,
            "fps": self.fps,
            "legend": {str(code): label for code, label in self.legend.items()},
            "reward_zero": SIGNED_ZERO,  # the byte of the reward 0
            "reward_unit": SIGNED_UNIT,  # what a reward of 1 adds to it
            "scores": self._scores,
            "purpose": self.about.purpose,
            "unit": self.about.unit,
            "teams": list(self.about.teams),
            "references": {whose: [float(x) for x in scores] for whose, scores in self.about.references.items()},
            "arrays": {name: pack(array) for name, array in self._arrays().items()},
        }

    @property
    def _reach(self) -> int:
        """Return the largest move along an axis that fits into the byte of a step."""
        return min(math.ceil(self.settings.speed), FARTHEST)

    def _arrays(self) -> dict[str, np.ndarray]:
        reach = self._reach
        places = np.stack(self._cells).astype(np.int64)  # [frames, 2, agents]
        step = np.diff(places, axis=0)
        near = (np.abs(step) <= reach).all(1)  # [frames - 1, agents]
        moves = np.where(near, (step[:, 0] + reach) * (2 * reach + 1) + step[:, 1] + reach, JUMP)
        jumps = places[1:].transpose(0, 2, 1)[~near]  # [jumps, 2]
        changes = self._visible_changes(places[1:])
        gaps = [np.diff(where, prepend=0) for where, _ in changes]
        return {
            "ground": self._first,
            "colours": self._colours,
            "start": self._cells[0],
            "moves": moves.astype(np.uint8),
            "jumps": jumps.astype(np.uint16),
            "rewards": np.stack(self._rewards),
            "changes": np.array([len(gap) for gap in gaps], np.uint32),
            "gaps": np.concatenate([np.zeros(0, np.int64), *gaps]).astype(np.uint32),
            "codes": np.concatenate([np.zeros(0, np.uint8), *(to for _, to in changes)]),
        }

    def _visible_changes(self, places: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the changes that do not follow from the agents' places i64[frames - 1, 2, agents]."""
        if not self._eats:
            return self._changes
        entered = places[:, 0] * self.settings.width + places[:, 1]  # [frames - 1, agents]
        kept = [~np.isin(where, cells) for (where, _), cells in zip(self._changes, entered, strict=True)]
        return [(where[keep], to[keep]) for (where, to), keep in zip(self._changes, kept, strict=True)]

    def write(self, path: str | Path) -> None:
        """Write a page with this run alone, see `write_page`."""
        write_page(path, [self])


def write_page(path: str | Path, replays: Sequence[Replay]) -> None:
    """Write a page with some runs, of which it shows one at a time.

    Raises:
        UserError: if the path does not name a page, or if there are no runs.
        OSError: if the page cannot be written. An older file is kept then.
    """
    path = check_page(path)
    if not replays:
        raise UserError("A page needs at least one replay, but there are 0.")
    atomic.write(path, joined({"recordings": [replay.data() for replay in replays]}).encode())


def _check_finite(name: str, scores: Sequence[float] | np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise UserError(f"{name}={np.asarray(scores).tolist()} is invalid: give a finite number for each team.")


def pack(array: np.ndarray) -> str:
    """Return an array as text: the lowest bytes of all numbers, then the next ones and so on, deflated, in base64.

    High bytes are mostly equal, so next to each other they take hardly any space.
    """
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    planes = little.reshape(-1, 1).view(np.uint8).T  # [bytes of a number, numbers]
    return base64.b64encode(zlib.compress(planes.tobytes())).decode("ascii")

"""A run as one self-contained web page: no network, no server, any browser of the last years.

What is stored is deflated: the first frame, then for each agent and step one byte for how its cell changed and one for
its reward, and what changed in the cells without agents. A step of an agent takes half a byte to a byte and a half.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from particle_grid.sim.state import State
from particle_grid.sim.world import World
from particle_grid.support import atomic
from particle_grid.view.frame import PALETTE, check_world

PAGE = Path(__file__).parent / "replay.html"
LONGEST = 1 << 16  # cells along a side, of which a page has 16 bits; browsers draw no larger pictures either
JUMP, FARTHEST = 255, 7  # the byte of an agent that went farther than so many cells: where to stands elsewhere


def check_page(path: str | Path) -> Path:
    """The path of a page that can be written, as far as can be told beforehand; raises ValueError for any other."""
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"{path} is no name for a page: let it end in .html.")
    atomic.check_place(path)
    return path


class Replay:
    """One world of a run in the making: `add` each step, then `write` the page.

    title: a line for people. legend: labels of cell codes. fps: frames a second at normal speed. Raises ValueError for
    a world that there is not, or that is too large, and for fps that are none."""

    def __init__(self, settings: World, title: str, legend: Mapping[int, str], fps: float = 20, world: int = 0) -> None:
        check_world(world, settings.worlds)
        if not (isinstance(fps, int | float) and 0 < fps < math.inf):
            raise ValueError(f"fps={fps} cannot be: give a number above 0.")
        if max(settings.height, settings.width) > LONGEST:
            raise ValueError(
                f"A field of {settings.height} x {settings.width} cells is too large for a replay, which has "
                f"{LONGEST} along a side at most: make a video of a region of it."
            )
        self.settings, self.title, self.legend, self.fps, self.world = settings, title, dict(legend), fps, world
        self._agents = slice(world * settings.agents, (world + 1) * settings.agents)
        self._cells: list[np.ndarray] = []  # u16[2, agents] each
        self._rewards: list[np.ndarray] = []  # u8[agents] each
        self._scores: list[list[float]] = []
        self._ground = np.zeros((settings.height, settings.width), np.uint8)  # cells without agents, now
        self._first = self._ground
        self._changes: list[tuple[np.ndarray, np.ndarray]] = []  # where i64, in order, and to what u8
        self._eats = True  # nobody has been seen to stand on food: it is gone when an agent comes

    def add(self, state: State, rewards: np.ndarray, score: np.ndarray) -> None:
        """The step just made: rewards f32[N], score f64[teams]. Raises ValueError for rewards that are none."""
        if rewards.shape != state.colour.shape or not np.isfinite(rewards).all():
            raise ValueError(f"rewards {list(rewards.shape)} are none: give a number for each agent.")
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
        self._rewards.append(np.clip(np.rint(128 + 127 * rewards[agents]), 0, 255).astype(np.uint8))
        self._scores.append([round(float(x), 5) for x in score])

    def data(self) -> dict[str, Any]:
        """What the page is given, as JSON has it. Arrays are deflated, in base64; their shapes stand in replay.html."""
        if not self._cells:
            raise ValueError("A replay cannot be made of 0 steps: add one at least.")
        reach = min(math.ceil(self.settings.speed), FARTHEST)
        places = np.stack(self._cells).astype(np.int64)  # [frames, 2, agents]
        step = np.diff(places, axis=0)
        near = (np.abs(step) <= reach).all(1)  # [frames - 1, agents]
        moves = np.where(near, (step[:, 0] + reach) * (2 * reach + 1) + step[:, 1] + reach, JUMP)
        jumps = places[1:].transpose(0, 2, 1)[~near]  # [jumps, 2]
        changes = self._changes
        if self._eats:  # what agents ate need not be told
            entered = places[1:, 0] * self.settings.width + places[1:, 1]  # [frames - 1, agents]
            told = [~np.isin(where, cells) for (where, _), cells in zip(changes, entered, strict=True)]
            changes = [(where[keep], to[keep]) for (where, to), keep in zip(changes, told, strict=True)]
        gaps = [np.diff(where, prepend=0) for where, _ in changes]
        arrays = {
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
        return {
            "title": self.title,
            "height": self.settings.height,
            "width": self.settings.width,
            "vision": self.settings.vision,
            "agents": self.settings.agents,
            "frames": len(self._cells),
            "reach": reach,
            "eats": self._eats,
            "fps": self.fps,
            "palette": PALETTE.tolist(),
            "legend": {str(code): label for code, label in self.legend.items()},
            "scores": self._scores,
            "arrays": {name: pack(array) for name, array in arrays.items()},
        }

    def write(self, path: str | Path) -> None:
        """Writes a page with this run alone: see `write_page`."""
        write_page(path, [self])


def write_page(path: str | Path, replays: Sequence[Replay]) -> None:
    """Writes a page with some runs, one of which is shown at a time. Raises ValueError for a path that is none and
    OSError, in one sentence, where it cannot be written; then what was there before is still there."""
    path = check_page(path)
    if not replays:
        raise ValueError("A page cannot be made of 0 replays: give one at least.")
    # No text of the data can end the script that holds it.
    data = json.dumps([replay.data() for replay in replays]).replace("<", "\\u003c")
    atomic.write(path, PAGE.read_text("utf-8").replace("/*DATA*/null", data, 1).encode())


def pack(array: np.ndarray) -> str:
    """An array as the lowest bytes of all numbers, then the next ones, ..., deflated, in base64: high bytes are mostly
    alike, and next to each other they take no room."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    planes = little.reshape(-1, 1).view(np.uint8).T  # [bytes of a number, numbers]
    return base64.b64encode(zlib.compress(planes.tobytes())).decode("ascii")

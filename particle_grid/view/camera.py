"""A camera: which part of a world is shown, how large, and what is drawn beside the cells."""

import math
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, EMPTY, World
from particle_grid.view.frame import (
    FADES,
    FOLLOWED,
    MOST_PIXELS,
    PALETTE,
    SEEN,
    TRAIL,
    Region,
    cells,
    check_region,
    check_world,
    paint,
    scale,
)

LONGEST_TRAIL = 1 << 16  # pictures; each is as many positions as there are agents
FONT_SIZE, GAP = 13, 8  # pixels, of a legend


class Camera:
    """Pictures of one world, all of one size.

    region: (row, column, height, width) in field cells; None for all of the field. agent: one to follow, by its number
    among all agents, who then decides the world; `around` cells are shown along each side, the agent is white and the
    cells that it sees are lighter. zoom: pixels a cell, or 1/2, 1/3, ...; None for as many as fit into `pixels`
    (height, width). trails: for how many pictures the way an agent came stays visible. legend: labels of cell codes.
    Raises ValueError for what cannot be shown.
    """

    def __init__(
        self,
        settings: World,
        *,
        world: int = 0,
        region: Region | None = None,
        agent: int | None = None,
        around: int = 48,
        zoom: float | None = None,
        pixels: tuple[int, int] = (512, 512),
        trails: int = 0,
        legend: Mapping[int, str] | None = None,
    ) -> None:
        if agent is not None and not isinstance(agent, int | np.integer):
            raise TypeError(f"agent={agent!r} is not a whole number.")
        agents = settings.worlds * settings.agents
        if agent is not None and not 0 <= agent < agents:
            raise ValueError(f"agent={agent} is not there to be followed: there are agents 0 to {agents - 1}.")
        if agent is not None and region is not None:
            raise ValueError(f"region={tuple(region)} and agent={agent} exclude each other: choose one of them.")
        if not isinstance(pixels, Sequence) or len(pixels) != 2:
            raise ValueError(f"pixels={pixels!r} cannot be: give (height, width).")
        limits = (("around", around, 1), ("trails", trails, 0), *(("pixels", size, 1) for size in pixels))
        for name, value, least in limits:
            if not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name}={value!r} cannot be: give {least} or more, a whole number.")
        if trails > LONGEST_TRAIL:
            raise ValueError(f"trails={trails} is too large: choose fewer pictures, {LONGEST_TRAIL} at most.")
        if pixels[0] * pixels[1] > MOST_PIXELS:
            raise ValueError(f"pixels={tuple(pixels)} is too large: choose fewer, {MOST_PIXELS} in all at most.")
        self.settings, self.agent = settings, agent
        self.world = world if agent is None else agent // settings.agents
        check_world(self.world, settings.worlds)
        self._region, self._around = check_region(region, settings), around
        height, width = self._region[2:]
        if agent is not None:
            height, width = min(around, height), min(around, width)
        fits = min(pixels[0] / height, pixels[1] / width)
        whole = math.floor(fits) if fits >= 1 else 1 / math.ceil(1 / fits)
        self.zoom = whole if zoom is None else zoom
        shape = scale(np.zeros((height, width), np.uint8), self.zoom).shape  # raises for a zoom that cannot be
        self._legend = draw_legend(legend, shape[1]) if legend else np.zeros((0, shape[1], 3), np.uint8)
        self._trails: deque[np.ndarray] = deque(maxlen=trails)  # i32[2, agents] each, in field cells; the last first

    def region(self, state: State) -> Region:
        """What is shown now: (row, column, height, width) in field cells."""
        if self.agent is None:
            return self._region
        s, middle = self.settings, state.position[:, self.agent].astype(int) - self.settings.vision
        size = min(self._around, s.height), min(self._around, s.width)
        row, column = (
            int(np.clip(m - n // 2, 0, f - n)) for m, n, f in zip(middle, size, (s.height, s.width), strict=True)
        )
        return row, column, *size

    def look(self, state: State) -> np.ndarray:
        """A picture u8[H, W, 3] in RGB. Trails are made of the pictures before."""
        self.remember(state)
        return np.concatenate([paint(scale(self.codes(state, self.region(state)), self.zoom)), self._legend])

    def remember(self, state: State) -> None:
        """Where the agents are now: a trail leads there from the next picture on."""
        if self._trails.maxlen:
            first = self.world * self.settings.agents
            here = state.position[:, first : first + self.settings.agents].astype(np.int32) - self.settings.vision
            self._trails.appendleft(here)

    def forget(self) -> None:
        """No trails from before."""
        self._trails.clear()

    def codes(self, state: State, region: Region) -> np.ndarray:
        """The codes u8[h, w] of a region, with the trails, the agent that is followed and what it sees."""
        row, column = region[:2]
        shown = cells(state, self.settings, self.world, region).copy()
        if self._trails:
            np.copyto(shown, self._trail_codes(state, region), where=shown == EMPTY)
        if self.agent is not None:
            r, c = state.position[:, self.agent].astype(int) - self.settings.vision - (row, column)
            v = self.settings.vision
            window = shown[max(r - v, 0) : max(r + v + 1, 0), max(c - v, 0) : max(c + v + 1, 0)]
            window[window == EMPTY] = SEEN
            if 0 <= r < len(shown) and 0 <= c < shown.shape[1]:  # a region need not hold it
                shown[r, c] = FOLLOWED
        return shown

    def _trail_codes(self, state: State, region: Region) -> np.ndarray:
        """The trails u8[h, w] in a region, EMPTY elsewhere: the fresher lie over the older."""
        row, column, height, width = region
        trails, first = np.full((height, width), EMPTY, np.uint8), self.world * self.settings.agents
        colour = state.colour[first : first + self.settings.agents]
        for age, (rows, columns) in reversed(list(enumerate(self._trails))):
            r, c = rows - row, columns - column
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            shade = age * FADES // self._trails.maxlen
            trails[r[inside], c[inside]] = TRAIL + FADES * (colour[inside] - AGENT_1) + shade
        return trails


def draw_legend(labels: Mapping[int, str], width: int) -> np.ndarray:
    """A coloured square and a label for each cell code, in as many lines as the width needs: u8[h, width, 3]. Raises
    ValueError for what are no labels."""
    known = isinstance(labels, Mapping) and all(code in range(len(PALETTE)) for code in labels)
    if not known or not all(isinstance(label, str) for label in labels.values()):
        raise ValueError(f"legend={labels!r} is none: give texts by cell codes, from 0 to {len(PALETTE) - 1}.")
    font = ImageFont.load_default(FONT_SIZE)
    places, x, y, line = [], GAP, GAP // 2, FONT_SIZE + GAP
    for code, label in labels.items():
        length = 2 * FONT_SIZE + math.ceil(font.getlength(label)) + GAP
        if x > GAP and x + length > width:
            x, y = GAP, y + line
        places.append((x, y, code, label))
        x += length
    strip = Image.new("RGB", (width, y + line), tuple(PALETTE[EMPTY].tolist()))
    draw = ImageDraw.Draw(strip)
    draw.fontmode = "1"  # without shades between the colours, which a GIF has not
    for x, y, code, label in places:
        square = x, y + 1, x + FONT_SIZE - 1, y + FONT_SIZE
        draw.rectangle(square, fill=tuple(PALETTE[code].tolist()))
        draw.text((x + FONT_SIZE + GAP // 2, y), label, font=font, fill=tuple(PALETTE[FOLLOWED].tolist()))
    return np.asarray(strip)

"""A camera: which part of a world is shown, at what size, and what is drawn in addition to the cells."""

import math
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, EMPTY, World
from particle_grid.support.errors import UserError, UserTypeError
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

LONGEST_TRAIL = 1 << 16  # pictures; each stores the positions of all agents
FONT_SIZE, GAP = 13, 8  # sizes in a legend, in pixels


class Camera:
    """Pictures of one world, all of one size.

    Args:
        settings: the world's settings.
        world: number of the world to show.
        region: (row, column, height, width) to show, in field cells; None for all of the field.
        agent: number (among all agents) of an agent to follow instead, in its own world. It is drawn in white, and the
            cells it sees are lighter.
        around: cells shown along each side around that agent.
        zoom: pixels per cell, or 1/2, 1/3, ...; None for as many as fit into `pixels`.
        pixels: (height, width) that the picture must fit into.
        trails: for how many pictures the paths of agents stay visible.
        legend: labels of cell codes.

    Raises:
        UserError: if there is no such world, agent, region, zoom or size.
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
        _check_agent(agent, region, settings)
        _check_sizes(around, trails, pixels)
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
        shape = scale(np.zeros((height, width), np.uint8), self.zoom).shape  # raises for an invalid zoom
        self._legend = draw_legend(legend, shape[1]) if legend else np.zeros((0, shape[1], 3), np.uint8)
        self._trails: deque[np.ndarray] = deque(maxlen=trails)  # i32[2, agents] each, in field cells; latest first

    def region(self, state: State) -> Region:
        """Return what is currently shown: (row, column, height, width) in field cells."""
        if self.agent is None:
            return self._region
        middle = state.position[:, self.agent].astype(int) - self.settings.vision
        field = self.settings.height, self.settings.width
        size = min(self._around, field[0]), min(self._around, field[1])
        row, column = (int(np.clip(m - n // 2, 0, f - n)) for m, n, f in zip(middle, size, field, strict=True))
        return row, column, *size

    def look(self, state: State) -> np.ndarray:
        """Return a picture u8[H, W, 3] in RGB. Trails lead through the previous pictures."""
        self.remember(state)
        return np.concatenate([paint(scale(self.codes(state, self.region(state)), self.zoom)), self._legend])

    def remember(self, state: State) -> None:
        """Add the current positions to the trails, which show them from the next picture on."""
        if self._trails.maxlen:
            first = self.world * self.settings.agents
            here = state.position[:, first : first + self.settings.agents].astype(np.int32) - self.settings.vision
            self._trails.appendleft(here)

    def forget(self) -> None:
        """Clear the trails."""
        self._trails.clear()

    def codes(self, state: State, region: Region) -> np.ndarray:
        """Return the codes u8[h, w] of a region, with trails, the agent that is followed and what it sees."""
        row, column = region[:2]
        shown = cells(state, self.settings, self.world, region).copy()
        if self._trails:
            np.copyto(shown, self._trail_codes(state, region), where=shown == EMPTY)
        if self.agent is not None:
            r, c = state.position[:, self.agent].astype(int) - self.settings.vision - (row, column)
            v = self.settings.vision
            window = shown[max(r - v, 0) : r + v + 1, max(c - v, 0) : c + v + 1]
            window[window == EMPTY] = SEEN
            shown[r, c] = FOLLOWED
        return shown

    def _trail_codes(self, state: State, region: Region) -> np.ndarray:
        """Return the trails u8[h, w] in a region, EMPTY elsewhere; fresher ones cover older ones."""
        row, column, height, width = region
        trails = np.full((height, width), EMPTY, np.uint8)
        first = self.world * self.settings.agents
        colour = state.colour[first : first + self.settings.agents]
        for age, (rows, columns) in reversed(list(enumerate(self._trails))):
            r, c = rows - row, columns - column
            inside = (r >= 0) & (r < height) & (c >= 0) & (c < width)
            shade = age * FADES // self._trails.maxlen
            trails[r[inside], c[inside]] = TRAIL + FADES * (colour[inside] - AGENT_1) + shade
        return trails


def _check_agent(agent: int | None, region: Region | None, settings: World) -> None:
    if agent is None:
        return
    if not isinstance(agent, int | np.integer):
        raise UserTypeError(f"agent={agent!r} is not a whole number.")
    agents = settings.worlds * settings.agents
    if not 0 <= agent < agents:
        raise UserError(f"agent={agent} is out of range: agents are numbered 0 to {agents - 1}.")
    if region is not None:
        raise UserError(f"region={tuple(region)} and agent={agent} exclude each other: choose one of them.")


def _check_sizes(around: int, trails: int, pixels: tuple[int, int]) -> None:
    if not isinstance(pixels, Sequence) or len(pixels) != 2:
        raise UserError(f"pixels={pixels!r} is not a size: give (height, width).")
    limits = (("around", around, 1), ("trails", trails, 0), *(("pixels", size, 1) for size in pixels))
    for name, value, least in limits:
        if not isinstance(value, int | np.integer) or value < least:
            raise UserError(f"{name}={value!r} is out of range: give a whole number of at least {least}.")
    if trails > LONGEST_TRAIL:
        raise UserError(f"trails={trails} is too large: choose at most {LONGEST_TRAIL} pictures.")
    if pixels[0] * pixels[1] > MOST_PIXELS:
        raise UserError(f"pixels={tuple(pixels)} is too large: choose at most {MOST_PIXELS} in all.")


def draw_legend(labels: Mapping[int, str], width: int) -> np.ndarray:
    """Return a coloured square and a label for each cell code, on as many lines as needed, u8[h, width, 3].

    Raises:
        UserError: if these are not labels of cell codes.
    """
    known = isinstance(labels, Mapping) and all(code in range(len(PALETTE)) for code in labels)
    if not known or not all(isinstance(label, str) for label in labels.values()):
        raise UserError(f"legend={labels!r} is not a legend: give texts by cell codes, from 0 to {len(PALETTE) - 1}.")
    font = ImageFont.load_default(FONT_SIZE)
    line = FONT_SIZE + GAP
    x, y = GAP, GAP // 2
    places = []
    for code, label in labels.items():
        length = 2 * FONT_SIZE + math.ceil(font.getlength(label)) + GAP
        if x > GAP and x + length > width:
            x, y = GAP, y + line
        places.append((x, y, code, label))
        x += length
    strip = Image.new("RGB", (width, y + line), tuple(PALETTE[EMPTY].tolist()))
    draw = ImageDraw.Draw(strip)
    draw.fontmode = "1"  # no shades between the colours, because a GIF has none
    for x, y, code, label in places:
        square = x, y + 1, x + FONT_SIZE - 1, y + FONT_SIZE
        draw.rectangle(square, fill=tuple(PALETTE[code].tolist()))
        draw.text((x + FONT_SIZE + GAP // 2, y), label, font=font, fill=tuple(PALETTE[FOLLOWED].tolist()))
    return np.asarray(strip)

"""A camera: which part of a world is shown, how large, and what is drawn beside the cells."""

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, EMPTY, World
from particle_grid.view.frame import FADES, FOLLOWED, PALETTE, SEEN, TRAIL, Region, cells, check_region, scale

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
        agents = settings.worlds * settings.agents
        if agent is not None and not 0 <= agent < agents:
            raise ValueError(f"agent={agent} is not there to be followed: there are agents 0 to {agents - 1}.")
        if agent is not None and region is not None:
            raise ValueError(f"region={tuple(region)} and agent={agent} exclude each other: choose one of them.")
        if around < 1 or trails < 0:
            raise ValueError(f"around={around} and trails={trails} cannot be: give 1 or more, and 0 or more.")
        self.settings, self.agent = settings, agent
        self.world = world if agent is None else agent // settings.agents
        self._region, self._around = check_region(region, settings), around
        height, width = self._region[2:]
        if agent is not None:
            height, width = min(around, height), min(around, width)
        fits = min(pixels[0] / height, pixels[1] / width)
        self.zoom = zoom or (math.floor(fits) if fits >= 1 else 1 / math.ceil(1 / fits))
        shape = scale(np.zeros((height, width), np.uint8), self.zoom).shape  # raises for a zoom that cannot be
        self._legend = draw_legend(legend, shape[1]) if legend else np.zeros((0, shape[1], 3), np.uint8)
        self._trails, field = trails, (settings.height, settings.width)
        if trails:
            self._age, self._who = np.full(field, trails, np.int64), np.zeros(field, np.int64)

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
        region = row, column, height, width = self.region(state)
        shown = cells(state, self.settings, self.world, region).copy()
        if self._trails:
            self._follow_all(state)
            part = slice(row, row + height), slice(column, column + width)
            shade = self._age[part] * FADES // self._trails
            trail = (shown == EMPTY) & (shade < FADES)
            shown[trail] = (TRAIL + FADES * self._who[part] + shade)[trail]
        if self.agent is not None:
            r, c = state.position[:, self.agent].astype(int) - self.settings.vision - (row, column)
            v = self.settings.vision
            window = shown[max(r - v, 0) : r + v + 1, max(c - v, 0) : c + v + 1]
            window[window == EMPTY] = SEEN
            shown[r, c] = FOLLOWED
        return np.concatenate([PALETTE[scale(shown, self.zoom)], self._legend])

    def _follow_all(self, state: State) -> None:
        field = cells(state, self.settings, self.world)
        here = field >= AGENT_1
        self._age = np.where(here, 0, np.minimum(self._age + 1, self._trails))
        self._who = np.where(here, field.astype(np.int64) - AGENT_1, self._who)


def draw_legend(labels: Mapping[int, str], width: int) -> np.ndarray:
    """A coloured square and a label for each cell code, in as many lines as the width needs: u8[h, width, 3]."""
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

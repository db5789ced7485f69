"""A world as an image: one colour per cell code, chosen so that colour-blind people can tell them apart."""

import functools
import math
from collections.abc import Iterable
from numbers import Real

import numpy as np

from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, CODES, EMPTY, FOOD, WALL, World
from particle_grid.support.errors import UserError

# M. Okabe, K. Ito, "Color Universal Design", 2008: the agents' four also differ in brightness on the dark background.
CELL_COLOURS = np.array(
    [
        (18, 18, 24),  # EMPTY
        (0, 140, 100),  # FOOD: bluish green, darkened so that agents stand out from it
        (70, 70, 78),  # WALL: without green-sensitive cones, a lighter grey is too close to food
        (86, 180, 233),  # AGENT_1: sky blue
        (230, 159, 0),  # AGENT_2: orange
        (240, 228, 66),  # AGENT_3: yellow
        (204, 121, 167),  # AGENT_4: reddish purple
    ],
    np.uint8,
)
# Codes that only occur in pictures, after those of cells: what an agent sees, the followed agent, and trails.
SEEN, FOLLOWED = CODES, CODES + 1
TRAIL = CODES + 2
MOST_PIXELS = 1 << 28  # pixels of a picture
FADES = 6  # shades of a trail: code TRAIL + FADES * (agent - AGENT_1) + shade, 0 the freshest


def _palette() -> np.ndarray:
    empty, agents = CELL_COLOURS[EMPTY].astype(float), CELL_COLOURS[AGENT_1:]
    weights = 0.55 * (1 - np.arange(FADES) / FADES)[:, None]
    trails = [weights * agent + (1 - weights) * empty for agent in agents]  # each [FADES, 3]
    return np.concatenate([CELL_COLOURS, [(44, 44, 56), (255, 255, 255)], *trails]).round().astype(np.uint8)


PALETTE = _palette()  # u8[code, 3]
TEXT_SHADES = np.array([(110, 110, 120), (160, 160, 170), (205, 205, 212), (245, 245, 248)], np.uint8)  # RGB, of words
Region = tuple[int, int, int, int]


def frame(state: State, settings: World, world: int = 0, region: Region | None = None, zoom: float = 1) -> np.ndarray:
    """Return an image u8[H, W, 3] in RGB of one world, or of a region of it.

    Args:
        state: the state of the simulation.
        settings: its settings.
        world: number of the world.
        region: (row, column, height, width) in field cells; None for all of the field.
        zoom: pixels per cell along each axis; 2, 3, ... enlarge, and 1/2, 1/3, ... shrink to ceil(cells * zoom) pixels.
            A pixel of a shrunk image shows the most common agent among its cells, or else food, or else walls, so that
            nothing small disappears.

    Raises:
        UserError: if there is no such world, region or zoom.
    """
    return paint(scale(cells(state, settings, world, region), zoom))


def paint(codes: np.ndarray) -> np.ndarray:
    """Return codes u8[h, w] in their colours, RGB u8[h, w, 3]."""
    return PALETTE.take(codes, 0)  # five times as fast as indexing


def cells(state: State, settings: World, world: int = 0, region: Region | None = None) -> np.ndarray:
    """Return the cell codes u8[h, w] of what `frame` shows, as a view of the grid."""
    check_world(world, len(state.grid))
    row, column, height, width = check_region(region, settings)
    top, left = settings.vision + row, settings.vision + column
    return state.grid[world, top : top + height, left : left + width]


def check_world(world: int, worlds: int) -> None:
    """Raise UserError unless `world` is the number of a world."""
    if not isinstance(world, int | np.integer) or not 0 <= world < worlds:
        raise UserError(f"world={world!r} is out of range: worlds are numbered 0 to {worlds - 1}.")


def check_region(region: Region | None, settings: World) -> Region:
    """Return the region, for None all of the field; raise UserError if it is not in the field."""
    if region is None:
        return 0, 0, settings.height, settings.width
    parts = list(region) if isinstance(region, Iterable) else []
    if len(parts) != 4 or not all(isinstance(part, int | np.integer) for part in parts):
        raise UserError(
            f"region={region!r} is not a region: give (row, column, height, width) in cells, whole numbers."
        )
    row, column, height, width = region
    inside = min(row, column) >= 0 and row + height <= settings.height and column + width <= settings.width
    if not inside or min(height, width) < 1:
        raise UserError(
            f"region={tuple(region)} does not lie in the {settings.height} x {settings.width} field: "
            f"give (row, column, height, width) in cells."
        )
    return region


def scale(codes: np.ndarray, zoom: float) -> np.ndarray:
    """Return codes u8[h, w] enlarged or shrunk, see `frame`."""
    if isinstance(zoom, Real) and 1 / MOST_PIXELS <= zoom < math.inf:
        factor = round(max(zoom, 1 / zoom))
        if zoom == factor:
            if codes.size * factor**2 > MOST_PIXELS:
                raise UserError(
                    f"zoom={zoom} makes a picture of {codes.shape[0] * factor} x {codes.shape[1] * factor} pixels: "
                    f"choose at most {MOST_PIXELS} in all."
                )
            return codes.repeat(factor, 0).repeat(factor, 1)
        if abs(zoom * factor - 1) < 1e-6 and factor <= max(codes.shape):
            return _shrink(codes, factor)
    raise UserError(f"zoom={zoom} is not possible: use a whole number of pixels per cell, or 1 over a whole number.")


def _shrink(codes: np.ndarray, factor: int) -> np.ndarray:
    height, width = (-(-size // factor) for size in codes.shape)
    padded = np.full((height * factor, width * factor), EMPTY, np.uint8)
    padded[: codes.shape[0], : codes.shape[1]] = codes

    def blocks(x: np.ndarray, fold: np.ufunc) -> np.ndarray:
        """Reduce each block to one number; rows first, then columns, is ten times as fast as both axes at once."""
        rows = functools.reduce(fold, (x[k::factor] for k in range(factor)))
        return functools.reduce(fold, (rows[:, k::factor] for k in range(factor)))

    def count(code: int) -> np.ndarray:
        return blocks((padded == code).astype(np.uint8 if factor < 16 else np.uint32), np.add)

    agents = np.stack([count(code) for code in range(AGENT_1, CODES)])  # [4, h / f, w / f]
    freshest = blocks(np.where(padded >= TRAIL, 255 - padded, 0), np.maximum)  # 255 - code, 0 where there is no trail
    return np.select(
        [count(FOLLOWED) > 0, agents.any(0), count(FOOD) > 0, count(WALL) > 0, freshest > 0, count(SEEN) > 0],
        [FOLLOWED, AGENT_1 + agents.argmax(0), FOOD, WALL, 255 - freshest, SEEN],
        EMPTY,
    ).astype(np.uint8)

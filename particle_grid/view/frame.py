"""A world as an image: one colour for each cell code, in colours that colour-blind people can tell apart."""

import numpy as np

from particle_grid.sim.state import State
from particle_grid.sim.world import AGENT_1, AGENT_4, EMPTY, FOOD, WALL, World

# M. Okabe, K. Ito, "Color Universal Design", 2008: the agents' four also differ in brightness on the dark background.
PALETTE = np.array(
    [
        (18, 18, 24),  # EMPTY
        (0, 140, 100),  # FOOD: bluish green, darkened so that agents stand out from it
        (70, 70, 78),  # WALL: without green-sensitive cones, a lighter grey is too near to food
        (86, 180, 233),  # AGENT_1: sky blue
        (230, 159, 0),  # AGENT_2: orange
        (240, 228, 66),  # AGENT_3: yellow
        (204, 121, 167),  # AGENT_4: reddish purple
    ],
    np.uint8,
)
Region = tuple[int, int, int, int]


def frame(state: State, settings: World, world: int = 0, region: Region | None = None, zoom: float = 1) -> np.ndarray:
    """Image u8[H, W, 3] in RGB of one world, or of a region (row, column, height, width in field cells) of it.

    zoom: pixels a cell along each axis; 2, 3, ... enlarge. 1/2, 1/3, ... shrink to ceil(cells * zoom) pixels: a pixel
    then shows the commonest agent among its cells, if none food, if none wall, so that nothing small vanishes.
    Raises ValueError for a world, a region or a zoom that there is not."""
    if not 0 <= world < len(state.grid):
        raise ValueError(f"world={world} is not there: the state holds worlds 0 to {len(state.grid) - 1}.")
    row, column, height, width = region or (0, 0, settings.height, settings.width)
    if (
        min(row, column) < 0
        or min(height, width) < 1
        or row + height > settings.height
        or column + width > settings.width
    ):
        raise ValueError(
            f"region={region} does not lie in the {settings.height} x {settings.width} field: "
            f"it is (row, column, height, width) in cells."
        )
    top, left = settings.vision + row, settings.vision + column
    return PALETTE[scale(state.grid[world, top : top + height, left : left + width], zoom)]


def scale(cells: np.ndarray, zoom: float) -> np.ndarray:
    """Cell codes u8[h, w] enlarged or shrunk, see `frame`."""
    if zoom > 0:
        factor = round(max(zoom, 1 / zoom))
        if zoom == factor:
            return cells.repeat(factor, 0).repeat(factor, 1)
        if abs(zoom * factor - 1) < 1e-6 and factor <= max(cells.shape):
            return _shrink(cells, factor)
    raise ValueError(f"zoom={zoom} is not possible: use a whole number of pixels a cell, or 1 over a whole number.")


def _shrink(cells: np.ndarray, factor: int) -> np.ndarray:
    height, width = (-(-size // factor) for size in cells.shape)
    padded = np.full((height * factor, width * factor), EMPTY, np.uint8)
    padded[: cells.shape[0], : cells.shape[1]] = cells
    blocks = padded.reshape(height, factor, width, factor)  # [h, w] -> [h / f, f, w / f, f]
    counts = np.stack([(blocks == code).sum((1, 3)) for code in range(AGENT_4 + 1)])  # [7, h / f, w / f]
    agents = counts[AGENT_1:]
    choice = np.select(
        [agents.any(0), counts[FOOD] > 0, counts[WALL] > 0], [AGENT_1 + agents.argmax(0), FOOD, WALL], EMPTY
    )
    return choice.astype(np.uint8)

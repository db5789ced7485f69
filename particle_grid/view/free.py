"""A camera that zooms and pans. All its pictures have the same size, regardless of the part of the world they show."""

import math

import numpy as np

from particle_grid.sim.state import State
from particle_grid.sim.world import World
from particle_grid.support.errors import UserError
from particle_grid.view.camera import Camera
from particle_grid.view.frame import Region, paint, scale

MARGIN = np.array((34, 34, 42), np.uint8)  # RGB, around a field that is smaller than the picture
ZOOMS = 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64  # pixels per cell
Place = tuple[float, float]  # row, column


class FreeCamera(Camera):
    """Pictures u8[pixels, pixels, 3] of the world of an agent, which is drawn in white; the cells it sees are lighter.

    While `following` is set, the agent stays in the middle, unless that would show a margin where there could be field.
    Trails lead through the positions that were passed to `remember`.

    Args:
        settings: the world's settings.
        agent: number of the agent.
        zoom: pixels per cell, or 1/2, 1/3, ...; None for all of the field, which is also the smallest zoom.
        pixels: along each side.
        trails: for how many steps the paths of agents stay visible.

    Raises:
        UserError: if there is no such agent, zoom or size.
    """

    def __init__(
        self, settings: World, *, agent: int = 0, zoom: float | None = None, pixels: int = 640, trails: int = 0
    ) -> None:
        every = max(settings.height, settings.width)
        super().__init__(settings, agent=agent, around=every, pixels=(pixels, pixels), trails=trails)
        self.size, self.following = pixels, True
        least = self.zoom
        self._zooms = sorted({least, *(1 / k for k in range(2, math.ceil(1 / least))), *ZOOMS})
        self._zooms = [zoom for zoom in self._zooms if zoom >= least]
        if zoom is not None:
            scale(np.zeros((1, every if zoom < 1 else 1), np.uint8), zoom)  # raises for an invalid zoom
            if not least <= zoom <= pixels:
                raise UserError(f"zoom={zoom} is out of range: {least:g} shows all of the field, {pixels} one cell.")
            self.zoom = zoom
        self._blank = np.tile(MARGIN, (pixels, pixels, 1))
        self._corner = [0, 0]  # row and column of the upper left pixel in a picture of the whole field at this zoom
        self._keep_inside()

    def follow(self, agent: int) -> None:
        """Draw another agent in white from now on, and show its world."""
        if agent // self.settings.agents != self.world:
            self.forget()
        self.agent, self.world = agent, agent // self.settings.agents

    def place_of(self, pixel: Place) -> Place:
        """Return where the middle of a pixel (row, column) of the picture is in the field, in cells."""
        row, column = ((corner + p + 0.5) / self.zoom for corner, p in zip(self._corner, pixel, strict=True))
        return row, column

    def zoom_by(self, notches: int, pixel: Place) -> None:
        """Zoom in by some notches, or out; what the pixel (row, column) shows stays there if possible."""
        before, place = self._zooms, self.place_of(pixel)
        near = min(range(len(before)), key=lambda k: abs(before[k] - self.zoom))
        self.zoom = before[min(max(near + notches, 0), len(before) - 1)]
        self._corner = [round(at * self.zoom - p - 0.5) for at, p in zip(place, pixel, strict=True)]
        self._keep_inside()

    def pan(self, rows: int, columns: int) -> None:
        """Move by some pixels down and to the right, and stop following the agent."""
        self.following = False
        self._corner = [self._corner[0] + rows, self._corner[1] + columns]
        self._keep_inside()

    def region(self, state: State) -> Region:
        """Return what is currently shown: (row, column, height, width) in field cells."""
        if self.following:
            at = state.position[:, self.agent].astype(int) - self.settings.vision + 0.5
            self._corner = [round(x * self.zoom - self.size / 2) for x in at]
            self._keep_inside()
        part = [
            (max(self._cell(corner), 0), min(-self._cell(-corner - self.size), cells))
            for corner, cells in zip(self._corner, (self.settings.height, self.settings.width), strict=True)
        ]
        (top, bottom), (left, right) = part
        return top, left, bottom - top, right - left

    def look(self, state: State) -> np.ndarray:
        """Return a picture in RGB."""
        region = self.region(state)
        shown = paint(scale(self.codes(state, region), self.zoom))
        picture = self._blank.copy()
        # Where the region starts: before the upper left pixel if a cell is cut, after it if there is a margin.
        top, left = (round(cell * self.zoom) - corner for cell, corner in zip(region, self._corner, strict=False))
        part = shown[max(-top, 0) :, max(-left, 0) :][: self.size - max(top, 0), : self.size - max(left, 0)]
        top, left = max(top, 0), max(left, 0)
        picture[top : top + part.shape[0], left : left + part.shape[1]] = part
        return picture

    def _cell(self, pixel: int) -> int:
        """Return the cell that a pixel of the field shows, or the first of several, rounded down exactly."""
        return pixel // round(self.zoom) if self.zoom >= 1 else pixel * round(1 / self.zoom)

    def _keep_inside(self) -> None:
        """Show no margin where there could be field, and centre a field that is smaller than the picture."""
        for axis, cells in enumerate((self.settings.height, self.settings.width)):
            beyond = math.ceil(cells * self.zoom - 1e-6) - self.size  # pixels of the field that do not fit
            self._corner[axis] = min(max(self._corner[axis], 0), beyond) if beyond > 0 else -(-beyond // 2)

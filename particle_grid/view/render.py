"""Rendering an environment: as an array, as text, or in a window."""

import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from particle_grid.sim.state import State
from particle_grid.sim.task import Task, legend_words
from particle_grid.sim.world import AGENT_1, FOOD, WALL, Layout, World
from particle_grid.support.errors import UserError
from particle_grid.view.camera import Camera
from particle_grid.view.terminal import ansi
from particle_grid.view.window import Window

RENDER_MODES = ("rgb_array", "ansi", "human")
PIXELS = 720  # maximum size of a picture in pixels, along each side
HUES = ("blue", "orange", "yellow", "purple")  # of agents, from AGENT_1 on: see `CELL_COLOURS`


def check_mode(mode: Any) -> None:
    """Raise UserError unless `mode` is one of RENDER_MODES or None."""
    if mode is not None and not (isinstance(mode, str) and mode in RENDER_MODES):
        raise UserError(f"There is no render_mode {mode!r}. Choose one of: {', '.join(RENDER_MODES)}, or None.")


class Renderer:
    """Pictures of an environment, in one of RENDER_MODES or none.

    Args:
        mode: how to render, or None if nothing is to be rendered.
        world: the settings of the environment.
        title: of the window.
        legend: labels of cell codes.
    """

    def __init__(self, mode: str | None, world: World, title: str, legend: Mapping[int, str]) -> None:
        self.mode = mode
        self.title = title
        self.camera = _default_camera(mode, world, legend)
        self._window: Window | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the window, which stays with the original."""
        return vars(self) | {"_window": None}

    def render(self, state: State) -> np.ndarray | str | None:
        """Return what the camera sees: u8[H, W, 3], or text for a terminal; None if it is shown in a window."""
        if self.camera is None:
            raise UserError(f"There is nothing to render: build it with render_mode={' or '.join(RENDER_MODES)}.")
        image = self.camera.look(state)
        if self.mode == "ansi":
            return ansi(image)
        if self.mode == "human":
            self._window = self._window or Window(self.title)
            self._window.show(image)
            return None
        return image

    def close(self) -> None:
        """Close the window, if there is one."""
        if self._window:
            self._window.close()
            self._window = None


def _default_camera(mode: str | None, world: World, legend: Mapping[int, str]) -> Camera | None:
    """Return a camera on all of the first world."""
    if mode is None:
        return None
    if mode == "ansi":  # a character shows two cells, one above the other
        columns, lines = shutil.get_terminal_size()
        return Camera(world, pixels=(max(2 * lines - 2, 1), columns))
    return Camera(world, pixels=(PIXELS, PIXELS), legend=legend)


def cell_labels(layout: Layout, task: Task) -> dict[int, str]:
    """Return a label for each cell code that occurs in what a task laid out."""
    kinds, target = legend_words(task)
    labels = {}
    if layout.food:
        labels[FOOD] = "food"
    elif layout.targets is not None:
        labels[FOOD] = target
    if layout.world.walls or layout.walls.any():
        labels[WALL] = "wall"
    colours = np.unique(layout.colour).tolist()
    for code in colours:
        number = code - AGENT_1
        plain = HUES[number] if len(colours) > 1 else "agent"
        labels[code] = kinds[number] if number < len(kinds) else plain
    return labels

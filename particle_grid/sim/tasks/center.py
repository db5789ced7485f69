"""Go to the middle: a task to debug with, since whoever cannot learn it learns nothing."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from particle_grid.sim.state import State
from particle_grid.sim.world import Layout
from particle_grid.support.jit import parallel_kernel, prange


@dataclass(frozen=True)
class Center:
    """reward: minus the distance to the middle, as a share of the distance between the middle and a corner."""

    unit: ClassVar[str] = "cells from the middle, negative"
    teams: ClassVar[int] = 1
    sight: ClassVar[bool] = False

    def init(self, layout: Layout) -> None:
        height, width, vision = layout.world.height / 2, layout.world.width / 2, layout.world.vision
        layout.map = np.array([vision + height, vision + width, np.hypot(height, width)], np.float32)  # middle; corner

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        _distance(rewards, state.position, layout.map, np.float32(-1) / layout.map[2])

    def score(self, state: State, layout: Layout) -> np.ndarray:
        distance = np.empty(len(state.colour), np.float32)
        _distance(distance, state.position, layout.map, np.float32(-1))
        return distance

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        features = (2 * layout.world.vision + 1) ** 2
        place = observations[:, features : features + 2].astype(np.float32) + np.float32(0.5)  # in 1/256 of the field
        aim[:] = (np.float32(0.5) - place / np.float32(256)) * np.array([layout.world.height, layout.world.width])


@parallel_kernel
def _distance(out, position, middle, scale):
    row, column = middle[0], middle[1]
    for i in prange(len(out)):
        d_row, d_column = position[0, i] - row, position[1, i] - column
        out[i] = scale * np.sqrt(d_row * d_row + d_column * d_column)

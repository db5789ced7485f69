"""Go to the middle: a task to debug with, since whoever cannot learn it learns nothing."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from particle_grid.jit import parallel_kernel, prange
from particle_grid.sim.state import State
from particle_grid.sim.world import Layout


@dataclass(frozen=True)
class Center:
    """reward: minus the distance to the middle, as a share of the distance between the middle and a corner."""

    unit: ClassVar[str] = "cells from the middle, negative"
    sides: ClassVar[int] = 1
    sight: ClassVar[bool] = False

    def init(self, layout: Layout) -> None:
        pass

    def reward(self, state: State, layout: Layout, rewards: np.ndarray) -> None:
        row, column, corner = _middle(layout)
        _distance(rewards, state.position, row, column, np.float32(-1 / corner))

    def score(self, state: State, layout: Layout) -> np.ndarray:
        row, column, _ = _middle(layout)
        distance = np.empty(len(state.colour), np.float32)
        _distance(distance, state.position, row, column, np.float32(-1))
        return distance

    def scripted(self, observations: np.ndarray, layout: Layout, rng: np.ndarray, aim: np.ndarray) -> None:
        features = (2 * layout.world.vision + 1) ** 2
        place = observations[:, features : features + 2].astype(np.float32) + np.float32(0.5)  # in 1/256 of the field
        aim[:] = (np.float32(0.5) - place / np.float32(256)) * np.array([layout.world.height, layout.world.width])


def _middle(layout: Layout) -> tuple[np.float32, np.float32, float]:
    """The middle of the field (row, column) in grid coordinates, and its distance from a corner, in cells."""
    height, width, vision = layout.world.height / 2, layout.world.width / 2, layout.world.vision
    return np.float32(vision + height), np.float32(vision + width), float(np.hypot(height, width))


@parallel_kernel
def _distance(out, position, row, column, scale):
    for i in prange(out.shape[0]):
        d_row, d_column = position[0, i] - row, position[1, i] - column
        out[i] = scale * np.sqrt(d_row * d_row + d_column * d_column)

"""The fast scripted policies agree with a plain reading of the window."""

import numpy as np
import pytest

from particle_grid.sim.observation import FEATURES, SIGNED_ZERO
from particle_grid.sim.scripted import fetch
from particle_grid.sim.world import AGENT_1, FOOD


def best_food(window, vision):
    """Return the food that `fetch` heads for, as (row, column) from the middle, or None if none is in sight."""
    best, at = 0.0, None
    food, agents = (np.argwhere(cells) for cells in (window == FOOD, window >= AGENT_1))
    for place in food:
        distance = np.abs(place - vision).max()
        rivals = (np.abs(agents - place).max(1) < distance).sum()
        more = (np.abs(food - place).max(1) <= 2).sum()
        value = (1 + 0.1 * more) / (distance * (1 + rivals))
        if value > best:
            best, at = value, place - vision
    return at


@pytest.mark.parametrize("vision", [1, 3, 5, 9])
def test_a_forager_heads_for_the_food_that_a_plain_count_ranks_best(vision):
    generator, side = np.random.default_rng(vision), 2 * vision + 1
    windows = generator.choice(
        np.array([0, FOOD, 2, AGENT_1, 6], np.uint8), (200, side, side), p=[0.6, 0.1, 0.1, 0.1, 0.1]
    )
    windows[:, vision, vision] = AGENT_1
    features = np.full((200, FEATURES), SIGNED_ZERO, np.uint8)
    observations = np.concatenate([windows.reshape(200, -1), features], 1)
    aim = np.full((200, 2), np.nan, np.float32)
    fetch(observations, vision, np.zeros(1, np.uint64), aim)
    for window, (row, column) in zip(windows, aim, strict=True):
        wanted = best_food(window, vision)
        if wanted is not None:
            assert (row, column) == pytest.approx(tuple(wanted), abs=0.01)
        else:
            assert max(abs(row), abs(column)) == 1

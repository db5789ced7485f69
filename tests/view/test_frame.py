"""Invariants of frames."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from particle_grid.sim.state import allocate
from particle_grid.sim.world import AGENT_1, CODES, EMPTY, FOOD, WALL, Layout, World
from particle_grid.view.frame import PALETTE, frame, scale

codes = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, CODES - 1))
settings = World(worlds=2, agents=1, height=12, width=17, vision=3)


def state_of(*fields):
    """Return a state whose worlds have these fields."""
    state = allocate(Layout(settings))
    v = settings.vision
    for grid, cells in zip(state.grid, fields, strict=True):
        grid[v : v + settings.height, v : v + settings.width] = cells
    return state


def random_fields():
    return np.random.default_rng(0).integers(0, CODES, (2, settings.height, settings.width), dtype=np.uint8)


def most_important(block):
    """Return the code that a pixel shows for several cells, by a plain definition."""
    cells = list(block.ravel())
    agents = [code for code in range(AGENT_1, CODES) if code in cells]
    if agents:
        return max(agents, key=lambda code: (cells.count(code), -code))
    return FOOD if FOOD in cells else WALL if WALL in cells else EMPTY


def test_a_frame_shows_each_cell_of_the_field_in_its_colour_and_no_margin():
    fields = random_fields()
    state = state_of(*fields)
    for world in range(2):
        image = frame(state, settings, world)
        assert image.dtype == np.uint8
        assert (image == PALETTE[fields[world]]).all()


def test_a_region_is_a_part_of_the_whole_frame():
    state = state_of(*random_fields())
    part = frame(state, settings, region=(2, 5, 7, 9), zoom=3)
    assert (part == frame(state, settings, zoom=3)[6:27, 15:42]).all()


@given(codes, st.integers(1, 5))
def test_enlarging_repeats_cells_and_shrinking_restores_them(cells, zoom):
    large = scale(cells, zoom)
    assert large.shape == (cells.shape[0] * zoom, cells.shape[1] * zoom)
    assert (large[zoom // 2 :: zoom, zoom // 2 :: zoom] == cells).all()
    assert (scale(large, 1 / zoom) == cells).all()


@given(codes, st.integers(2, 12))
def test_a_shrunk_pixel_shows_the_most_important_of_its_cells(cells, factor):
    if factor > max(cells.shape):
        return
    small = scale(cells, 1 / factor)
    blocks = [
        [cells[row : row + factor, column : column + factor] for column in range(0, cells.shape[1], factor)]
        for row in range(0, cells.shape[0], factor)
    ]
    assert small.tolist() == [[most_important(block) for block in row] for row in blocks]


@pytest.mark.parametrize("zoom", [0, -1, 1.5, 0.3, 1 / 100, float("nan")])
def test_an_impossible_zoom_is_refused_by_name(zoom):
    with pytest.raises(ValueError, match=f"zoom={zoom}"):
        frame(state_of(*random_fields()), settings, zoom=zoom)


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 0, 5), (8, 0, 5, 5), (0, 13, 5, 5)])
def test_a_region_outside_the_field_is_refused_by_name(region):
    with pytest.raises(ValueError, match="does not lie in the 12 x 17 field"):
        frame(state_of(*random_fields()), settings, region=region)


@pytest.mark.parametrize("world", [-1, 2])
def test_a_world_that_does_not_exist_is_refused_by_name(world):
    with pytest.raises(ValueError, match=f"world={world} is out of range"):
        frame(state_of(*random_fields()), settings, world)


# G. Machado, M. Oliveira, L. Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# 2009: linear RGB as seen by people who lack one kind of cone.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(matrix):
    """Return the palette in CIELAB, as seen through a matrix in linear RGB."""
    s = PALETTE / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    x = np.clip(linear @ np.transpose(matrix), 0, 1) @ XYZ.T / XYZ.sum(1)
    x, y, z = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@pytest.mark.parametrize("eyes", VISION)
def test_any_two_kinds_of_cells_are_distinguishable_with_any_colour_vision(eyes):
    seen = lab(VISION[eyes])
    nearest = min((np.linalg.norm(seen[a] - seen[b]), a, b) for a, b in combinations(range(CODES), 2))
    assert nearest[0] > 15, nearest  # CIE 1976; about 2 is just noticeable

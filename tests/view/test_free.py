"""Invariants of a camera that zooms and pans."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from particle_grid import ParticleGrid
from particle_grid.sim.world import EMPTY, World
from particle_grid.view.camera import Camera
from particle_grid.view.frame import FOLLOWED, PALETTE, SEEN, frame
from particle_grid.view.free import MARGIN, FreeCamera

HEIGHT = 37
WIDTH = 52
SIZE = 160


@pytest.fixture(scope="module")
def env():
    env = ParticleGrid("forage", "discrete", 2, 60, HEIGHT, WIDTH, vision=3, walls=0.1, seed=1)
    env.reset(1)
    return env


def plain(env, camera):
    """Return the whole field in the camera's colours, one pixel per cell: u8[HEIGHT, WIDTH, 3]."""
    whole = Camera(env.world, agent=camera.agent, around=max(HEIGHT, WIDTH), zoom=1)
    return whole.look(env.state)


def test_the_default_zoom_shows_the_whole_field_in_a_margin(env):
    camera = FreeCamera(env.world, agent=70, pixels=SIZE)
    image = camera.look(env.state)
    assert camera.region(env.state) == (0, 0, HEIGHT, WIDTH)
    top, left = (SIZE - 3 * HEIGHT) // 2, (SIZE - 3 * WIDTH) // 2
    field = image[top : top + 3 * HEIGHT, left : left + 3 * WIDTH]
    assert (field == plain(env, camera).repeat(3, 0).repeat(3, 1)).all()
    assert np.count_nonzero((image == MARGIN).all(-1)) == SIZE**2 - 9 * HEIGHT * WIDTH


@given(
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("pan"), st.integers(-200, 200), st.integers(-200, 200)),
            st.tuples(st.just("zoom"), st.integers(-3, 3), st.integers(0, SIZE - 1)),
            st.just(("follow",)),
        ),
        max_size=8,
    )
)
def test_each_pixel_shows_the_cell_that_lies_there_after_any_moves(env, moves):
    camera = FreeCamera(env.world, agent=3, pixels=SIZE)
    for move in moves:
        match move:
            case "pan", rows, columns:
                camera.pan(rows, columns)
            case "zoom", notches, pixel:
                camera.zoom_by(notches, (pixel, SIZE - pixel))
            case _:
                camera.following = True
    image, whole = camera.look(env.state), plain(env, camera)
    row, column, height, width = camera.region(env.state)
    assert image.shape == (SIZE, SIZE, 3)
    for pixel in [(0, 0), (SIZE - 1, SIZE - 1), (SIZE // 2, SIZE // 2), (17, 90)]:
        r, c = (int(np.floor(x)) for x in camera.place_of(pixel))
        if 0 <= r < HEIGHT and 0 <= c < WIDTH:
            assert (image[pixel] == whole[r, c]).all()
            assert row <= r < row + height
            assert column <= c < column + width
        else:
            assert (image[pixel] == MARGIN).all()


@given(pixel=st.tuples(st.integers(40, 119), st.integers(40, 119)), notches=st.integers(1, 6))
def test_the_cell_under_the_mouse_stays_there_when_zooming(env, pixel, notches):
    camera = FreeCamera(env.world, pixels=SIZE, zoom=6)
    camera.pan(0, 0)
    before, zoom = camera.place_of(pixel), camera.zoom
    camera.zoom_by(notches, pixel)
    assert camera.zoom > zoom
    assert camera.place_of(pixel) == pytest.approx(before, abs=1 / zoom)
    camera.zoom_by(-notches, pixel)
    assert camera.zoom == zoom
    assert camera.place_of(pixel) == pytest.approx(before, abs=2 / zoom)


def test_panning_moves_the_picture_by_that_many_pixels_and_stops_at_the_edge(env):
    camera = FreeCamera(env.world, pixels=SIZE, zoom=10)
    camera.pan(-10_000, -10_000)
    first = camera.look(env.state)
    camera.pan(13, 27)
    assert (camera.look(env.state)[:-13, :-27] == first[13:, 27:]).all()
    camera.pan(10_000, 10_000)
    row, column, height, width = camera.region(env.state)
    assert (row + height, column + width) == (HEIGHT, WIDTH)
    assert not (camera.look(env.state) == MARGIN).all(-1).any()


@pytest.mark.parametrize("agent", [0, 30, 75, 119])
def test_the_followed_agent_is_visible_and_centred_away_from_the_edges(env, agent):
    camera = FreeCamera(env.world, pixels=SIZE, zoom=12)
    camera.follow(agent)
    image = camera.look(env.state)
    shown = np.argwhere((image == PALETTE[FOLLOWED]).all(-1))
    assert len(shown) == 12 * 12
    cells = env.state.position[:, agent] - env.vision
    for axis, field in enumerate((HEIGHT, WIDTH)):
        if 7 <= cells[axis] < field - 7:
            assert shown[:, axis].mean() + 0.5 == SIZE / 2


def test_trails_show_remembered_cells_of_the_same_world(env):
    env = ParticleGrid("center", "discrete", 2, 60, HEIGHT, WIDTH, lifespan=0)
    env.reset(0)
    camera = FreeCamera(env.world, pixels=SIZE, trails=4)
    plain = FreeCamera(env.world, pixels=SIZE)
    for _ in range(3):
        camera.remember(env.state)
        env.step(np.full((120, 2), 2, np.int32))
    trailed = (camera.look(env.state) != plain.look(env.state)).any(-1)
    assert trailed.any()
    empty = np.isin(plain.look(env.state)[trailed], PALETTE[[EMPTY, SEEN]])
    assert empty.all()
    for each in (camera, plain):
        each.follow(90)
    assert (camera.look(env.state) == plain.look(env.state)).all()


def test_a_large_field_is_shrunk_until_it_fits(env):
    large = ParticleGrid("group", "discrete", 1, 50, 300, 500)
    large.reset(0)
    camera = FreeCamera(large.world, pixels=SIZE)
    camera.zoom_by(-3, (0, 0))
    assert camera.zoom == 1 / 4
    camera.zoom_by(1, (0, 0))
    assert camera.zoom == 1 / 3
    camera.pan(-1000, -1000)
    image = frame(large.state, large.world, zoom=1 / 3)
    shown = camera.look(large.state)[30 : 30 + 100]
    agents = np.isin(image, PALETTE[3:7]).all(-1)
    assert (shown[agents[:, :SIZE]] != PALETTE[EMPTY]).any(-1).all()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"agent": 120}, "agent=120 is out of range: agents are numbered 0 to 119"),
        ({"zoom": 1.5}, "zoom=1.5 is not possible"),
        ({"zoom": 2}, "zoom=2 is out of range: 3 shows all of the field, 160 one cell"),
        ({"zoom": 161}, "zoom=161 is out of range"),
        ({"trails": -1}, "trails=-1"),
    ],
)
def test_impossible_views_are_refused_at_once(env, options, reason):
    with pytest.raises(ValueError, match=reason):
        FreeCamera(env.world, pixels=SIZE, **options)


@pytest.mark.parametrize("zoom", [1, 40, 320])
def test_a_close_view_of_a_large_field_takes_little_memory(zoom):
    tracemalloc.start()
    camera = FreeCamera(World(height=1024, width=1024), zoom=zoom, pixels=320)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert camera.zoom == zoom
    assert peak < 16 << 20

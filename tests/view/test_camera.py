"""Invariants of the pictures that a camera takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from particle_grid import ParticleGrid
from particle_grid.sim.world import AGENT_1, EMPTY, WALL
from particle_grid.view.camera import Camera, draw_legend
from particle_grid.view.frame import FADES, FOLLOWED, PALETTE, SEEN, TRAIL, frame, scale


def playing(worlds=1, steps=3, **changes):
    env = ParticleGrid("group", "discrete", worlds, 40, 30, 44, vision=3, walls=0.05, seed=1, **changes)
    env.reset(1)
    for step in range(steps):
        env.step(np.random.default_rng(step).integers(0, 3, (env.num_agents, 2), dtype=np.int32))
    return env


def test_a_plain_picture_is_the_frame():
    env = playing(worlds=2)
    for options in ({"world": 1}, {"region": (3, 4, 20, 21)}, {"zoom": 0.5}):
        image = Camera(env.world, **{"zoom": 3} | options).look(env.state)
        assert (image == frame(env.state, env.world, **{"zoom": 3} | options)).all()


@given(agent=st.integers(0, 79), around=st.integers(1, 60))
def test_the_followed_agent_and_the_cells_it_sees_are_highlighted_in_the_picture(agent, around):
    env = playing(worlds=2, steps=0)
    camera = Camera(env.world, agent=agent, around=around, zoom=1)
    image, (row, column, height, width) = camera.look(env.state), camera.region(env.state)
    assert (height, width) == (min(around, 30), min(around, 44)) == image.shape[:2]
    r, c = env.state.position[:, agent].astype(int) - env.vision - (row, column)
    assert (image[r, c] == PALETTE[FOLLOWED]).all()
    v, seen = env.vision, env.observations[agent, :49].reshape(7, 7).copy()
    seen[v, v], seen[seen == EMPTY] = FOLLOWED, SEEN
    for i in range(-v, v + 1):
        for j in range(-v, v + 1):
            if 0 <= r + i < height and 0 <= c + j < width:
                assert (image[r + i, c + j] == PALETTE[seen[v + i, v + j]]).all()
    assert (np.count_nonzero((image == PALETTE[SEEN]).all(-1))) <= 49


def test_trails_cover_the_cells_where_agents_were_and_fade():
    env, steps = playing(steps=0, lifespan=0), 4
    camera, were = Camera(env.world, trails=steps, zoom=1), []
    for step in range(12):
        env.step(np.random.default_rng(step).integers(0, 3, (env.num_agents, 2), dtype=np.int32))
        image = camera.look(env.state)
        row, column = env.state.position.astype(int) - env.vision
        field = env.state.grid[0, 3:33, 3:47]
        were.append({(r, c): code for r, c, code in zip(row, column, env.state.colour, strict=True)})
        for r in range(30):
            for c in range(44):
                ages = [age for age, cells in enumerate(reversed(were[-steps:])) if (r, c) in cells]
                if field[r, c] == EMPTY and ages:
                    code = TRAIL + FADES * (were[-1 - ages[0]][r, c] - AGENT_1) + ages[0] * FADES // steps
                else:
                    code = field[r, c]
                assert (image[r, c] == PALETTE[code]).all()


def test_the_default_zoom_gives_the_largest_picture_that_fits():
    env = playing()
    for pixels, shape in (((100, 100), (60, 88)), ((29, 44), (15, 22)), ((500, 90), (60, 88)), ((9, 9), (6, 9))):
        assert Camera(env.world, pixels=pixels).look(env.state).shape[:2] == shape


def test_a_legend_names_each_colour_below_the_picture_and_wraps():
    env = playing()
    plain, labelled = (Camera(env.world, zoom=5, legend=x).look(env.state) for x in (None, env.legend()))
    assert (labelled[: len(plain)] == plain).all()
    assert env.legend() == {WALL: "wall", 3: "blue", 4: "orange", 5: "yellow", 6: "purple"}
    strip, narrow = labelled[len(plain) :], draw_legend(env.legend(), 90)
    assert len(narrow) > len(strip)
    for image in (strip, narrow):
        used = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
        wanted = {EMPTY, FOLLOWED, *env.legend()}  # without intermediate shades
        assert used == {tuple(PALETTE[code].tolist()) for code in wanted}


def test_the_additional_colours_of_pictures_differ_from_those_of_cells():
    colours = [tuple(colour) for colour in PALETTE.tolist()]
    assert len(set(colours)) == len(colours) == TRAIL + 4 * FADES


def test_shrunk_trails_hide_nothing_else():
    codes = np.array([[TRAIL + 3, EMPTY], [TRAIL + 1, SEEN]], np.uint8)
    assert scale(codes, 0.5) == TRAIL + 1
    codes[1, 1] = WALL
    assert scale(codes, 0.5) == WALL
    codes[0, 1] = FOLLOWED
    assert scale(codes, 0.5) == FOLLOWED


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"agent": 40}, "agent=40 is out of range: agents are numbered 0 to 39"),
        ({"agent": 1, "region": (0, 0, 5, 5)}, "exclude each other"),
        ({"region": (0, 0, 31, 5)}, "does not lie in the 30 x 44 field"),
        ({"around": 0}, "around=0"),
        ({"trails": -1}, "trails=-1"),
        ({"zoom": 1.5}, "zoom=1.5"),
        ({"zoom": 0}, "zoom=0 is not possible"),
        ({"zoom": 1e9}, "choose at most"),
        ({"pixels": (10**9, 10**9)}, "choose at most"),
        ({"region": (1, 2)}, "is not a region: give"),
        ({"region": (0, 0, 2.5, 3)}, "is not a region: give"),
        ({"region": 5}, "region=5 is not a region: give"),
        ({"around": None}, "around=None is out of range"),
        ({"trails": 1.5}, "trails=1.5 is out of range"),
        ({"trails": 10**30}, "trails=1000.* is too large: choose at most 65536 pictures"),
        ({"zoom": "a"}, "zoom=a is not possible"),
        ({"zoom": np.inf}, "zoom=inf is not possible"),
        ({"zoom": np.nan}, "zoom=nan is not possible"),
        ({"zoom": 1e-320}, "zoom=1e-320 is not possible"),
        ({"pixels": (5,)}, r"pixels=\(5,\) is not a size: give \(height, width\)"),
        ({"pixels": 5}, r"pixels=5 is not a size: give \(height, width\)"),
        ({"pixels": (np.nan, 5)}, "pixels=nan is out of range"),
        ({"pixels": (10**9, 10**9)}, "pixels=.* is too large: choose at most 268435456 in all"),
        ({"legend": {99: "x"}}, "legend={99: 'x'} is not a legend: give texts by cell codes"),
        ({"legend": {1: 5}}, "legend={1: 5} is not a legend"),
        ({"legend": "a"}, "legend='a' is not a legend"),
        ({"world": None}, "world=None is out of range"),
        ({"world": 1}, "world=1 is out of range: worlds are numbered 0 to 0"),
        ({"pixels": (90, 0)}, "pixels=0 is out of range: give a whole number of at least 1"),
    ],
)
def test_invalid_cameras_are_refused_at_once(options, reason):
    with pytest.raises(ValueError, match=reason):
        Camera(playing(steps=0).world, **options)

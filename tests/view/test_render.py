"""Rendering as pixels, as text and in a window."""

import re
import sys

import numpy as np
import pytest

from particle_grid import ParticleGrid
from particle_grid.sim import tasks
from particle_grid.sim.world import FOOD
from particle_grid.view.camera import Camera
from particle_grid.view.frame import frame
from particle_grid.view.terminal import ansi
from particle_grid.view.window import Window
from tests.cases import CASES, small


def make(mode, task="forage", action="discrete"):
    return ParticleGrid(task, action, agents=30, height=100, width=150, render_mode=mode)


@pytest.mark.parametrize("action", ["discrete", "continuous"])
@pytest.mark.parametrize("task", tasks.names())
def test_every_task_renders_its_first_world_with_a_legend(task, action):
    env = make("rgb_array", task, action)
    env.reset(0)
    image = env.render()
    assert image.dtype == np.uint8
    assert (image[:400] == frame(env.state, env.world, zoom=4)).all()
    assert len(image) > 400


def read(text):
    """Decode the text plainly: u8[H, W, 3]."""
    rows = []
    for line in text.split("\n"):
        upper = []
        lower = []
        colours = {}
        for layer, *rgb, block in re.findall(r"\x1b\[([34])8;2;(\d+);(\d+);(\d+)m|(▀)", line):
            if block:
                upper.append(colours["3"])
                lower.append(colours["4"])
            else:
                colours[layer] = [int(x) for x in rgb]
        rows += [upper, lower]
    return np.array(rows, np.uint8)


@pytest.mark.parametrize("height", [1, 6, 7])
def test_the_text_of_a_picture_has_all_its_pixels(height):
    image = np.random.default_rng(0).integers(0, 3, (height, 9, 3), dtype=np.uint8) * 127
    text = ansi(image)
    assert (read(text)[:height] == image).all()
    assert all(line.endswith("\x1b[0m") for line in text.split("\n"))


def test_the_text_fits_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    env = make("ansi")
    env.reset(0)
    lines = env.render().split("\n")
    assert len(lines) == 17  # a hundred rows, three to a pixel, two pixels to a line
    assert all(line.count("▀") == 50 for line in lines)


def shown(env):
    """Return the picture in the window of an environment: u8[H, W, 3]."""
    import pygame

    return pygame.surfarray.array3d(env._renderer._window._window.get_surface()).transpose(1, 0, 2)


def test_a_window_shows_the_picture_on_a_virtual_screen_and_closes(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = make("human")
    env.reset(0)
    assert env.render() is None
    import pygame

    assert (shown(env) == env.camera.look(env.state)).all()
    env.camera = Camera(env.world, agent=3)  # of another size
    env.render()
    assert shown(env).shape == (480, 480, 3)
    env.close()
    assert not pygame.display.get_init()


def test_a_window_stays_open_when_another_one_is_closed(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    one, other = make("human"), make("human", "group")
    for env in (one, other):
        env.reset(0)
        env.render()
    for env in (one, other):
        assert (shown(env) == env.camera.look(env.state)).all()
    one.close()
    other.step(np.full((30, 2), 2, np.int32))
    other.render()
    assert (shown(other) == other.camera.look(other.state)).all()
    other.close()
    import pygame

    assert not pygame.display.get_init()


def test_the_remedy_is_named_without_a_screen_pygame_or_a_render_mode(monkeypatch):
    env = make(None)
    env.reset(0)
    with pytest.raises(ValueError, match="build it with render_mode=rgb_array"):
        env.render()
    with pytest.raises(
        ValueError, match=r"There is no render_mode 'film'. Choose one of: rgb_array, ansi, human, or None"
    ):
        make("film")
    monkeypatch.setenv("SDL_VIDEODRIVER", "nonesuch")
    with pytest.raises(OSError, match="record a video instead"):
        Window("").show(np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(ValueError, match=r"particle-grid\[window\]"):
        Window("")


@pytest.mark.parametrize(("task", "action"), CASES)
def test_legends_use_the_words_of_the_task(task, action):
    legend = small(task, action).legend()
    assert "free target" not in legend.values(), "a task that ships names its targets"
    assert legend.get(FOOD) == {"forage": "food", "herd": "pen", "puffer": "cell to fill"}.get(task)

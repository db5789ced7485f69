"""The panel next to the world."""

import numpy as np
import pytest

from particle_grid.view.frame import PALETTE
from particle_grid.view.panel import (
    ALERT,
    BACK,
    BORDER,
    GAIN,
    HEIGHT,
    LOSS,
    WIDTH,
    Facts,
    draw_help,
    draw_panel,
    draw_window,
    window_at,
)

WINDOW = np.random.default_rng(0).integers(0, 7, (11, 11), dtype=np.uint8)
NOTHING = Facts("task", "agent", 3, WINDOW, np.zeros(2, np.float32), [], [], "state")


@pytest.mark.parametrize("side", [3, 11, 31, 129])
@pytest.mark.parametrize("height", [HEIGHT, 640])
def test_the_window_in_the_panel_shows_the_observation_in_palette_colours(side, height):
    window = np.random.default_rng(side).integers(0, 7, (side, side), dtype=np.uint8)
    panel = draw_panel(NOTHING._replace(window=window), height)
    assert panel.shape == (height, WIDTH, 3)
    assert panel.dtype == np.uint8
    top, left = window_at(window)
    size = len(draw_window(window))
    zoom = size // side
    cells = panel[top : top + size, left : left + size].reshape(side, zoom, side, zoom, 3).copy()
    own = cells[side // 2, :, side // 2].copy()
    cells[side // 2, :, side // 2] = own[zoom // 2, zoom // 2]
    assert (cells == PALETTE[window][:, None, :, None]).all()
    if zoom >= 8:
        assert (own[0] == 255).all(), "the agent itself has a white frame"
    assert (panel[top - 1, left : left + size] == BORDER).all()


def drawn(panel, colour):
    """Return where a panel has a colour, bool[HEIGHT, WIDTH]."""
    return (panel == np.array(colour, np.uint8)).all(-1)


def test_each_reward_is_a_bar_from_zero_of_proportional_height():
    rewards = [0.5, -0.25, 0.0, 1.0]
    panel = draw_panel(NOTHING._replace(rewards=rewards))
    gains, losses = drawn(panel, GAIN).sum(0), drawn(panel, LOSS).sum(0)
    columns = slice(WIDTH - 16 - 4, WIDTH - 16)
    assert gains[columns].tolist() == pytest.approx([45 / 2, 0, 0, 45], abs=2)
    assert losses[columns].tolist() == pytest.approx([0, 45 / 4, 0, 0], abs=2)  # the line at 0 covers it
    assert gains.sum() + losses.sum() == gains[columns].sum() + losses[columns].sum()
    many = draw_panel(NOTHING._replace(rewards=[-1.0] + 1000 * [0.5]))
    assert not drawn(many, LOSS).any()  # the oldest are no longer shown


def test_the_action_points_in_the_agents_direction():
    still = draw_panel(NOTHING)
    for action in ((-1, 0), (1, 0), (0, -1), (0.5, 1)):
        moved = draw_panel(NOTHING._replace(action=np.array(action, np.float32)))
        pad = np.s_[310:375, 16:81]
        changed = np.argwhere((moved[pad] == 255).all(-1)).mean(0) - np.argwhere((still[pad] == 255).all(-1)).mean(0)
        assert (np.sign(changed.round()) == np.sign(action)).all()


def test_six_lines_fit_above_the_state():
    panel = draw_panel(NOTHING._replace(lines=[("a label", "+1.000")] * 6))
    assert drawn(panel[HEIGHT - 40 : HEIGHT - 28], BACK).all()  # between the last line and the state
    assert not drawn(panel[HEIGHT - 60 : HEIGHT - 40], BACK).all()


def test_an_alert_is_visible():
    assert not drawn(draw_panel(NOTHING), ALERT).any()
    assert drawn(draw_panel(NOTHING._replace(alert="respawned")), ALERT).sum() > 500


def test_help_has_the_size_of_the_picture_below_it():
    picture = np.full((HEIGHT, 600, 3), 200, np.uint8)
    helped = draw_help(picture, [("H", "this help"), ("Q", "end")], {3: "agent"})
    assert helped.shape == picture.shape
    assert (helped[0, 0] == 50).all()
    assert drawn(helped, PALETTE[3]).any()

"""The panel next to a world in which one agent is steered: what the agent sees, does and earns."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from particle_grid.view.camera import draw_legend
from particle_grid.view.frame import FOLLOWED, PALETTE, paint, scale
from particle_grid.view.free import MARGIN

WIDTH, HEIGHT = 272, 624  # pixels; it may be higher
EDGE = 16  # pixels of margin on each side
SIGHT, PAD = 240, 64  # pixels: maximum size of the window, size of the square with the action
PLOT = 56  # pixels: height of the plot of rewards
LINE = 19  # pixels from one line of text to the next
SPAN = WIDTH - 2 * EDGE  # rewards that are shown, one per pixel
BACK = tuple(MARGIN.tolist())
DARK, GREY = (18, 18, 24), (70, 70, 78)
BORDER = (138, 138, 154)  # of what the agent sees
DIM, TEXT = (150, 150, 160), (235, 235, 240)
ALERT = (255, 120, 70)
GAIN, LOSS = (0, 170, 120), (213, 94, 0)  # bars of rewards


class Facts(NamedTuple):
    """The content of a panel."""

    title: str
    agent: str
    colour: int  # cell code of the agent
    window: np.ndarray  # u8[side, side] cell codes, the agent in the middle
    action: np.ndarray  # f32[2] in [-1, 1]: row, column
    rewards: Sequence[float]  # the most recent ones in [-1, 1], the latest at the end
    lines: Sequence[tuple[str, str]]  # labels and values
    state: str
    alert: str = ""  # shown instead of the state, in a bright colour


@functools.cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return the font of the panel in a size."""
    return ImageFont.load_default(size)


def draw_panel(facts: Facts, height: int = HEIGHT) -> np.ndarray:
    """Return the panel, RGB u8[height, WIDTH, 3]."""
    image = Image.new("RGB", (WIDTH, height), BACK)
    draw = ImageDraw.Draw(image)
    _text(draw, EDGE, 10, facts.title, DIM, 12)
    draw.rectangle((EDGE, 33, EDGE + 11, 44), fill=_rgb(facts.colour))
    _text(draw, EDGE + 20, 30, facts.agent, TEXT, 15)
    top, left = window_at(facts.window)
    sight = draw_window(facts.window)
    side = len(sight)
    draw.rectangle(
        (left - 2, top - 2, left + side + 1, top + side + 1), outline=ALERT if facts.alert else BORDER, width=2
    )
    image.paste(Image.fromarray(sight), (left, top))
    y = 56 + SIGHT + 14
    _action(draw, facts.action, y)
    _rewards(image, draw, facts.rewards, y + PAD + 14)
    y += PAD + 14 + PLOT + LINE + 12
    for label, value in facts.lines:
        _text(draw, EDGE, y, label, DIM, 13)
        _text(draw, WIDTH - EDGE, y, value, TEXT, 13, "ra")
        y += LINE
    _text(draw, EDGE, height - 26, facts.alert or facts.state, ALERT if facts.alert else TEXT, 13)
    _text(draw, WIDTH - EDGE, height - 26, "H: help", DIM, 13, "ra")
    return np.asarray(image)


def window_at(window: np.ndarray) -> tuple[int, int]:
    """Return the row and column of the window's upper left pixel in the panel."""
    return 56 + (SIGHT - len(draw_window(window))) // 2, (WIDTH - len(draw_window(window))) // 2


def draw_window(window: np.ndarray) -> np.ndarray:
    """Return the window as large as it fits, with a square of pixels per cell and a frame around the agent's own."""
    zoom = max(SIGHT // len(window), 1)
    picture = paint(scale(window, zoom))
    first = len(window) // 2 * zoom
    own = picture[first : first + zoom, first : first + zoom]
    line = zoom // 8  # pixels; a cell of less than 8 has no room for a frame
    inside = own[line : zoom - line, line : zoom - line].copy()
    if line:
        own[:] = PALETTE[FOLLOWED]
        own[line : zoom - line, line : zoom - line] = inside
    return picture


def draw_help(picture: np.ndarray, lines: Sequence[tuple[str, str]], legend: Mapping[int, str]) -> np.ndarray:
    """Return the picture u8[H, W, 3], darkened, with a table of keys and what they do, and labels of cell codes."""
    image = Image.fromarray(picture // 4)
    draw = ImageDraw.Draw(image)
    widths = [max(font(14).getlength(text) for text in column) for column in zip(*lines, strict=True)]
    left = (image.width - sum(widths) - EDGE) / 2
    top = (image.height - len(lines) * (LINE + 5)) / 2
    for k, (key, what) in enumerate(lines):
        _text(draw, left + widths[0], top + k * (LINE + 5), key, TEXT, 14, "ra")
        _text(draw, left + widths[0] + EDGE, top + k * (LINE + 5), what, DIM, 14)
    strip = draw_legend(legend, image.width)
    image.paste(Image.fromarray(strip), (0, image.height - len(strip)))
    return np.asarray(image)


def _action(draw: ImageDraw.ImageDraw, action: np.ndarray, y: int) -> None:
    """Draw the action as an arrow in the square of possible actions, and as numbers."""
    half = PAD // 2
    middle = np.array((y + half, EDGE + half))
    draw.rectangle((EDGE, y, EDGE + PAD, y + PAD), fill=DARK)
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            r, c = (middle + (half - 8) * np.array((row, column))).tolist()
            draw.rectangle((c - 1, r - 1, c, r), fill=GREY)
    r, c = (middle + (half - 8) * action).round().astype(int).tolist()
    draw.line((*middle[::-1].tolist(), c, r), fill=_rgb(FOLLOWED), width=3)
    draw.ellipse((c - 4, r - 4, c + 4, r + 4), fill=_rgb(FOLLOWED))
    _text(draw, EDGE + PAD + 14, y + 1, "action", DIM, 13)
    for k, name in enumerate(("row", "column")):
        _text(draw, EDGE + PAD + 14, y + 1 + (k + 1) * LINE, name, DIM, 13)
        _text(draw, WIDTH - EDGE, y + 1 + (k + 1) * LINE, f"{action[k] + 0.0:+.2f}", TEXT, 13, "ra")


def _rewards(image: Image.Image, draw: ImageDraw.ImageDraw, rewards: Sequence[float], y: int) -> None:
    """Draw a bar for each of the last rewards, up or down from 0, scaled to the largest of them."""
    _text(draw, EDGE, y, "reward", DIM, 13)
    _text(draw, WIDTH - EDGE, y, f"{(rewards[-1] if rewards else 0) + 0.0:+.3f}", TEXT, 13, "ra")
    shown = np.array(rewards)[-SPAN:]
    high, low = max(shown.max(initial=0), 0.01), shown.min(initial=0)
    ends, zero = (np.rint(PLOT * (high - x) / (high - low)) for x in (shown, 0))
    plot, row = np.full((PLOT, SPAN, 3), DARK, np.uint8), np.arange(PLOT)[:, None]
    bars = plot[:, SPAN - len(shown) :]
    bars[(ends <= row) & (row < zero)] = GAIN
    bars[(zero <= row) & (row < ends)] = LOSS
    plot[min(int(zero), PLOT - 1)] = GREY
    image.paste(Image.fromarray(plot), (EDGE, y + LINE + 2))


def _text(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, fill: tuple[int, ...], size: int, anchor: str = "la"
) -> None:
    draw.text((x, y), text, font=font(size), fill=fill, anchor=anchor)


def _rgb(code: int) -> tuple[int, ...]:
    return tuple(PALETTE[code].tolist())

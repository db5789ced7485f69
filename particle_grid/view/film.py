"""Frames of a film: pictures side by side, with what they show in words."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from particle_grid.view.camera import draw_legend
from particle_grid.view.frame import EMPTY, PALETTE, TEXT_SHADES

EDGE, GAP = 10, 16  # pixels around everything, and between pictures
BRIGHT, DIM = TEXT_SHADES[-1], TEXT_SHADES[1]
BORDER = TEXT_SHADES[0]
BACK = PALETTE[EMPTY]


class Words(NamedTuple):
    """What a film says.

    title: in the first line. purpose: in the second, left out if empty. captions: one above each picture. legend:
    labels of cell codes, below the pictures.
    """

    title: str
    purpose: str
    captions: Sequence[str]
    legend: Mapping[int, str]


def draw_frame(pictures: Sequence[np.ndarray], words: Words, clock: str) -> np.ndarray:
    """Return a frame RGB u8[H, W, 3] with pictures of one size, u8[h, w, 3] each, and a clock at the upper right."""
    height, width = pictures[0].shape[:2]
    across = 2 * EDGE + len(pictures) * width + (len(pictures) - 1) * GAP
    legend = draw_legend(words.legend, across) if words.legend else np.zeros((EDGE, across, 3), np.uint8) + BACK
    lines = [(words.title, BRIGHT, 17)] + [(words.purpose, DIM, 13)] * bool(words.purpose)
    top = EDGE + sum(size + 8 for _, _, size in lines) + 22
    image = Image.new("RGB", (across, top + height + 6), tuple(BACK.tolist()))
    draw = ImageDraw.Draw(image)
    y = EDGE
    for text, shade, size in lines:
        draw.text((EDGE, y), text, font=ImageFont.load_default(size), fill=tuple(shade.tolist()))
        y += size + 8
    draw.text((across - EDGE, EDGE), clock, font=ImageFont.load_default(17), fill=tuple(BRIGHT.tolist()), anchor="ra")
    for k, (picture, caption) in enumerate(zip(pictures, words.captions, strict=True)):
        left = EDGE + k * (width + GAP)
        draw.text((left, y), caption, font=ImageFont.load_default(13), fill=tuple(BRIGHT.tolist()))
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=tuple(BORDER.tolist()))
        image.paste(Image.fromarray(picture), (left, top))
    return np.concatenate([np.asarray(image), legend])

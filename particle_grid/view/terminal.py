"""A picture as text for a terminal with 24-bit colours, two pixels per character, one above the other."""

import numpy as np

UPPER, RESET = "\u2580", "\x1b[0m"  # a character whose upper half has the colour of the text


def ansi(image: np.ndarray) -> str:
    """Return RGB u8[H, W, 3] as ceil(H / 2) lines of W half blocks, with colour codes only where colours change."""
    if len(image) % 2:
        image = np.concatenate([image, np.zeros_like(image[:1])])
    lines = []
    for upper, lower in zip(image[::2].tolist(), image[1::2].tolist(), strict=True):
        line, before = [], (None, None)
        for top, bottom in zip(upper, lower, strict=True):
            if top != before[0]:
                line.append("\x1b[38;2;{};{};{}m".format(*top))
            if bottom != before[1]:
                line.append("\x1b[48;2;{};{};{}m".format(*bottom))
            line.append(UPPER)
            before = top, bottom
        lines.append("".join(line) + RESET)
    return "\n".join(lines)

"""Pictures that agents can form: cells u8[height, width], 0 for none, else 1.. for the agents' colours."""

import itertools
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

from particle_grid.support.jit import kernel

MAX_COLOURS = 4
# What a colour of an image is matched with, in RGB: one anchor for each colour of agents.
ANCHORS = np.array([(213, 94, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)], np.int32)
FORMATS = "PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP"  # that Pillow reads by itself; EPS would run a program
MOST_PIXELS = 1 << 24  # of an image: compressed, it may be a thousand times smaller than what it takes in memory
TILE = 512  # pixels along each side of what is matched with colours at once


def of_text(text: str, colours: int) -> np.ndarray:
    """Letters in a pixel font, one cell a pixel, coloured in turn. Raises ValueError for a text without any."""
    font, letters = ImageFont.load_default_imagefont(), [letter for letter in text if not letter.isspace()]
    strange = sorted({letter for letter in letters if not 32 < ord(letter) < 127})
    if not letters or strange:
        reason = f"has characters without a pixel font: {' '.join(strange)}" if strange else "has no letters"
        raise ValueError(f"text={text!r} {reason}. Use plain Latin letters, digits and signs, or image=PATH.")
    columns: list[np.ndarray] = []
    for letter in text:
        mask = font.getmask(letter, "1")
        glyph = np.array(mask, np.uint8).reshape(mask.size[1], mask.size[0]) > 0
        inked = np.flatnonzero(glyph.any(0))
        glyph = glyph[:, inked[0] : inked[-1] + 1] if len(inked) else np.zeros((len(glyph), 2), bool)
        number = len([c for c in text[: len(columns) // 2] if not c.isspace()])
        columns += [glyph * np.uint8(1 + number % colours), np.zeros((len(glyph), 1), np.uint8)]
    return _trim(np.concatenate(columns, 1))


def of_image(path: str | Path, colours: int) -> np.ndarray:
    """Pixels of an image file, each matched with the nearest of `colours` colours; transparent ones are no part of the
    picture, nor, in an image without transparency, are those of the colour of its corner.

    Raises ValueError for a file that is missing, is no image, has more than MOST_PIXELS, or shows nothing."""
    image = _load(path)
    shape = image.height, image.width
    opaque, distinct, cells = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, np.uint8)
    background = np.asarray(image.crop((0, 0, 1, 1)), np.int32)[0, 0, :3]  # where all is opaque
    for top, left in itertools.product(range(0, shape[0], TILE), range(0, shape[1], TILE)):
        box = left, top, min(left + TILE, image.width), min(top + TILE, image.height)
        rgba = np.asarray(image.crop(box), np.int32)
        place = np.s_[top : top + TILE, left : left + TILE]
        opaque[place] = rgba[..., 3] >= 128
        distinct[place] = np.abs(rgba[..., :3] - background).sum(-1) > 96
        cells[place] = 1 + ((rgba[..., None, :3] - ANCHORS[:colours]) ** 2).sum(-1).argmin(-1)
    cells[~(distinct if opaque.all() else opaque)] = 0
    if not cells.any():
        raise ValueError(f"image={path} shows nothing: all of it is transparent or of one colour.")
    return _trim(cells)


def _load(path: str | Path) -> Image.Image:
    """Return an image file as RGBA. Raises ValueError if it cannot be read or is too large to decode."""
    if not Path(path).exists():
        raise ValueError(f"image={path}: there is no such file.")
    if not Path(path).is_file():  # a pipe would be waited for
        raise ValueError(f"image={path} is not a file: give the path of a PNG file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about sizes that are refused below
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height <= MOST_PIXELS:
                    return image.convert("RGBA")
                size = f"{image.width} x {image.height}"
    except Exception as error:  # a damaged file fails in any part of a decoder, with any of a dozen exceptions
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(f"image={path} cannot be read as an image ({reason}). Use a PNG file.") from None
    raise ValueError(f"image={path} has {size} pixels, more than {MOST_PIXELS}: make the image smaller.")


def _trim(picture: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def fit(picture: np.ndarray, cells: int, height: int, width: int, shrink: bool) -> np.ndarray:
    """The picture at the largest scale that fits `height` x `width` with at most about `cells` coloured cells.

    Pixels are repeated a whole number of times, which keeps the strokes of letters even. A picture that is too large
    leaves pixels out if it may `shrink`. Raises ValueError if it may not, or if nothing would be left."""
    rows, columns = picture.shape
    room = min(height / rows, width / columns)
    if room < 1 and not shrink:
        raise ValueError(
            f"It needs {rows} x {columns} cells, and there is room for {height} x {width}: use a larger world."
        )
    scale = min(room, np.sqrt(cells / np.count_nonzero(picture)))
    scale = np.floor(scale) if scale >= 1 else scale if shrink else 1
    to_rows, to_columns = max(1, int(scale * rows)), max(1, int(scale * columns))
    scaled = picture[np.ix_(np.arange(to_rows) * rows // to_rows, np.arange(to_columns) * columns // to_columns)]
    if not scaled.any():
        raise ValueError(
            f"Of its {rows} x {columns} pixels nothing is left at {to_rows} x {to_columns}: use a larger world."
        )
    return scaled


@kernel
def distance_to(targets, out):
    """Writes into out u16[height, width] how many moves (straight or diagonal) each cell is from targets bool."""
    height, width = targets.shape
    far = np.uint16(65535)
    for r in range(height):
        for c in range(width):
            out[r, c] = np.uint16(0) if targets[r, c] else far
    for sweep in range(2):  # down and right, then up and left: exact for moves of a chess king
        step = 1 if sweep == 0 else -1
        for a in range(height):
            r = a if sweep == 0 else height - 1 - a
            for b in range(width):
                c = b if sweep == 0 else width - 1 - b
                best = np.int64(out[r, c])
                for d_r, d_c in ((-1, -1), (-1, 0), (-1, 1), (0, -1)):
                    y, x = r + step * d_r, c + step * d_c
                    if 0 <= y < height and 0 <= x < width:
                        best = min(best, np.int64(out[y, x]) + 1)
                out[r, c] = np.uint16(best)

"""Pictures that agents can form: cells u8[height, width], 0 for no target, otherwise 1 + the colour of its agents."""

import itertools
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

from particle_grid.support.errors import UserError
from particle_grid.support.jit import kernel

# The colours, in RGB, that the colours of an image are matched with: one for each colour of agents.
ANCHORS = np.array([(213, 94, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)], np.int32)
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP")  # those that Pillow decodes itself; for EPS it runs a program
MOST_PIXELS = 1 << 24  # pixels of an image: a compressed file may be a thousand times smaller than the image in memory
TILE = 512  # pixels along each side of the part whose colours are matched at a time
OPAQUE = 1 << 7  # least alpha of a pixel that belongs to the picture
DISTINCT = 96  # least difference from the background, summed over RGB, if an image has no transparency


def of_text(text: str, colours: int) -> np.ndarray:
    """Return letters in a pixel font, one cell per pixel, with colours in turn.

    Raises:
        UserError: if the text has no letters, or letters that the font lacks.
    """
    font, letters = ImageFont.load_default_imagefont(), [letter for letter in text if not letter.isspace()]
    strange = sorted({letter for letter in letters if not 32 < ord(letter) < 127})
    if not letters or strange:
        reason = f"has characters without a pixel font: {' '.join(strange)}" if strange else "has no letters"
        raise UserError(f"text={text!r} {reason}. Use plain Latin letters, digits and signs, or image=PATH.")
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
    """Return the pixels of an image file, each matched with the nearest of `colours` colours.

    Transparent pixels do not belong to the picture. In an image without transparency, neither do pixels of the colour
    of its upper left corner.

    Raises:
        UserError: if the file is missing, is not an image, has more than MOST_PIXELS pixels, or shows nothing.
    """
    image = _load(path)
    cells = np.zeros((image.height, image.width), np.uint8)
    opaque, distinct = np.zeros(cells.shape, bool), np.zeros(cells.shape, bool)
    background = np.asarray(image.crop((0, 0, 1, 1)), np.int32)[0, 0, :3]  # where everything is opaque
    for top, left in itertools.product(range(0, image.height, TILE), range(0, image.width, TILE)):
        box = left, top, min(left + TILE, image.width), min(top + TILE, image.height)
        rgba = np.asarray(image.crop(box), np.int32)
        place = np.s_[top : top + TILE, left : left + TILE]
        opaque[place] = rgba[..., 3] >= OPAQUE
        distinct[place] = np.abs(rgba[..., :3] - background).sum(-1) > DISTINCT
        cells[place] = 1 + ((rgba[..., None, :3] - ANCHORS[:colours]) ** 2).sum(-1).argmin(-1)
    cells[~(distinct if opaque.all() else opaque)] = 0
    if not cells.any():
        raise UserError(f"image={path} shows nothing: all of it is transparent or of one colour.")
    return _trim(cells)


def _load(path: str | Path) -> Image.Image:
    """Return an image file as RGBA."""
    if not Path(path).exists():
        raise UserError(f"image={path}: there is no such file.")
    if not Path(path).is_file():  # reading a pipe would block
        raise UserError(f"image={path} is not a file: give the path of a PNG file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from Pillow, about sizes that are rejected below
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height <= MOST_PIXELS:
                    return image.convert("RGBA")
                size = f"{image.width} x {image.height}"
    except Exception as error:  # decoders fail on damaged files with any of a dozen exceptions
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(f"image={path} cannot be read as an image ({reason}). Use a PNG file.") from None
    raise UserError(f"image={path} has {size} pixels, more than {MOST_PIXELS}: make the image smaller.")


def _trim(picture: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def fit(picture: np.ndarray, cells: int, height: int, width: int, shrink: bool) -> np.ndarray:
    """Return the picture at the largest scale that fits `height` x `width` with at most about `cells` coloured cells.

    Pixels are repeated a whole number of times, which keeps the strokes of letters even. If `shrink` is set, a picture
    that is too large leaves out pixels.

    Raises:
        UserError: if the picture is too large and may not shrink, or if nothing would be left of it.
    """
    rows, columns = picture.shape
    room = min(height / rows, width / columns)
    if room < 1 and not shrink:
        raise UserError(
            f"It needs {rows} x {columns} cells, and there is room for {height} x {width}: use a larger world."
        )
    scale = min(room, np.sqrt(cells / np.count_nonzero(picture)))
    scale = np.floor(scale) if scale >= 1 else scale if shrink else 1
    to_rows, to_columns = max(1, int(scale * rows)), max(1, int(scale * columns))
    scaled = picture[np.ix_(np.arange(to_rows) * rows // to_rows, np.arange(to_columns) * columns // to_columns)]
    if not scaled.any():
        raise UserError(
            f"None of its {rows} x {columns} pixels would be left at {to_rows} x {to_columns}: use a larger world."
        )
    return scaled


@kernel
def distance_to(targets, out):
    """Write into out u16[height, width] how many moves, straight or diagonal, each cell is from targets bool."""
    height, width = targets.shape
    far = np.uint16(65535)
    for r in range(height):
        for c in range(width):
            out[r, c] = np.uint16(0) if targets[r, c] else far
    for sweep in range(2):  # down and right, then up and left: exact for the moves of a chess king
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

"""Frames -> GIF."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from particle_grid.view.frame import PALETTE


def check_gif(path: str | Path) -> Path:
    """The path of a GIF that can be written, as far as can be told beforehand; raises ValueError for any other."""
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"{path} is no name for a GIF: let it end in .gif.")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}. Make it first.")
    if path.is_dir():
        raise ValueError(f"{path} cannot be written: it is a folder. Choose another name.")
    return path


def write_gif(path: str | Path, frames: Iterable[np.ndarray], fps: float = 20) -> None:
    """Writes RGB frames u8[H, W, 3], all of one size, as an endless GIF in the colours of `frame`.

    fps: frames per second, to a hundredth of a second each. Raises ValueError for a path, frames or a rate that make no
    GIF, and OSError where it cannot be written; then no half-written file is left."""
    path = check_gif(path)
    if not 1 <= fps <= 50:
        raise ValueError(f"fps={fps} is out of range: viewers show 1 to 50 frames per second of a GIF.")
    # A fixed palette without dithering keeps equal cells equal, and with that the file small.
    palette = Image.new("P", (1, 1))
    palette.putpalette(PALETTE.tobytes())
    images = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    if len({image.size for image in images}) != 1:
        raise ValueError(f"{path} cannot be made of {len(images)} frames: give at least one, and all of one size.")
    data = io.BytesIO()
    images[0].save(data, "GIF", save_all=True, append_images=images[1:], duration=10 * round(100 / fps), loop=0)
    opened = False
    try:
        with path.open("wb") as file:
            opened = True
            file.write(data.getvalue())
    except OSError as error:
        if opened:  # what was there before is gone, and what is there now is half of something
            path.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written ({error.strerror}).") from error

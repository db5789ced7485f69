"""Writing frames as a GIF or MP4."""

import contextlib
import io
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from particle_grid.support import atomic, optional
from particle_grid.support.errors import UserError
from particle_grid.view.frame import PALETTE, TEXT_SHADES

RATES = {".gif": 50, ".mp4": 240}  # most frames per second that viewers show
LONGEST = {".gif": 65535, ".mp4": 16384}  # most pixels along a side that the formats allow


def check_video(path: str | Path, fps: float = 20) -> Path:
    """Return the path of a video, or raise UserError if it is already certain that it cannot be written."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in RATES:
        raise UserError(f"{path} does not name a video: use a name that ends in {' or '.join(RATES)}.")
    if not 1 <= fps <= RATES[kind]:
        raise UserError(f"fps={fps} is out of range: viewers show 1 to {RATES[kind]} frames per second of a {kind}.")
    atomic.check_place(path)
    if kind == ".mp4":
        _ffmpeg()
    return path


class Video:
    """A video file, as a context manager: `add` frames within it; the file appears when it exits without an error.

    Args:
        path: a .gif or .mp4 file.
        fps: frames per second, which a GIF rounds to hundredths of a second per frame.

    Raises:
        UserError: if path, rate or frames do not make a video.
        OSError: if the file cannot be written. An older file is kept then.
    """

    def __init__(self, path: str | Path, fps: float = 20) -> None:
        self.path, self.fps = check_video(path, fps), fps
        self.count = 0
        self._part = atomic.temporary_path(self.path)
        self._shape: tuple[int, ...] = ()
        self._images: list[Image.Image] = []  # frames of a GIF
        self._encoder: subprocess.Popen[bytes] | None = None  # encoder of an MP4

    def add(self, frame: np.ndarray) -> None:
        """Add a frame, RGB u8[H, W, 3], of the same size as the others."""
        check_frame(frame, LONGEST[self.path.suffix.lower()])
        if self.count and frame.shape != self._shape:
            raise UserError(f"A frame of {frame.shape} follows frames of {self._shape}: use one size for all.")
        self._shape, self.count = frame.shape, self.count + 1
        if self.path.suffix.lower() == ".gif":
            self._images.append(in_palette(frame))
            return
        even = np.pad(frame, [(0, size % 2) for size in frame.shape[:2]] + [(0, 0)])  # the codec needs even sizes
        if self._encoder is None:
            self._encoder = self._encode(*even.shape[:2])
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(even.data)
        except OSError:
            raise OSError(f"{self.path} cannot be written: the encoder stopped. Is the disk full?") from None

    def _encode(self, height: int, width: int) -> "subprocess.Popen[bytes]":
        """Start the encoder, which reads frames of this size."""
        options = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {self.fps} -i - -an".split()
        options += ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-loglevel", "quiet", "-y"]
        return subprocess.Popen([_ffmpeg(), *options, str(self._part)], stdin=subprocess.PIPE)

    def _stop(self) -> int:
        """End the encoder, if there is one, and return its exit code."""
        if self._encoder is None:
            return 0
        assert self._encoder.stdin is not None
        with contextlib.suppress(OSError):  # it has already stopped, as its exit code shows
            self._encoder.stdin.close()
        return self._encoder.wait()

    def _finish(self) -> None:
        if not self.count:
            raise UserError(f"{self.path} has no frames: add at least one.")
        if self._stop():
            raise OSError("the encoder failed; is the disk full?")
        if self._images:
            self._part.write_bytes(encode_gif(self._images, self.fps))
        atomic.replace(self._part, self.path)

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                self._stop()
        except OSError as failure:
            raise OSError(f"{self.path} cannot be written ({failure.strerror or failure}).") from failure
        finally:
            self._part.unlink(missing_ok=True)


def check_frame(frame: Any, longest: int) -> None:
    """Raise UserError unless `frame` is a picture with at most `longest` pixels along a side."""
    is_array = isinstance(frame, np.ndarray)
    if not (is_array and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3):
        what = f"{frame.dtype} {list(frame.shape)}" if is_array else f"a {type(frame).__name__}"
        raise UserError(f"A frame of a video is {what}: give RGB, uint8 [height, width, 3].")
    height, width = frame.shape[:2]
    if not 1 <= min(height, width) <= max(height, width) <= longest:
        raise UserError(
            f"A frame of {height} x {width} pixels does not fit into a video: give 1 to {longest} along a side."
        )


def in_palette(frame: np.ndarray) -> Image.Image:
    """Return a frame u8[H, W, 3] in the colours of pictures and of words.

    The palette is fixed and there is no dithering, so equal cells stay equal and a GIF stays small.
    """
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([PALETTE, TEXT_SHADES]).tobytes())
    return Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)


def encode_gif(images: list[Image.Image], fps: float) -> bytes:
    """Return an endless GIF of images `in_palette`; fps is rounded to hundredths of a second per frame."""
    data, pause = io.BytesIO(), 10 * round(100 / fps)
    images[0].save(data, "GIF", save_all=True, append_images=images[1:], duration=pause, loop=0)
    return data.getvalue()


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float = 20) -> None:
    """Write frames to a file, see `Video`."""
    with Video(path, fps) as video:
        for frame in frames:
            video.add(frame)


def _ffmpeg() -> str:
    """Return the program of the encoder."""
    path: str = optional.load("imageio_ffmpeg", "video", "A video other than a .gif").get_ffmpeg_exe()
    return path

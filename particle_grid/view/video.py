"""Frames -> GIF or MP4."""

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
from particle_grid.view.frame import PALETTE

RATES = {".gif": 50, ".mp4": 240}  # most frames per second, of what viewers show
LONGEST = {".gif": 65535, ".mp4": 16384}  # pixels along a side, of what the formats take


def check_video(path: str | Path, fps: float = 20) -> Path:
    """The path of a video that can be written, as far as can be told beforehand; raises ValueError for any other."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in RATES:
        raise ValueError(f"{path} is no name for a video: let it end in {' or '.join(RATES)}.")
    if not 1 <= fps <= RATES[kind]:
        raise ValueError(f"fps={fps} is out of range: viewers show 1 to {RATES[kind]} frames per second of a {kind}.")
    atomic.check_place(path)
    if kind == ".mp4":
        _ffmpeg()
    return path


class Video:
    """A file in the making, as a context manager: `add` frames in it; leaving it without an error puts the file there.

    fps: frames per second, of a GIF to a hundredth of a second each. Raises ValueError for a path, a rate or frames
    that make no video, and OSError where it cannot be written; then what was there before is still there.
    """

    def __init__(self, path: str | Path, fps: float = 20) -> None:
        self.path, self.fps, self.count = check_video(path, fps), fps, 0
        self._part = atomic.beside(self.path)
        self._shape: tuple[int, ...] = ()
        self._images: list[Image.Image] = []  # of a GIF
        self._encoder: subprocess.Popen[bytes] | None = None  # of an MP4

    def add(self, frame: np.ndarray) -> None:
        """One more frame, RGB u8[H, W, 3], as large as the others."""
        check_frame(frame, LONGEST[self.path.suffix.lower()])
        if self.count and frame.shape != self._shape:
            raise ValueError(f"A frame of {frame.shape} follows frames of {self._shape}: let all be of one size.")
        self._shape, self.count = frame.shape, self.count + 1
        if self.path.suffix.lower() == ".gif":
            self._images.append(in_palette(frame))
            return
        even = np.pad(frame, [(0, size % 2) for size in frame.shape[:2]] + [(0, 0)])  # the codec takes them by two
        if self._encoder is None:
            self._encoder = self._encode(*even.shape[:2])
        assert self._encoder.stdin is not None
        try:
            self._encoder.stdin.write(even.data)
        except OSError:
            raise OSError(f"{self.path} cannot be written: the encoder stopped. Is the disk full?") from None

    def _encode(self, height: int, width: int) -> "subprocess.Popen[bytes]":
        """Starts the encoder, which reads frames of this size."""
        options = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {self.fps} -i - -an".split()
        options += ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-loglevel", "quiet", "-y"]
        return subprocess.Popen([_ffmpeg(), *options, str(self._part)], stdin=subprocess.PIPE)

    def _stop(self) -> int:
        """Ends the encoder, if there is one; returns 0 if all went well."""
        if self._encoder is None:
            return 0
        assert self._encoder.stdin is not None
        with contextlib.suppress(OSError):  # it has stopped before: its code tells
            self._encoder.stdin.close()
        return self._encoder.wait()

    def _finish(self) -> None:
        if not self.count:
            raise ValueError(f"{self.path} cannot be made of 0 frames: give at least one.")
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
    """Raises ValueError for what is no picture with up to so many pixels along a side."""
    is_array = isinstance(frame, np.ndarray)
    if not (is_array and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3):
        what = f"{frame.dtype} {list(frame.shape)}" if is_array else f"a {type(frame).__name__}"
        raise ValueError(f"A video cannot be made where a frame is {what}: give RGB, uint8 [height, width, 3].")
    height, width, _ = frame.shape
    if not 1 <= min(height, width) <= max(height, width) <= longest:
        raise ValueError(f"A frame of {height} x {width} pixels makes no video: give 1 to {longest} along a side.")


def in_palette(frame: np.ndarray) -> Image.Image:
    """A frame u8[H, W, 3] in the colours of pictures: fixed and without dithering, so that equal cells stay equal and a
    GIF small."""
    palette = Image.new("P", (1, 1))
    palette.putpalette(PALETTE.tobytes())
    return Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)


def encode_gif(images: list[Image.Image], fps: float) -> bytes:
    """An endless GIF of images `in_palette`; fps to a hundredth of a second a frame."""
    data, pause = io.BytesIO(), 10 * round(100 / fps)
    images[0].save(data, "GIF", save_all=True, append_images=images[1:], duration=pause, loop=0)
    return data.getvalue()


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float = 20) -> None:
    """Writes frames that are there already: see `Video`."""
    with Video(path, fps) as video:
        for frame in frames:
            video.add(frame)


def _ffmpeg() -> str:
    """The program of the encoder. Raises ValueError where it is not installed."""
    path: str = optional.load("imageio_ffmpeg", "video", "A video that is no .gif").get_ffmpeg_exe()
    return path

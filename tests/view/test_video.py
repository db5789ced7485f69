"""Invariants of videos."""

import os
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from particle_grid.sim.world import CODES
from particle_grid.view.frame import PALETTE, scale
from particle_grid.view.replay import check_page
from particle_grid.view.video import Video, check_video, write_video
from tests.support.test_atomic import no_file_beyond


def frames(count=5, height=20, width=30):
    return PALETTE[np.random.default_rng(0).integers(0, CODES, (count, height, width))]


def test_a_gif_holds_every_frame_unaltered_at_its_rate(tmp_path):
    write_video(tmp_path / "a.gif", iter(frames()), fps=25)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0
        for k, expected in enumerate(frames()):
            gif.seek(k)
            assert gif.info["duration"] == 40
            assert (np.asarray(gif.convert("RGB")) == expected).all()


def test_a_gif_of_a_still_world_is_small(tmp_path):
    write_video(tmp_path / "a.gif", [frames(1)[0]] * 100)
    write_video(tmp_path / "b.gif", frames(1))
    assert (tmp_path / "a.gif").stat().st_size < 1.5 * (tmp_path / "b.gif").stat().st_size


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("a.avi", {}, "ends in .gif or .mp4"),
        ("a.mp4", {"fps": 300}, "fps=300"),
        ("a.mp4", {"frames": []}, "has no frames"),
        ("a.mp4", {"frames": [frames(1)[0], frames(1, width=31)[0]]}, "use one size for all"),
        ("none/a.gif", {}, "there is no folder"),
        ("a.gif", {"fps": 60}, "fps=60"),
        ("a.gif", {"fps": 0}, "fps=0"),
        ("a.gif", {"frames": []}, "has no frames"),
        ("a.gif", {"frames": [frames(1)[0], frames(1, width=31)[0]]}, "use one size for all"),
    ],
)
def test_invalid_videos_are_refused_in_one_sentence_and_leave_no_file(tmp_path, name, changes, reason):
    with pytest.raises(ValueError, match=reason):
        write_video(tmp_path / name, **({"frames": frames()} | changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [".gif", ".mp4"])
def test_a_full_disk_keeps_the_old_file_and_leaves_no_incomplete_one(tmp_path, kind):
    path = tmp_path / f"a{kind}"
    path.write_text("before")
    with no_file_beyond(1000), pytest.raises(OSError, match="cannot be written"):
        write_video(path, frames(300, 200, 300))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("check", [check_video, check_page])
def test_a_read_only_folder_is_refused_before_anything_is_played(tmp_path, check, monkeypatch):
    path = tmp_path / ("a.gif" if check is check_video else "a.html")
    assert check(path) == path
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # root may write anywhere
    with pytest.raises(ValueError, match="is read-only"):
        check(path)


def test_an_error_while_recording_leaves_no_file(tmp_path):
    for name in ("a.gif", "a.mp4"):
        with pytest.raises(KeyError), Video(tmp_path / name) as video:  # noqa: PT012
            video.add(frames(1)[0])
            raise KeyError
    assert not list(tmp_path.iterdir())


def test_an_mp4_shows_every_frame_at_its_rate(tmp_path):
    shown = scale(np.random.default_rng(0).integers(0, CODES, (9, 12), dtype=np.uint8), 5)
    images = [PALETTE[np.roll(shown, 5 * k, 0)] for k in range(12)]  # 45 x 60: not even
    write_video(tmp_path / "a.mp4", images, fps=15)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", tmp_path / "a.mp4", *["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]]
    decoded = subprocess.run(command, capture_output=True, check=True)
    assert b"15 fps" in decoded.stderr
    read = np.frombuffer(decoded.stdout, np.uint8).reshape(12, 46, 60, 3)[:, :45]
    # Compares the middles of cells, since colours bleed at their edges.
    for got, expected in zip(read, images, strict=True):
        assert np.abs(got[2::5, 2::5].astype(int) - expected[2::5, 2::5]).mean() < 12


@pytest.mark.parametrize("kind", [".gif", ".mp4"])
@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (frames(1)[0].astype(np.float32), r"A frame of a video is float32 \[20, 30, 3\]"),
        (np.zeros((20, 30, 4), np.uint8), r"A frame of a video is uint8 \[20, 30, 4\]"),
        (np.zeros((20, 30), np.uint8), r"A frame of a video is uint8 \[20, 30\]"),
        (frames(1)[0].tolist(), "A frame of a video is a list"),
        (None, "A frame of a video is a NoneType"),
        (np.zeros((0, 30, 3), np.uint8), "0 x 30 pixels"),
        (np.zeros((1, 70_000, 3), np.uint8), "1 x 70000 pixels"),
    ],
)
def test_invalid_frames_are_refused_in_one_sentence_and_leave_no_file(tmp_path, kind, frame, reason):
    with pytest.raises(ValueError, match=reason):
        write_video(tmp_path / f"a{kind}", [frame] * 2)
    assert not list(tmp_path.iterdir())


def test_without_an_encoder_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"particle-grid\[video\]"):
        write_video(tmp_path / "a.mp4", frames())

"""Invariants of videos."""

import numpy as np
import pytest
from PIL import Image

from particle_grid.sim.world import CODES
from particle_grid.view.frame import PALETTE
from particle_grid.view.video import write_gif


def frames(count=5, height=20, width=30):
    return PALETTE[np.random.default_rng(0).integers(0, CODES, (count, height, width))]


def test_a_gif_holds_every_frame_unaltered_at_its_rate(tmp_path):
    write_gif(tmp_path / "a.gif", iter(frames()), fps=25)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 5
        assert gif.info["loop"] == 0
        for k, expected in enumerate(frames()):
            gif.seek(k)
            assert gif.info["duration"] == 40
            assert (np.asarray(gif.convert("RGB")) == expected).all()


def test_a_gif_of_a_still_world_is_small(tmp_path):
    write_gif(tmp_path / "a.gif", [frames(1)[0]] * 100)
    write_gif(tmp_path / "b.gif", frames(1))
    assert (tmp_path / "a.gif").stat().st_size < 1.5 * (tmp_path / "b.gif").stat().st_size


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("a.mp4", {}, "end in .gif"),
        ("none/a.gif", {}, "there is no folder"),
        ("a.gif", {"fps": 60}, "fps=60"),
        ("a.gif", {"fps": 0}, "fps=0"),
        ("a.gif", {"frames": []}, "0 frames"),
        ("a.gif", {"frames": [frames(1)[0], frames(1, width=31)[0]]}, "all of one size"),
    ],
)
def test_what_makes_no_gif_is_refused_in_one_sentence_and_leaves_no_file(tmp_path, name, changes, reason):
    with pytest.raises(ValueError, match=reason):
        write_gif(tmp_path / name, **({"frames": frames()} | changes))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_written_file(tmp_path):
    path = tmp_path / "a.gif"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot be written \(No space left"):
        write_gif(path, frames())
    assert not path.is_symlink()

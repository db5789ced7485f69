"""Images to be formed: any file gives a picture or one sentence, using little memory."""

import os
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from particle_grid.sim.tasks import _picture as picture
from tests.cases import small


def test_an_image_matched_in_tiles_equals_one_matched_pixel_by_pixel(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (23, 17, 4), np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    monkeypatch.setattr(picture, "TILE", 5)
    nearest = ((pixels[..., None, :3] - picture.ANCHORS.astype(float)) ** 2).sum(-1).argmin(-1)
    np.testing.assert_array_equal(picture.of_image(path, 4), np.where(pixels[..., 3] >= picture.OPAQUE, 1 + nearest, 0))


def test_the_size_of_an_image_is_checked_before_it_is_decoded(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (16384, 1025)).save(path)
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"huge.png has 16384 x 1025 pixels, more than \d+: make the image smaller"):
        small("puffer", "discrete", image=str(path))
    header = path.read_bytes()
    path.write_bytes(header[:16] + b"\x7f\xff\xff\xff\x7f\xff\xff\xff" + header[24:])  # claims to be even larger
    with pytest.raises(ValueError, match=r"huge.png cannot be read as an image|make the image smaller"):
        small("puffer", "discrete", image=str(path))


def test_an_image_takes_few_bytes_per_pixel(tmp_path):
    path = tmp_path / "large.png"
    image = Image.new("1", (2000, 2000))
    image.putpixel((7, 7), 1)
    image.save(path)
    tracemalloc.start()
    try:
        picture.of_image(path, 4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2000 * 2000 + 100 * picture.TILE**2


@pytest.mark.parametrize("extension", ["png", "ppm", "gif", "jpg", "bmp", "webp"])
def test_a_damaged_image_is_refused_in_one_sentence(tmp_path, extension):
    path, generator = tmp_path / f"x.{extension}", np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
    whole, refused = path.read_bytes(), 0
    for case in range(200):
        data = bytearray(whole[: generator.integers(1, len(whole))] if case % 2 else whole)
        for place in generator.integers(0, min(len(data), 100), case % 5):
            data[place] = generator.integers(0, 256)
        path.write_bytes(data)
        try:
            picture.of_image(path, 2)
        except ValueError as error:
            assert str(error).startswith(f"image={path}")  # noqa: PT017
            refused += 1
    assert refused


@pytest.mark.parametrize("what", ["folder", "plain ppm", *(["pipe"] if hasattr(os, "mkfifo") else [])])
def test_a_file_that_is_not_an_image_is_refused_in_one_sentence(tmp_path, what):
    path = tmp_path / "x"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"P3\n2 2\n255\n1 2 x")
    with pytest.raises(ValueError, match=r"^image=\S+x (is not a file|cannot be read as an image)"):
        picture.of_image(path, 2)

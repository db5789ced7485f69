"""Files are replaced atomically, even with concurrent writers, links and leftovers in the folder."""

import contextlib
import os
import resource
import stat
import threading
import time

import numpy as np
import pytest

from particle_grid.learn import checkpoint
from particle_grid.support import atomic
from particle_grid.view.video import write_video


def test_concurrent_writers_never_fail_and_readers_see_only_whole_contents(tmp_path):
    path = tmp_path / "x"
    contents = [letter * 300_000 for letter in (b"a", b"b", b"c")]
    problems = []
    atomic.write(path, contents[0])

    def write(content):
        for _ in range(50):
            try:
                atomic.write(path, content)
            except OSError as error:
                problems.append(error)
            if path.read_bytes() not in contents:
                problems.append("a torn read")

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert problems == []
    assert os.listdir(tmp_path) == ["x"]


def test_a_planted_link_is_replaced_and_never_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    folder = tmp_path / "shared"
    folder.mkdir()
    for name in ("c.pt", ".c.pt.tmp", f"{atomic.TEMPORARY}c.pt"):
        (folder / name).symlink_to(victim)
    atomic.write(folder / "c.pt", b"new")
    assert victim.read_bytes() == b"precious"
    assert not (folder / "c.pt").is_symlink()
    assert (folder / "c.pt").read_bytes() == b"new"


def test_the_longest_possible_file_name_can_be_written(tmp_path):
    path = tmp_path / ("x" * 252 + ".pt")
    atomic.write(path, b"content")
    atomic.write(path, b"again")
    assert path.read_bytes() == b"again"
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_keeps_its_permissions_and_a_new_one_has_the_default_ones(tmp_path):
    old = os.umask(0o027)
    try:
        atomic.write(tmp_path / "x", b"1")
        (tmp_path / "y").write_bytes(b"1")
        assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode
        (tmp_path / "x").chmod(0o600)
        atomic.write(tmp_path / "x", b"2")
        assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(old)


def test_leftovers_of_killed_processes_are_removed_after_a_day_and_newer_ones_kept(tmp_path):
    for name in ("old", "new"):
        (tmp_path / f"{atomic.TEMPORARY}{name}").write_bytes(b"half")
    yesterday = time.time() - 25 * 3600
    os.utime(tmp_path / f"{atomic.TEMPORARY}old", (yesterday, yesterday))
    atomic.write(tmp_path / "x", b"content")
    assert set(os.listdir(tmp_path)) == {"x", f"{atomic.TEMPORARY}new"}


@contextlib.contextmanager
def no_file_beyond(size):
    """Limit files to this many bytes, so that larger writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_incomplete_write_leaves_the_old_file_and_no_other(tmp_path):
    checkpoint.save(tmp_path / "c.pt", {"steps": 1})
    with no_file_beyond(1000), pytest.raises(OSError, match="File too large"):
        checkpoint.save(tmp_path / "c.pt", {"steps": 2, "text": "x" * 10_000})
    assert checkpoint.load(tmp_path / "c.pt")["steps"] == 1
    assert os.listdir(tmp_path) == ["c.pt"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_or_a_device_is_never_replaced_by_a_file(tmp_path):
    path = tmp_path / "pipe.gif"
    os.mkfifo(path)
    frame = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(OSError, match=r"pipe.gif could not be written.*not a file"):
        atomic.write(path, b"content")
    with pytest.raises(ValueError, match=r"pipe.gif cannot be written: it is a device, a pipe or a socket. Choose"):
        write_video(path, [frame])
    assert stat.S_ISFIFO(path.lstat().st_mode)
    assert list(tmp_path.iterdir()) == [path]

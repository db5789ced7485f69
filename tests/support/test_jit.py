"""Cached code is only used for the types it was compiled for, and only its user can write to the cache."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numba.core.caching
import pytest
import torch

from particle_grid.support import jit
from tests.cases import needs_jit

ROOT = Path(__file__).parents[2]


def cache(folder, stamp):
    """Return Numba's cache, in a folder, of a function whose source has a stamp: its time and size."""
    return numba.core.caching.IndexDataCacheFile(str(folder), "function", stamp)


def test_a_reader_during_a_save_finds_nothing_or_the_right_code(tmp_path, monkeypatch):
    assert jit  # importing it changes how Numba names the files
    cache(tmp_path, "old").save("integers", "code for integers")
    writer = cache(tmp_path, "new")
    reader = cache(tmp_path, "new")
    found = []
    save = writer._save_data

    def look_first(name, data):
        found.append(reader.load("floats"))
        save(name, data)

    monkeypatch.setattr(writer, "_save_data", look_first)
    writer.save("floats", "code for floats")
    assert found == [None]
    assert reader.load("floats") == "code for floats"


def test_concurrent_saves_do_not_overwrite_each_other(tmp_path, monkeypatch):
    one, two = cache(tmp_path, "new"), cache(tmp_path, "new")
    save = one._save_data

    def save_between(name, data):
        monkeypatch.setattr(two, "_load_index", dict)  # it was read before the first write
        two.save("floats", "code for floats")
        save(name, data)

    monkeypatch.setattr(one, "_save_data", save_between)
    one.save("integers", "code for integers")
    reader = cache(tmp_path, "new")
    assert reader.load("floats") == "code for floats"
    assert reader.load("integers") in (None, "code for integers")


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """A user whose home is not writable or unknown. Returns the temporary folder."""
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_without_a_home_kernels_are_cached_where_only_their_user_can_write(homeless):
    folder = jit.cache_folder()
    assert folder.parent.parent == homeless
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert jit.cache_folder() == folder


@pytest.mark.parametrize("hostile", ["open", "link"])
def test_a_cache_folder_that_another_user_can_write_is_not_used(homeless, hostile):
    folder = jit.cache_folder().parent
    if hostile == "open":
        folder.chmod(0o777)
    else:
        folder.rename(homeless / "elsewhere")
        folder.symlink_to(homeless / "elsewhere")
    with pytest.raises(OSError, match="set NUMBA_CACHE_DIR to one that can"):
        jit.cache_folder()


def test_a_cache_folder_that_another_user_owns_is_not_used(homeless, monkeypatch):
    uid = os.getuid()
    jit.cache_folder()
    (homeless / f"particle_grid-{uid}").rename(homeless / f"particle_grid-{uid + 1}")
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(OSError, match="set NUMBA_CACHE_DIR to one that can"):
        jit.cache_folder()


def test_a_user_without_a_home_can_cache_kernels(homeless, monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(jit.Path, "home", unknown)
    assert jit.cache_folder().is_relative_to(homeless)


@pytest.mark.parametrize("command", ["train", "eval", "rank"])
def test_a_command_whose_cache_is_not_writable_ends_in_one_line(command, tmp_path):
    (tmp_path / "file").touch()
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "file")}
    arguments = [sys.executable, "-m", f"particle_grid.{command}"]
    process = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stdout == ""
    assert process.stderr.startswith(f"error: No folder for compiled kernels can be written ({tmp_path / 'file'})")
    assert process.stderr.count("\n") == 1


def test_library_users_can_catch_the_error_of_a_cache_that_is_not_writable(tmp_path):
    (tmp_path / "file").touch()
    code = """
try:
    from particle_grid import ParticleGrid
except OSError as error:
    print(error)
raise KeyError("other errors keep their traceback")
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "file")}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "set NUMBA_CACHE_DIR to one that can" in process.stdout
    assert "Traceback" in process.stderr


TRAIN = """
import sys, torch
from tests.learn.training import make, weights
run = make("mlp")
run.run()
torch.save(weights(run), sys.argv[1])
"""


@pytest.mark.slow
@needs_jit("compiles")
def test_a_run_that_compiles_ends_with_the_same_weights_as_one_that_finds_compiled_kernels(tmp_path):
    """Copies of helpers that are optimised in two places may order their sums differently."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    results = [tmp_path / "compiles.pt", tmp_path / "loads.pt"]
    for path in results:
        subprocess.run([sys.executable, "-c", TRAIN, str(path)], env=environment, check=True)
    assert torch.equal(*(torch.load(path, weights_only=True) for path in results))

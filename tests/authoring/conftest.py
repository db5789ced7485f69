"""Files that `new` writes, with changes that break them."""

import importlib
import sys

import pytest

from particle_grid.authoring.new import write


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return a function that writes mine.py from a template with changes (old, new), and returns its class's place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mine", None)

    def make(kind, *changes):
        place = write(kind, "mine")
        text = (tmp_path / "mine.py").read_text("utf-8")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "mine.py").write_text(text, "utf-8")
        importlib.invalidate_caches()
        return place

    yield make
    sys.modules.pop("mine", None)

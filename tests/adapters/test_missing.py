"""Optional libraries that are not installed."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("adapter", "library", "extra"),
    [
        ("pettingzoo", "pettingzoo", "pettingzoo"),
        ("sb3", "stable_baselines3", "examples"),
        ("torchrl", "tensordict", "torchrl"),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(adapter, library, extra, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)  # makes its import fail
    monkeypatch.delitem(sys.modules, f"particle_grid.adapters.{adapter}", raising=False)
    with pytest.raises(ValueError, match=rf'needs {library}, .*pip install "particle-grid\[{extra}\]"'):
        importlib.import_module(f"particle_grid.adapters.{adapter}")

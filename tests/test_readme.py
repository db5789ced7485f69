"""The commands and code in the README work as printed."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from particle_grid import ParticleGrid, sim
from particle_grid.sim import tasks
from tests.cases import random_actions

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture
def line_up(tmp_path, monkeypatch):
    """Save the README's example task where Python finds it, and return its text."""
    marker = README.index("<!-- file: line_up.py -->")
    text = re.search(r"```\w+\n(.*?)```", README[marker:], re.DOTALL)[1]
    (tmp_path / "line_up.py").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield text
    sys.modules.pop("line_up", None)


def test_the_script_of_the_example_task_beats_random_actions(line_up):
    env = ParticleGrid(task="line_up:LineUp", action="discrete", agents=50, height=64, width=64, packing=0.8)
    scores = []
    for scripted in (False, True):
        env.reset(0)
        generator = np.random.default_rng(0)
        bits = np.zeros(1, np.uint64)
        total = []
        for _ in range(60):
            env.step(env.scripted_actions(bits) if scripted else random_actions(env, generator))
            total.append(env.score()[0])
        scores.append(np.mean(total[30:]))
    assert scores[1] > scores[0] + 5


def test_a_file_among_the_shipped_tasks_becomes_a_task_of_that_name(line_up, tmp_path, monkeypatch):
    monkeypatch.setattr(sim, "TASKS", [*sim.TASKS, str(tmp_path)])
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    assert "line_up" in tasks.names()
    assert ParticleGrid(task="line_up", agents=50, height=64, width=64).task.packing == 0.5
    with pytest.raises(ValueError, match="paking"):
        ParticleGrid(task="line_up", paking=1)
    (tmp_path / "line_on.py").write_text("class LineOn:\n    unit, teams = 'cells', 1\n", "utf-8")
    with pytest.raises(ValueError, match=r"line_on:LineOn lacks sight, init, reward, score, scripted"):
        ParticleGrid(task="line_on")


def test_the_files_and_pictures_that_the_readme_links_to_exist():
    for target in re.findall(r"(?<=\]\()[^)#]+|(?<=src=\")[^\"]+", README):
        assert target.startswith("https://github.com/") or (ROOT / target).is_file(), target


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150

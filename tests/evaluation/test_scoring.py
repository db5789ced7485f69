"""What is said of a policy's scores."""

from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from particle_grid.evaluation import baseline
from particle_grid.evaluation.scoring import show_results, verdict
from particle_grid.runs.results import Results
from particle_grid.sim.task import team_names
from particle_grid.sim.tasks import _baselines
from tests.cases import small


def results(sampled, greedy):
    """Return results of two episodes in which random actions score 1 and the script 3, for each team."""
    teams = len(sampled)
    scores = {"random": [1.0] * teams, "scripted": [3.0] * teams, "sampled": sampled, "greedy": greedy}
    arrays = {player: np.array([values, values]) for player, values in scores.items()}
    return Results(arrays, {player: (values.mean(1) - 1) / 2 for player, values in arrays.items()})


def test_each_team_has_its_own_normalised_score_in_the_table(capsys):
    found = results([5.0, 1.0], [3.0, 0.9998])
    assert found.by_team("sampled").tolist() == [[2, 0], [2, 0]]
    show_results(small("predator_prey", "discrete"), found, Console(width=150), 8)
    out = capsys.readouterr().out
    assert "predator / prey" in out
    assert "2.000 ± 0.000 / 0.000 ± 0.000" in out
    assert "1.000 ± 0.000 / 0.000 ± 0.000" in out
    assert "-0.000" not in out


@pytest.mark.parametrize(
    ("task", "sampled", "greedy", "said"),
    [
        ("group", [3.0], [3.0], []),
        ("group", [1.01], [1.0], ["The policy is hardly better than random actions after 1,000 steps.", "By default"]),
        ("group", [3.0], [2.0], ["Greedy actions score less"]),
        ("predator_prey", [3.0, 0.0], [3.0, 0.0], ["As prey, the policy is no better", "By default"]),
    ],
)
def test_disappointing_scores_come_with_a_word(task, sampled, greedy, said):
    lines = verdict(small(task, "discrete"), results(sampled, greedy), 1000, 2000)
    assert len(lines) == len(said)
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=True))


@pytest.mark.parametrize(
    ("teams", "kinds", "names"),
    [
        (1, ("bird",), []),
        (2, ("dog", "sheep"), ["dog", "sheep"]),
        (2, (), ["team 1", "team 2"]),
        (2, ("dog",), ["dog", "team 2"]),
    ],
)
def test_every_team_has_a_name(teams, kinds, names):
    assert team_names(SimpleNamespace(teams=teams, kinds=kinds)) == names


def test_a_stored_baseline_replaces_the_one_that_was_read(monkeypatch, tmp_path):
    env = small("center", "discrete")
    monkeypatch.setattr(baseline, "STORED", tmp_path / "baselines.json")
    monkeypatch.setattr(_baselines, "STORED", tmp_path / "baselines.json")
    try:
        for score in (1.0, 2.0):
            baseline.store(env, baseline.Baseline([[score]], [[3.0]]))
            assert baseline.stored(env).random == [[score]]
    finally:
        _baselines.entries.cache_clear()  # those of another file


def test_a_run_of_the_usual_length_is_not_told_that_it_is_short():
    assert verdict(small("group", "discrete"), results([1.0], [1.0]), 2000, 2000) == [
        "The policy is no better than random actions after 2,000 steps."
    ]
